//! Sums over the training of a round, from which its metrics are made.

use ddpo_train::{Collective, GradNorm, Persist, Report, Result, StateReader, StateWriter, Sums};

/// Sums over samples trained on, and over updates.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Meter(Sums<5>);

// Places of the sums.
const N: usize = 0;
const LOSS: usize = 1;
const N_UPDATES: usize = 2;
const GRAD_NORM: usize = 3;
const N_SKIPPED: usize = 4;

impl Meter {
    /// One sample with its weighted loss.
    pub(crate) fn add(&mut self, loss: f64) {
        self.0.0[N] += 1.0;
        self.0.0[LOSS] += loss;
    }

    /// One step of the optimiser.
    pub(crate) fn add_update(&mut self, grad: &GradNorm) {
        self.0.0[N_UPDATES] += 1.0;
        self.0.0[GRAD_NORM] += grad.norm;
    }

    /// One step of the optimiser left out.
    pub(crate) fn add_skipped(&mut self) {
        self.0.0[N_SKIPPED] += 1.0;
    }

    /// The sums of both.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// The mean over ranks of every sum, on every rank.
    pub(crate) fn all_reduce(
        &mut self,
        collective: &dyn Collective,
        device: tch::Device,
    ) -> Result<()> {
        self.0.all_reduce(collective, device)
    }

    /// Means over the samples and updates; not a number where there was none.
    pub(crate) fn report(&self, out: &mut Report) {
        let Sums(sums) = &self.0;
        out.push("rwr/loss", sums[LOSS] / sums[N]);
        out.push("policy/grad_norm", sums[GRAD_NORM] / sums[N_UPDATES]);
        out.push("policy/updates", sums[N_UPDATES]);
        out.push("policy/updates_skipped", sums[N_SKIPPED]);
    }
}

impl Persist for Meter {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.0.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.0.load(from)
    }
}
