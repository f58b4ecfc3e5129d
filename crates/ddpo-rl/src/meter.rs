//! Sums over the training of an epoch, from which its metrics are made.

use ddpo_train::{Collective, GradNorm, Persist, Report, Result, StateReader, StateWriter, Sums};

/// Sums over pairs of sample and step, and over updates.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Meter(Sums<9>);

// Places of the sums.
const N: usize = 0;
const RATIO: usize = 1;
const CLIPPED: usize = 2;
const SQUARED_LOG_RATIO: usize = 3;
const LOSS: usize = 4;
const N_UPDATES: usize = 5;
const GRAD_NORM: usize = 6;
const N_SKIPPED: usize = 7;
const KL: usize = 8;

impl Meter {
    /// One pair of sample and step.
    pub(crate) fn add(&mut self, loss: f64, ratio: f64, log_ratio: f64, clipped: bool) {
        let Sums(sums) = &mut self.0;
        sums[N] += 1.0;
        sums[LOSS] += loss;
        sums[RATIO] += ratio;
        sums[SQUARED_LOG_RATIO] += log_ratio * log_ratio;
        sums[CLIPPED] += f64::from(u8::from(clipped));
    }

    /// The divergence from the policy before training of one such pair.
    pub(crate) fn add_kl(&mut self, kl: f64) {
        self.0.0[KL] += kl;
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

    /// Means over the pairs and updates; not a number where there was none. The divergence from the policy
    /// before training is among them if it was measured.
    pub(crate) fn report(&self, with_kl: bool, out: &mut Report) {
        let Sums(sums) = &self.0;
        let mean = |of: usize| sums[of] / sums[N];
        if with_kl {
            out.push("policy/kl_pretrained", mean(KL));
        }
        out.push("policy/ratio_mean", mean(RATIO));
        out.push("policy/clip_fraction", mean(CLIPPED));
        out.push("policy/approx_kl", 0.5 * mean(SQUARED_LOG_RATIO));
        out.push("policy/loss", mean(LOSS));
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
