//! Dynamic loss scaling: gradients of f16 activations below 6e-8 are zero, so the loss is multiplied first.

use std::cell::Cell;

use ddpo_torch::{foreach_mul_, global_norm};
use tch::Tensor;

use crate::{Error, ParamSet, Persist, Result, StateReader, StateWriter};

/// Where it starts: `torch.amp.GradScaler`'s `init_scale`. Also the most it grows to, which is a choice of this
/// crate: `GradScaler` knows no end, and goes on doubling until gradients overflow.
const INITIAL: f64 = 65536.0;
/// `GradScaler`'s `growth_interval`, in steps of the optimiser.
const GROWTH_INTERVAL: u64 = 2000;
/// Below it, what overflows is no gradient any more.
const LEAST: f64 = 1.0;

/// A power of two that the loss is multiplied by and its gradients divided by.
///
/// It halves when gradients overflow and doubles after 2,000 updates in a row without
/// (`torch.amp.GradScaler`), however many backward passes an update is made of. Being a power of two, it changes no
/// bit of a gradient that f16 holds either way.
#[derive(Debug)]
pub struct LossScale {
    state: Cell<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    scale: f64,
    since: u64,
    overflows: u64,
}

impl Default for LossScale {
    fn default() -> Self {
        let (scale, since, overflows) = (INITIAL, 0, 0);
        let state = Cell::new(State {
            scale,
            since,
            overflows,
        });
        Self { state }
    }
}

impl LossScale {
    /// What the next loss is multiplied by.
    pub fn get(&self) -> f64 {
        self.state.get().scale
    }

    /// How often gradients overflowed.
    pub fn overflows(&self) -> u64 {
        self.state.get().overflows
    }

    /// Runs a backward pass from a scaled loss, which adds to the gradients of `params`.
    ///
    /// What was accumulated before is scaled along, so that one addition is right for both; a power of two
    /// does not change it. Waits for the device, to see whether the gradients are finite. What was an update is for the
    /// caller to say: [`stepped`](Self::stepped).
    ///
    /// # Errors
    /// [`Error::Overflow`] if the loss is finite and the gradients are not; the scale is then half of what it
    /// was. [`Error::NonFinite`] if they are not at a scale of 1 either. What `backward` reports.
    pub fn backward(
        &self,
        params: &ParamSet,
        loss: &Tensor,
        backward: impl FnOnce(&Tensor) -> Result<()>,
    ) -> Result<()> {
        let scale = self.get();
        let earlier = present(params);
        foreach_mul_(&earlier, scale)?;
        backward(&(loss * scale))?;
        let grads = present(params);
        foreach_mul_(&grads, 1.0 / scale)?;
        if global_norm(&grads)?.is_finite() {
            return Ok(());
        }
        match loss.double_value(&[]).is_finite() {
            true => Err(self.overflowed()),
            // Whoever asked for the loss sees that it is not finite.
            false => Ok(()),
        }
    }

    /// Takes note that the optimiser made an update with gradients of this scale: once per update, not once per
    /// backward pass, and not for an update that was skipped.
    pub fn stepped(&self) {
        let mut state = self.state.get();
        state.since += 1;
        if state.since == GROWTH_INTERVAL {
            state.since = 0;
            state.scale = (2.0 * state.scale).min(INITIAL);
        }
        self.state.set(state);
    }

    fn overflowed(&self) -> Error {
        let mut state = self.state.get();
        let scale = state.scale;
        state.overflows += 1;
        state.since = 0;
        state.scale = (scale / 2.0).max(LEAST);
        self.state.set(state);
        match scale <= LEAST {
            true => Error::NonFinite {
                what: "gradient",
                detail: format!("not even at a loss scale of {scale}"),
            },
            false => Error::Overflow {
                scale,
                next: state.scale,
            },
        }
    }
}

/// The gradients that there are.
fn present(params: &ParamSet) -> Vec<Tensor> {
    let grads = params.tensors().iter().map(Tensor::grad);
    grads.filter(Tensor::defined).collect()
}

impl Persist for LossScale {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        let State {
            scale,
            since,
            overflows,
        } = self.state.get();
        out.value("state", &(scale, since, overflows))
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        let (scale, since, overflows) = from.value("state")?;
        self.state.set(State {
            scale,
            since,
            overflows,
        });
        Ok(())
    }
}
