//! The denoising loss of DDPM on a batch, each sample with its weight.

use ddpo_sched::{DenoiseInput, NoiseSchedule, check_shape};
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
    /// i64 `[batch]`.
    t: Tensor,
    /// `[batch, tokens, dim]`.
    cond: Tensor,
    eps: Tensor,
    /// f32 `[batch]`.
    weights: Tensor,
}

impl Noised {
    /// Adds noise `eps` to clean latents as training timesteps ask for (Ho et al. 2020, formula 4).
    ///
    /// # Shapes
    /// - `x_0`, `eps`: f32 `[batch, channels, height, width]`, any device
    /// - `timesteps`, `weights`: one per sample
    /// - `cond`: `[batch, tokens, dim]`, on the policy's device, where the rest is put as well
    ///
    /// # Errors
    /// [`ddpo_sched::Error::Range`] for a timestep that the schedule does not have, [`ddpo_sched::Error::Shape`].
    pub fn new(
        schedule: &NoiseSchedule,
        x_0: &Tensor,
        eps: &Tensor,
        timesteps: &[usize],
        cond: Tensor,
        weights: &[f32],
    ) -> Result<Self> {
        let (n, device) = (timesteps.len(), cond.device());
        let mut shape = x_0.size();
        check_shape(eps, "eps", &shape)?;
        shape[0] = n as i64;
        check_shape(x_0, "x_0", &shape)?;
        let mut of_cond = cond.size();
        of_cond[0] = n as i64;
        check_shape(&cond, "cond", &of_cond)?;
        let weights = Tensor::from_slice(weights).to_device(device);
        check_shape(&weights, "weights", &[n as i64])?;
        let (mut signal, mut noise) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for &timestep in timesteps {
            let abar = *schedule
                .abar()
                .get(timestep)
                .ok_or(ddpo_sched::Error::Range {
                    name: "timestep",
                    index: timestep as u64,
                    len: schedule.len() as u64,
                })?;
            signal.push(abar.sqrt() as f32);
            noise.push((1.0 - abar).sqrt() as f32);
        }
        let column = |values: &[f32]| {
            let mut ones = vec![1; shape.len()];
            ones[0] = n as i64;
            Tensor::from_slice(values)
                .view(ones.as_slice())
                .to_device(device)
        };
        let here = |t: &Tensor| t.to_device(device).to_kind(Kind::Float);
        let (x_0, eps) = (here(x_0), here(eps));
        let t: Vec<i64> = timesteps.iter().map(|&t| t as i64).collect();
        Ok(Self {
            x_t: x_0 * column(&signal) + &eps * column(&noise),
            t: Tensor::from_slice(&t).to_device(device),
            cond,
            eps,
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
            let losses = denoising_loss(eps_hat, &self.eps) * &self.weights;
            seen = Some(losses.detach());
            Ok(losses.sum(Kind::Float) / n_total as f64)
        })?;
        let seen = seen.ok_or_else(|| Error::model("the policy did not ask for its loss"))?;
        let seen = seen.to_device(Device::Cpu).to_kind(Kind::Double);
        Vec::<f64>::try_from(&seen).map_err(Error::model)
    }
}
