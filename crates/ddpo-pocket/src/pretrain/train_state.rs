//! Parameters in training, their AdamW state and their moving average, in memory and on disk.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_torch::weights;
use ddpo_torch::{AdamWConfig, foreach_lerp_, foreach_mul_, fused_adamw, global_norm};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// A model in training.
pub struct TrainState {
    names: Vec<String>,
    params: Vec<Tensor>,
    average: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
    /// Updates done.
    pub step: u64,
}

/// Hyperparameters of one update.
#[derive(Clone, Copy, Debug)]
pub struct StepArgs {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// Decay of the exponential moving average of the weights.
    pub ema: f64,
}

impl TrainState {
    /// Shares the tensors of a model and makes them require gradients.
    pub fn new(tensors: &BTreeMap<String, Tensor>) -> Self {
        let (names, params): (Vec<_>, Vec<_>) = tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.set_requires_grad(true)))
            .unzip();
        let like = |f: fn(&Tensor) -> Tensor| params.iter().map(f).collect::<Vec<_>>();
        Self {
            average: like(|p| p.detach().copy()),
            exp_avgs: like(|p| p.detach().zeros_like()),
            exp_avg_sqs: like(|p| p.detach().zeros_like()),
            steps: like(|p| Tensor::zeros([], (Kind::Float, p.device()))),
            names,
            params,
            step: 0,
        }
    }

    /// Clips the gradients, updates the weights and their average, and zeroes the gradients. Returns the gradient norm
    /// before clipping.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn step(&mut self, args: StepArgs) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let grads: Vec<Tensor> = self.params.iter().map(Tensor::grad).collect();
        let norm = global_norm(&grads)?;
        if norm > args.max_grad_norm {
            foreach_mul_(&grads, args.max_grad_norm / (norm + 1e-6))?;
        }
        let adamw = AdamWConfig {
            lr: args.lr,
            beta1: 0.9,
            beta2: args.beta2,
            weight_decay: args.weight_decay,
            eps: 1e-8,
        };
        if norm.is_finite() {
            fused_adamw(
                &self.params,
                &grads,
                &self.exp_avgs,
                &self.exp_avg_sqs,
                &self.steps,
                adamw,
            )?;
        }
        self.step += 1;
        // The average forgets the random start quickly, then settles at its decay.
        let decay = args
            .ema
            .min((1.0 + self.step as f64) / (10.0 + self.step as f64));
        foreach_lerp_(&self.average, &self.params, 1.0 - decay)?;
        for grad in grads {
            let _ = { grad }.zero_();
        }
        Ok(norm)
    }

    /// The averaged weights, by name.
    pub fn average(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.average)
    }

    /// Runs `f` with the averaged weights in place of the current ones.
    pub fn with_average<T>(&mut self, f: impl FnOnce() -> T) -> T {
        self.swap();
        let out = f();
        self.swap();
        out
    }

    fn swap(&mut self) {
        let _guard = tch::no_grad_guard();
        for (param, average) in self.params.iter_mut().zip(&mut self.average) {
            let current = param.detach().copy();
            param.copy_(average);
            average.copy_(&current);
        }
    }

    /// Starts from other weights instead of random ones; moments and update count start at zero.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with the first tensor that is missing or of another shape; `path` is for the message.
    pub fn start_from(&mut self, weights: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
        self.start_from_part(weights, path, &|_| false).map(|_| ())
    }

    /// Like [`TrainState::start_from`], but leaves tensors unchanged that are missing where `may_lack` allows it.
    /// Returns the names of those.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with the first tensor that is of another shape, or missing though it must not be.
    pub fn start_from_part(
        &mut self,
        weights: &BTreeMap<String, Tensor>,
        path: &Path,
        may_lack: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let _guard = tch::no_grad_guard();
        let targets = self.params.iter_mut().zip(&mut self.average);
        let mut lacking = Vec::new();
        for (name, (param, average)) in self.names.iter().zip(targets) {
            let found = weights.get(name);
            if found.is_none() && may_lack(name) {
                lacking.push(name.clone());
                continue;
            }
            let Some(weight) = found.filter(|w| w.size() == param.size()) else {
                return Err(Error::Checkpoint {
                    path: path.to_owned(),
                    tensor: name.clone(),
                });
            };
            param.copy_(weight);
            average.copy_(weight);
        }
        Ok(lacking)
    }

    /// Writes everything that resuming needs.
    ///
    /// # Errors
    /// What writing reports.
    pub fn save(&self, path: &Path) -> Result<()> {
        let step = Tensor::from(self.step as i64);
        let mut all: Vec<(String, &Tensor)> = vec![("step".to_owned(), &step)];
        for (part, tensors) in self.parts() {
            all.extend(
                self.names
                    .iter()
                    .zip(tensors)
                    .map(|(n, t)| (format!("{part}/{n}"), t)),
            );
        }
        Ok(weights::save(
            path,
            all.iter().map(|(n, t)| (n.as_str(), *t)),
        )?)
    }

    /// Reads what [`TrainState::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a tensor is missing or of another shape.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let file = weights::read_all(path)?;
        let damaged = |name: &str| Error::Checkpoint {
            path: path.to_owned(),
            tensor: name.to_owned(),
        };
        self.step = file
            .get("step")
            .ok_or_else(|| damaged("step"))?
            .int64_value(&[]) as u64;
        let names = self.names.clone();
        for (part, tensors) in self.parts_mut() {
            for (name, tensor) in names.iter().zip(tensors) {
                let name = format!("{part}/{name}");
                let saved = file
                    .get(&name)
                    .filter(|s| s.size() == tensor.size())
                    .ok_or_else(|| damaged(&name))?;
                tensor.copy_(&saved.to_device(Device::Cpu));
            }
        }
        Ok(())
    }

    fn parts(&self) -> [(&'static str, &Vec<Tensor>); 5] {
        [
            ("params", &self.params),
            ("average", &self.average),
            ("exp_avg", &self.exp_avgs),
            ("exp_avg_sq", &self.exp_avg_sqs),
            ("steps", &self.steps),
        ]
    }

    fn parts_mut(&mut self) -> [(&'static str, &mut Vec<Tensor>); 5] {
        [
            ("params", &mut self.params),
            ("average", &mut self.average),
            ("exp_avg", &mut self.exp_avgs),
            ("exp_avg_sq", &mut self.exp_avg_sqs),
            ("steps", &mut self.steps),
        ]
    }
}

/// Constant, then a cosine down to a hundredth over the last `decay` of all steps.
pub fn learning_rate(peak: f64, step: u64, total: u64, warmup: u64, decay: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let start = total as f64 * (1.0 - decay);
    let done = ((step as f64 - start) / (total as f64 - start).max(1.0)).clamp(0.0, 1.0);
    let floor = 0.01;
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}
