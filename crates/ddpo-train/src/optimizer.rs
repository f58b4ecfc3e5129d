//! AdamW whose state can be saved, with the global-norm clipping of `torch.nn.utils.clip_grad_norm_`.

use ddpo_torch::{AdamWConfig, foreach_mul_, fused_adamw, global_norm};
use tch::{Kind, Tensor};

use crate::{Error, ParamSet, Persist, Result, StateReader, StateWriter};

/// Turns accumulated gradients into a change of the parameters.
pub trait Optimizer: Persist {
    /// Clips the gradients of `params` to a global norm of `max_grad_norm`, takes one step and sets the
    /// gradients to zero.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the norm is not finite: parameters and state are then unchanged, and the
    /// gradients are zero. [`Error::NoGradient`].
    fn step(&mut self, params: &ParamSet, max_grad_norm: f64) -> Result<GradNorm>;

    /// Forgets every step that was taken, as if it were new.
    fn reset(&mut self);
}

/// What clipping did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradNorm {
    /// Global L2 norm before clipping.
    pub norm: f64,
    /// What the gradients were multiplied by: `max / (norm + 1e-6)`, at most 1.
    pub scale: f64,
}

/// Refuses numbers that no step can be taken with, by their key.
fn check(config: &AdamWConfig) -> Result<()> {
    let positive = [("lr", config.lr), ("eps", config.eps)];
    for (key, value) in positive {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::config(key, value, "must be positive"));
        }
    }
    for (key, value) in [("beta1", config.beta1), ("beta2", config.beta2)] {
        if !(0.0..1.0).contains(&value) {
            return Err(Error::config(key, value, "must be in [0, 1)"));
        }
    }
    if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
        let (key, value) = ("weight_decay", config.weight_decay);
        return Err(Error::config(key, value, "must not be negative"));
    }
    Ok(())
}

/// AdamW (Loshchilov and Hutter 2019) over libtorch's fused kernel.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    names: Vec<String>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl AdamW {
    /// Fresh state for `params`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(config: AdamWConfig, params: &ParamSet) -> Result<Self> {
        check(&config)?;
        let zeros = || {
            let tensors = params.tensors().iter();
            tensors.map(|p| p.detach().zeros_like()).collect()
        };
        let count = |p: &Tensor| Tensor::zeros([1], (Kind::Float, p.device()));
        Ok(Self {
            config,
            names: params.names().to_vec(),
            exp_avgs: zeros(),
            exp_avg_sqs: zeros(),
            steps: params.tensors().iter().map(count).collect(),
        })
    }

    /// The numbers it runs with.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Changes the learning rate, for schedules.
    pub fn set_lr(&mut self, lr: f64) {
        self.config.lr = lr;
    }

    /// How many steps were taken.
    pub fn n_steps(&self) -> u64 {
        self.steps
            .first()
            .map_or(0, |count| count.double_value(&[0]) as u64)
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, params: &ParamSet, max_grad_norm: f64) -> Result<GradNorm> {
        let grads = params.grads()?;
        let norm = global_norm(&grads)?;
        if !norm.is_finite() {
            params.zero_grad();
            return Err(Error::NonFinite {
                what: "gradient norm",
                detail: format!("{norm} after {} steps", self.n_steps()),
            });
        }
        let scale = (max_grad_norm / (norm + 1e-6)).min(1.0);
        if scale < 1.0 {
            foreach_mul_(&grads, scale)?;
        }
        fused_adamw(
            params.tensors(),
            &grads,
            &self.exp_avgs,
            &self.exp_avg_sqs,
            &self.steps,
            self.config,
        )?;
        params.zero_grad();
        Ok(GradNorm { norm, scale })
    }

    fn reset(&mut self) {
        let all = [&mut self.exp_avgs, &mut self.exp_avg_sqs, &mut self.steps];
        tch::no_grad(|| {
            for tensor in all.into_iter().flatten() {
                let _same = tensor.zero_();
            }
        });
    }
}

impl AdamW {
    fn entries(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let kinds = [
            ("exp_avg", &self.exp_avgs),
            ("exp_avg_sq", &self.exp_avg_sqs),
            ("step", &self.steps),
        ];
        kinds.into_iter().flat_map(|(kind, tensors)| {
            let named = self.names.iter().zip(tensors);
            named.map(move |(name, tensor)| (format!("{kind}.{name}"), tensor))
        })
    }
}

impl Persist for AdamW {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        for (name, tensor) in self.entries() {
            out.tensor(&name, tensor);
        }
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        let names: Vec<String> = self.entries().map(|(name, _)| name).collect();
        from.expect_tensors(names.iter().map(String::as_str))?;
        for (name, tensor) in self.entries() {
            from.copy_into(&name, tensor)?;
        }
        Ok(())
    }
}
