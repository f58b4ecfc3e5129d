//! Our AdamW and tch's over copies of the same parameters, so that one run times both.

use ddpo_train::{AdamW, AdamWConfig, Optimizer, ParamSet};
use tch::nn::{self, OptimizerConfig};
use tch::{Device, Kind, Tensor};

use crate::Result;

/// The paper's global norm of gradients (table D.5).
const MAX_GRAD_NORM: f64 = 1.0;

/// Two optimisers with the same hyperparameters over equal parameters; both clip, update and zero the gradients.
pub struct Optimizers {
    ours: (ParamSet, AdamW),
    /// The parameters in the order of the names, and tch's optimiser over them.
    peer: (Vec<Tensor>, nn::Optimizer),
    /// The gradient of each parameter.
    grads: Vec<Tensor>,
    /// Owns the peer's parameters.
    _store: nn::VarStore,
}

impl Optimizers {
    /// Both over copies of `params`.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn new(params: &ParamSet) -> Result<Self> {
        let config = AdamWConfig::default();
        let copy = |(name, tensor): (&str, &Tensor)| (name.to_owned(), tensor.detach().copy());
        let copies = ParamSet::new(params.iter().map(copy).collect())?;
        copies.thaw();
        let store = nn::VarStore::new(Device::Cpu);
        // Names in a tch store have no dots.
        let mut held = |(name, tensor): (&str, &Tensor)| {
            let name = name.replace('.', "_");
            store.root().var_copy(&name, tensor)
        };
        let theirs = params.iter().map(&mut held).collect();
        let adamw = nn::adamw(config.beta1, config.beta2, config.weight_decay);
        let peer = adamw.eps(config.eps).build(&store, config.lr)?;
        tch::manual_seed(0);
        // A norm near 30: both have to clip.
        let grad = |p: &Tensor| p.detach().randn_like() * 0.015;
        Ok(Self {
            grads: params.tensors().iter().map(grad).collect(),
            ours: (copies, AdamW::new(config, params)?),
            peer: (theirs, peer),
            _store: store,
        })
    }

    /// Sets the gradients of all parameters of both.
    pub fn refill(&mut self) {
        self.ours.0.zero_grad();
        self.peer.1.zero_grad();
        for params in [self.ours.0.tensors(), &self.peer.0] {
            for (param, grad) in params.iter().zip(&self.grads) {
                (param * grad).sum(Kind::Float).backward();
            }
        }
    }

    /// Clips, updates and zeroes the gradients: one fused kernel over all parameters.
    ///
    /// # Errors
    /// None after [`refill`](Self::refill).
    pub fn step_ours(&mut self) -> Result<()> {
        let (params, adamw) = &mut self.ours;
        adamw.step(params, MAX_GRAD_NORM)?;
        Ok(())
    }

    /// The same by tch: a handful of kernels per parameter.
    pub fn step_peer(&mut self) {
        let adamw = &mut self.peer.1;
        adamw.clip_grad_norm(MAX_GRAD_NORM);
        adamw.step();
        adamw.zero_grad();
    }

    /// Largest difference between our weights and the peer's.
    pub fn difference(&self) -> f64 {
        let pairs = self.ours.0.tensors().iter().zip(&self.peer.0);
        let apart =
            |(ours, theirs): (&Tensor, &Tensor)| (ours - theirs).abs().max().double_value(&[]);
        tch::no_grad(|| pairs.map(apart).fold(0.0, f64::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_optimisers_do_the_same_work() {
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) + 3.0;
        tch::manual_seed(1);
        let params = vec![
            ("a.weight".to_owned(), tensor(&[64, 32])),
            ("b.bias".to_owned(), tensor(&[7])),
        ];
        let mut both = Optimizers::new(&ParamSet::new(params).unwrap()).unwrap();
        assert_eq!(both.difference(), 0.0);
        for _ in 0..3 {
            both.refill();
            both.step_ours().unwrap();
            both.step_peer();
        }
        let difference = both.difference();
        // Weights near 3 in f32, three steps of 1e-5: two units in the last place.
        assert!(difference <= 5e-7, "difference {difference}");
    }
}
