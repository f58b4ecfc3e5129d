//! What a sampler is: a walk from noise to x₀ whose every step is a Gaussian.

use tch::{Kind, Tensor};

use crate::gaussian::per_sample;
use crate::{Error, Gaussian, Result};

/// A denoising process whose every step is a Gaussian. It has no mutable state.
///
/// Coefficients are the sampler's own: what is public is what the denoising loop and the algorithms need. Steps are
/// counted from the noisiest, step 0. An author writes [`n_steps`](Self::n_steps), [`timestep`](Self::timestep),
/// [`is_stochastic`](Self::is_stochastic) and [`transition`](Self::transition); the rest has defaults. What all of them
/// promise, `dev::sampler_conforms` (feature `dev`) checks.
pub trait Sampler: Send + Sync {
    /// How many denoising steps.
    fn n_steps(&self) -> usize;

    /// The model time of a step, as the network is told it: a training timestep of a diffusion model, which some
    /// samplers interpolate, or a time in [0, 1] of a flow model. `step` is below [`n_steps`](Self::n_steps).
    fn timestep(&self, step: usize) -> f64;

    /// Whether a step adds noise. One that adds none has no log-probability.
    fn is_stochastic(&self, step: usize) -> bool;

    /// The distribution of the next latent of each sample.
    ///
    /// Samples may be at different steps: sample i is at step `at[i]`. Differentiable in `model_output`.
    /// [`Gaussian::affine`] makes it of coefficients.
    ///
    /// # Shapes
    /// - `x_t`, `model_output`: `[batch, …]`, computed in f32
    /// - `at`: batch
    ///
    /// # Errors
    /// [`Error::Shape`], or [`Error::Range`] for a step that is not there.
    fn transition(&self, at: &[usize], x_t: &Tensor, model_output: &Tensor) -> Result<Gaussian>;

    /// What standard normal noise is multiplied by to be the initial latent (diffusers' `init_noise_sigma`).
    fn init_noise_scale(&self) -> f64 {
        1.0
    }

    /// What a latent is multiplied by before the network sees it (diffusers' `scale_model_input`).
    fn input_scale(&self, step: usize) -> f64 {
        let _ = step;
        1.0
    }

    /// How a step is taken back: `x_t = a x_prev + b z` with fresh noise z has the distribution of the latents before
    /// the step. Self-recurrence of universal guidance needs it; none if this sampler cannot.
    fn renoise(&self, step: usize) -> Option<(f64, f64)> {
        let _ = step;
        None
    }

    /// The latents of samples at these steps as the network is to see them.
    ///
    /// # Shapes
    /// - `x_t`, returns: `[batch, …]`; the same tensor where nothing is scaled
    fn scale_model_input(&self, at: &[usize], x_t: &Tensor) -> Tensor {
        let scales: Vec<f64> = at.iter().map(|&step| self.input_scale(step)).collect();
        match scales.iter().all(|&scale| scale == 1.0) {
            true => x_t.shallow_clone(),
            false => x_t * per_sample(&scales, x_t),
        }
    }

    /// The model times of samples at these steps, f32 `[batch]`, on the host.
    ///
    /// # Errors
    /// [`Error::Range`] for a step that is not there.
    fn timesteps(&self, at: &[usize]) -> Result<Tensor> {
        check_steps(at, self.n_steps())?;
        let times: Vec<f64> = at.iter().map(|&step| self.timestep(step)).collect();
        Ok(Tensor::from_slice(&times).to_kind(Kind::Float))
    }

    /// Refuses a process with a step that adds no noise: such a step has no log-probability.
    ///
    /// # Errors
    /// [`Error::Deterministic`] with the step.
    fn require_stochastic(&self) -> Result<()> {
        match (0..self.n_steps()).find(|&step| !self.is_stochastic(step)) {
            None => Ok(()),
            Some(step) => Err(Error::Deterministic {
                step,
                timestep: self.timestep(step),
            }),
        }
    }
}

/// Refuses steps that a sampler of `n_steps` does not have.
///
/// # Errors
/// [`Error::Range`].
pub fn check_steps(at: &[usize], n_steps: usize) -> Result<()> {
    match at.iter().find(|&&step| step >= n_steps) {
        None => Ok(()),
        Some(&step) => Err(Error::Range {
            name: "step",
            index: step as u64,
            len: n_steps as u64,
        }),
    }
}
