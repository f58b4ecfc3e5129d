//! One step of the optimiser on what all ranks have accumulated, and sums over the steps of an epoch.

use std::fmt;

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

/// Why gradients must not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// What was not finite, and where.
    NotFinite(String),
    /// A loss scale was too large; it is smaller by now, and the next update may succeed.
    Overflow(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite(text) | Self::Overflow(text) => f.write_str(text),
        }
    }
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
        fault: Option<Fault>,
    ) -> Result<Option<GradNorm>> {
        let reason = if ctx.any_rank(fault.is_some())? {
            ctx.policy.params().zero_grad();
            // A loss scale that was too large is smaller by now, and ends the run itself when it cannot be.
            // Ranks agree on what counts, or one of them would end the run alone.
            let counts = matches!(fault, Some(Fault::NotFinite(_)));
            if ctx.any_rank(counts)? {
                self.skipped_in_a_row += 1;
            }
            fault.map_or("on another rank".to_owned(), |fault| fault.to_string())
        } else {
            let grads = ctx.policy.params().grads()?;
            ctx.collective.all_reduce_mean(&grads)?;
            match ctx.optimizer.step(ctx.policy.params(), self.max_grad_norm) {
                Ok(norm) => {
                    self.skipped_in_a_row = 0;
                    if let Some(scale) = ctx.policy.loss_scale() {
                        scale.stepped();
                    }
                    return Ok(Some(norm));
                }
                Err(Error::NonFinite { what, detail }) => {
                    self.skipped_in_a_row += 1;
                    format!("{what} {detail}")
                }
                Err(other) => return Err(other),
            }
        };
        self.skip(ctx, at, &reason)?;
        Ok(None)
    }

    /// Tells observers, and ends the run when it was once too often.
    fn skip(&self, ctx: &mut Context<'_>, at: Place, reason: &str) -> Result<()> {
        let Place { epoch, update } = at;
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
