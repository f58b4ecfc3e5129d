//! Sums over the training of an epoch, from which its metrics are made.

use ddpo_train::{Collective, Error, GradNorm, Persist, Report, Result, StateReader, StateWriter};
use tch::Tensor;

/// Sums in f64 on the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Meter {
    n: f64,
    ratio: f64,
    clipped: f64,
    squared_log_ratio: f64,
    loss: f64,
    n_updates: f64,
    grad_norm: f64,
    n_skipped: f64,
}

impl Meter {
    /// One pair of sample and step.
    pub(crate) fn add(&mut self, loss: f64, ratio: f64, log_ratio: f64, clipped: bool) {
        self.n += 1.0;
        self.loss += loss;
        self.ratio += ratio;
        self.squared_log_ratio += log_ratio * log_ratio;
        self.clipped += f64::from(u8::from(clipped));
    }

    /// One step of the optimiser.
    pub(crate) fn add_update(&mut self, grad: &GradNorm) {
        self.n_updates += 1.0;
        self.grad_norm += grad.norm;
    }

    /// One step of the optimiser left out.
    pub(crate) fn add_skipped(&mut self) {
        self.n_skipped += 1.0;
    }

    /// The sums of both.
    pub(crate) fn merge(&mut self, other: &Self) {
        let sums = self.sums().into_iter().zip(other.sums());
        let added: Vec<f64> = sums.map(|(a, b)| a + b).collect();
        self.set(&added);
    }

    /// The mean over ranks of every sum, on every rank.
    pub(crate) fn all_reduce(
        &mut self,
        collective: &dyn Collective,
        device: tch::Device,
    ) -> Result<()> {
        let sums = Tensor::from_slice(&self.sums()).to_device(device);
        collective.all_reduce_mean(std::slice::from_ref(&sums))?;
        let reduced =
            Vec::<f64>::try_from(&sums.to_device(tch::Device::Cpu)).map_err(Error::model)?;
        self.set(&reduced);
        Ok(())
    }

    /// Means over the pairs and updates; not a number where there was none.
    pub(crate) fn report(&self, out: &mut Report) {
        out.push("policy/ratio_mean", self.ratio / self.n);
        out.push("policy/clip_fraction", self.clipped / self.n);
        out.push("policy/approx_kl", 0.5 * self.squared_log_ratio / self.n);
        out.push("policy/loss", self.loss / self.n);
        out.push("policy/grad_norm", self.grad_norm / self.n_updates);
        out.push("policy/updates", self.n_updates);
        out.push("policy/updates_skipped", self.n_skipped);
    }

    fn sums(&self) -> [f64; 8] {
        [
            self.n,
            self.ratio,
            self.clipped,
            self.squared_log_ratio,
            self.loss,
            self.n_updates,
            self.grad_norm,
            self.n_skipped,
        ]
    }

    fn set(&mut self, sums: &[f64]) {
        let fields = [
            &mut self.n,
            &mut self.ratio,
            &mut self.clipped,
            &mut self.squared_log_ratio,
            &mut self.loss,
            &mut self.n_updates,
            &mut self.grad_norm,
            &mut self.n_skipped,
        ];
        for (field, &sum) in fields.into_iter().zip(sums) {
            *field = sum;
        }
    }
}

impl Persist for Meter {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("sums", &self.sums())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        let sums: Vec<f64> = from.value("sums")?;
        self.set(&sums);
        Ok(())
    }
}
