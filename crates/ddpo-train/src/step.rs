//! One step of the optimiser on what all ranks have accumulated, and sums over the steps of an epoch.

use tch::{Device, Tensor};

use crate::{
    Collective, Context, Error, Event, GradNorm, Persist, Result, StateReader, StateWriter,
};

/// Where in a run an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which epoch, from 0.
    pub epoch: u64,
    /// Which update of it, from 0.
    pub update: usize,
}

/// Takes steps, and leaves out those whose numbers are not finite, up to a number in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stepper {
    max_grad_norm: f64,
    max_skipped: u32,
    skipped_in_a_row: u32,
}

impl Stepper {
    /// Clips gradients to a global norm of `max_grad_norm`; `max_skipped` steps in a row left out end the run.
    pub fn new(max_grad_norm: f64, max_skipped: u32) -> Self {
        Self {
            max_grad_norm,
            max_skipped,
            skipped_in_a_row: 0,
        }
    }

    /// Averages the gradients over ranks and takes the step, unless `fault` on any rank says what was not
    /// finite. None if it was left out: gradients are then zero and observers have been told.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if too many steps in a row were left out; what the optimiser or a rank reports.
    pub fn step(
        &mut self,
        ctx: &mut Context<'_>,
        at: Place,
        mut fault: Option<String>,
    ) -> Result<Option<GradNorm>> {
        if ctx.any_rank(fault.is_some())? {
            ctx.policy.params().zero_grad();
            fault = fault.or(Some("on another rank".to_owned()));
        } else {
            let grads = ctx.policy.params().grads()?;
            ctx.collective.all_reduce_mean(&grads)?;
            match ctx.optimizer.step(ctx.policy.params(), self.max_grad_norm) {
                Ok(norm) => {
                    self.skipped_in_a_row = 0;
                    return Ok(Some(norm));
                }
                Err(Error::NonFinite { what, detail }) => fault = Some(format!("{what} {detail}")),
                Err(other) => return Err(other),
            }
        }
        self.skip(ctx, at, &fault.unwrap_or_default())?;
        Ok(None)
    }

    fn skip(&mut self, ctx: &mut Context<'_>, at: Place, reason: &str) -> Result<()> {
        let Place { epoch, update } = at;
        self.skipped_in_a_row += 1;
        let in_a_row = self.skipped_in_a_row;
        ctx.emit(&Event::UpdateSkipped {
            epoch,
            update,
            reason,
            in_a_row,
        })?;
        if in_a_row < self.max_skipped {
            return Ok(());
        }
        Err(Error::NonFinite {
            what: "training",
            detail: format!(
                "epoch {epoch}, update {update}: {reason}; {in_a_row} updates in a row left out"
            ),
        })
    }
}

impl Persist for Stepper {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("skipped_in_a_row", &self.skipped_in_a_row)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.skipped_in_a_row = from.value("skipped_in_a_row")?;
        Ok(())
    }
}

/// Sums in f64 on the host, from which an epoch's metrics are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums<const N: usize>(pub [f64; N]);

impl<const N: usize> Default for Sums<N> {
    fn default() -> Self {
        Self([0.0; N])
    }
}

impl<const N: usize> Sums<N> {
    /// The sums of both.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
    }

    /// The mean over ranks of every sum, on every rank.
    ///
    /// # Errors
    /// [`Error::Collective`].
    pub fn all_reduce(&mut self, collective: &dyn Collective, device: Device) -> Result<()> {
        let sums = Tensor::from_slice(&self.0).to_device(device);
        collective.all_reduce_mean(std::slice::from_ref(&sums))?;
        let reduced = Vec::<f64>::try_from(&sums.to_device(Device::Cpu)).map_err(Error::model)?;
        self.0.copy_from_slice(&reduced);
        Ok(())
    }
}

impl<const N: usize> Persist for Sums<N> {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("sums", &self.0[..])
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        let sums: Vec<f64> = from.value("sums")?;
        let found = sums.len();
        self.0 = sums
            .try_into()
            .map_err(|_| from.refuse("sums", &format!("has {found} numbers, expected {N}")))?;
        Ok(())
    }
}
