//! The forward process as tensors: noise added to clean latents, and what a network's output says of them.

use tch::Tensor;

use crate::gaussian::per_sample;
use crate::spacing::check_signal;
use crate::{Error, NoiseSchedule, Prediction, Result, check_shape};

impl NoiseSchedule {
    /// Noisy latents: `√ᾱ x₀ + √(1 − ᾱ) ε` (Ho et al. 2020, formula 4; diffusers' `add_noise`).
    ///
    /// # Shapes
    /// - `x_0`, `noise`, returns: f32 `[batch, …]`
    /// - `timesteps`: batch
    ///
    /// # Errors
    /// [`Error::Range`] for a timestep that the schedule does not have, [`Error::Shape`].
    pub fn q_sample(&self, x_0: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Result<Tensor> {
        let levels = self.levels(x_0, timesteps)?;
        check_shape(noise, "noise", &x_0.size())?;
        Ok(x_0 * levels.signal + noise * levels.noise)
    }

    /// The velocity `√ᾱ ε − √(1 − ᾱ) x₀` (Salimans and Ho 2022; diffusers' `get_velocity`).
    ///
    /// # Shapes
    /// As [`q_sample`](Self::q_sample).
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    pub fn velocity(&self, x_0: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Result<Tensor> {
        let levels = self.levels(x_0, timesteps)?;
        check_shape(noise, "noise", &x_0.size())?;
        Ok(noise * levels.signal - x_0 * levels.noise)
    }

    /// What a network of this schedule's [`prediction`](Self::prediction) is trained to say of noisy latents: the
    /// noise, the velocity, or x₀.
    ///
    /// # Shapes
    /// As [`q_sample`](Self::q_sample).
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    pub fn target(&self, x_0: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Result<Tensor> {
        match self.prediction() {
            Prediction::Epsilon => Ok(noise.shallow_clone()),
            Prediction::VPrediction => self.velocity(x_0, noise, timesteps),
            Prediction::Sample => Ok(x_0.shallow_clone()),
        }
    }

    /// The clean latents that a network's output implies. Differentiable in both tensors.
    ///
    /// `(x_t − √(1−ᾱ) ε) / √ᾱ`, `√ᾱ x_t − √(1−ᾱ) v`, or the output itself (diffusers' `scheduling_ddim.py`, `step`,
    /// number 3).
    ///
    /// # Shapes
    /// - `x_t`, `model_output`, returns: f32 `[batch, …]`
    /// - `timesteps`: batch
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample); [`Error::Config`] where ε is predicted at a timestep without signal.
    pub fn predict_x0(
        &self,
        x_t: &Tensor,
        model_output: &Tensor,
        timesteps: &[usize],
    ) -> Result<Tensor> {
        let levels = self.levels(x_t, timesteps)?;
        check_shape(model_output, "model output", &x_t.size())?;
        Ok(match self.prediction() {
            Prediction::Epsilon => {
                let abar = |&t: &usize| check_signal(Prediction::Epsilon, t as f64, self.abar()[t]);
                timesteps.iter().try_for_each(abar)?;
                (x_t - model_output * levels.noise) / levels.signal
            }
            Prediction::VPrediction => x_t * levels.signal - model_output * levels.noise,
            Prediction::Sample => model_output.shallow_clone(),
        })
    }

    /// √(1 − ᾱ) of each sample, broadcast over the other dimensions of `like`.
    pub(crate) fn noise_levels(&self, like: &Tensor, timesteps: &[usize]) -> Result<Tensor> {
        Ok(self.levels(like, timesteps)?.noise)
    }

    fn levels(&self, like: &Tensor, timesteps: &[usize]) -> Result<Levels> {
        let mut shape = like.size();
        if let Some(batch) = shape.first_mut() {
            *batch = timesteps.len() as i64;
        }
        check_shape(like, "latents", &shape)?;
        let abar = timesteps.iter().map(|&timestep| {
            let abar = self.abar().get(timestep).copied();
            abar.ok_or(Error::Range {
                name: "timestep",
                index: timestep as u64,
                len: self.len() as u64,
            })
        });
        let abar = abar.collect::<Result<Vec<f64>>>()?;
        let signal: Vec<f64> = abar.iter().map(|abar| abar.sqrt()).collect();
        let noise: Vec<f64> = abar.iter().map(|abar| (1.0 - abar).sqrt()).collect();
        Ok(Levels {
            signal: per_sample(&signal, like),
            noise: per_sample(&noise, like),
        })
    }
}

/// √ᾱ and √(1 − ᾱ) of each sample of a batch, f32, broadcast over its other dimensions.
struct Levels {
    signal: Tensor,
    noise: Tensor,
}
