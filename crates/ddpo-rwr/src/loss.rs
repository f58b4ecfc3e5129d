//! The denoising loss of DDPM on a batch, each sample with its weight.

use ddpo_sched::{Conditioning, DenoiseInput, NoiseSchedule, check_shape};
use ddpo_train::{Error, Policy, Result};
use tch::{Device, Kind, Tensor};

/// `|ε − ε̂|²`, mean over the dimensions: the loss of each sample (paper, formula 2; jannerm/ddpo
/// `training/diffusion.py`, `compute_loss`).
///
/// # Shapes
/// - `eps_hat`, `eps`: `[batch, …]`; returns `[batch]`, f32
pub fn denoising_loss(eps_hat: &Tensor, eps: &Tensor) -> Tensor {
    let error = eps_hat.to_kind(Kind::Float) - eps;
    error
        .square()
        .flatten(1, -1)
        .mean_dim(1, false, Kind::Float)
}

/// Samples with noise added, and what a policy is to say of them.
#[derive(Debug)]
pub struct Noised {
    /// √ᾱ x₀ + √(1 − ᾱ) ε, f32 `[batch, channels, height, width]`.
    x_t: Tensor,
    /// f32 `[batch]`.
    t: Tensor,
    cond: Conditioning,
    /// ε, or what else the schedule's network predicts.
    target: Tensor,
    /// f32 `[batch]`.
    weights: Tensor,
}

impl Noised {
    /// Adds noise `eps` to clean latents as training timesteps ask for (Ho et al. 2020, formula 4).
    ///
    /// # Shapes
    /// - `x_0`, `eps`: f32 `[batch, channels, height, width]`, any device
    /// - `timesteps`, `weights`: one per sample
    /// - `cond`: on the policy's device, where the rest is put as well
    ///
    /// # Errors
    /// [`ddpo_sched::Error::Range`] for a timestep that the schedule does not have, [`ddpo_sched::Error::Shape`].
    pub fn new(
        schedule: &NoiseSchedule,
        x_0: &Tensor,
        eps: &Tensor,
        timesteps: &[usize],
        cond: Conditioning,
        weights: &[f32],
    ) -> Result<Self> {
        let (n, device) = (timesteps.len(), cond.device());
        cond.check(n)?;
        let weights = Tensor::from_slice(weights).to_device(device);
        check_shape(&weights, "weights", &[n as i64])?;
        let here = |t: &Tensor| t.to_device(device).to_kind(Kind::Float);
        let (x_0, eps) = (here(x_0), here(eps));
        let t: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        Ok(Self {
            x_t: schedule.q_sample(&x_0, &eps, timesteps)?,
            t: Tensor::from_slice(&t).to_device(device),
            cond,
            target: schedule.target(&x_0, &eps, timesteps)?,
            weights,
        })
    }

    /// Adds the gradient of `Σ wᵢ |εᵢ − ε̂ᵢ|² / n_total` to that of each parameter. Returns `wᵢ |εᵢ − ε̂ᵢ|²`,
    /// one per sample.
    ///
    /// # Errors
    /// What the policy reports.
    pub fn accumulate(&self, policy: &dyn Policy, n_total: usize) -> Result<Vec<f64>> {
        let input = DenoiseInput {
            x_t: &self.x_t,
            t: &self.t,
            cond: &self.cond,
        };
        let mut seen = None;
        policy.accumulate(input, &mut |eps_hat| {
            let losses = denoising_loss(eps_hat, &self.target) * &self.weights;
            seen = Some(losses.detach());
            Ok(losses.sum(Kind::Float) / n_total as f64)
        })?;
        let seen = seen.ok_or_else(|| Error::model("the policy did not ask for its loss"))?;
        let seen = seen.to_device(Device::Cpu).to_kind(Kind::Double);
        Vec::<f64>::try_from(&seen).map_err(Error::model)
    }
}
