//! DDIM with η (Song et al. 2021, formulas 12 and 16) as a table of coefficients.

use crate::{Error, NoiseSchedule, Prediction, Result, ScheduleConfig, spacing};

/// What one denoising step does to a latent, in f64.
///
/// ```text
/// x̂₀     = (xₜ − √(1−ᾱ) ε) / √ᾱ
/// mean   = √ᾱ_prev x̂₀ + dir ε  =  a xₜ + b m          dir² + σ² = 1 − ᾱ_prev
/// x_prev ~ N(mean, σ² I)
/// ```
///
/// m is what the network predicts: ε, the velocity v or x₀.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    timestep: usize,
    abar: f64,
    abar_prev: f64,
    a: f64,
    b: f64,
    std: f64,
}

/// The DDIM sampler: which timesteps are visited, and the Gaussian of each step.
///
/// It has no state: the same step asked twice is the same distribution. With feature `tch` it is a
/// `Sampler`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddim {
    steps: Vec<Step>,
}

impl Ddim {
    /// `n_steps` denoising steps with noise scale `eta`: 0 is deterministic, 1 has the variance of DDPM.
    ///
    /// Timesteps and coefficients are those of diffusers 0.42.1, `scheduling_ddim.py`: `set_timesteps` as
    /// [`Spacing`](crate::Spacing) says, and `step`. A step at t leads to ᾱ of `t − num_train_timesteps / n_steps`
    /// (integer division), which with spacing `leading` is the timestep visited next, and with the others is near it.
    /// Below timestep 0 it leads to ᾱ of timestep 0, or to 1 if `set_alpha_to_one`.
    ///
    /// # Errors
    /// [`Error::Config`] if a number is out of range, with the arithmetic, or if the network predicts ε and the first
    /// timestep has no signal (`rescale_betas_zero_snr`).
    pub fn new(config: &ScheduleConfig, n_steps: usize, eta: f64) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        let times = spacing::times(config, n_steps)?;
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::config("eta", eta, "must be between 0 and 1"));
        }
        let (abar, prediction) = (schedule.abar(), schedule.prediction());
        let last = if config.set_alpha_to_one {
            1.0
        } else {
            abar[0]
        };
        let stride = schedule.len() / n_steps;
        let steps = times.iter().map(|time| {
            let t = time.round_ties_even() as usize;
            spacing::check_signal(prediction, *time, abar[t])?;
            let abar_prev = t.checked_sub(stride).map_or(last, |prev| abar[prev]);
            Ok(Step::new(t, abar[t], abar_prev, eta, prediction))
        });
        Ok(Self {
            steps: steps.collect::<Result<_>>()?,
        })
    }

    /// How many denoising steps.
    pub fn n_steps(&self) -> usize {
        self.steps.len()
    }

    /// The training timesteps that are visited, noisiest first.
    pub fn training_timesteps(&self) -> impl Iterator<Item = usize> + '_ {
        self.steps.iter().map(|step| step.timestep)
    }

    /// The mean of a step as a weighted sum of latent and model output: `mean = a xₜ + b m`.
    pub fn mean_weights(&self, step: usize) -> (f64, f64) {
        (self.steps[step].a, self.steps[step].b)
    }

    /// Standard deviation σ of a step: η times that of the DDPM posterior.
    pub fn std(&self, step: usize) -> f64 {
        self.steps[step].std
    }

    /// ᾱ before and after a step.
    pub fn abar(&self, step: usize) -> (f64, f64) {
        (self.steps[step].abar, self.steps[step].abar_prev)
    }
}

impl Step {
    fn new(timestep: usize, abar: f64, abar_prev: f64, eta: f64, prediction: Prediction) -> Self {
        let variance = (1.0 - abar_prev) / (1.0 - abar) * (1.0 - abar / abar_prev);
        let std = eta * variance.max(0.0).sqrt();
        let dir = (1.0 - abar_prev - std * std).max(0.0).sqrt();
        let (signal, noise, signal_prev) = (abar.sqrt(), (1.0 - abar).sqrt(), abar_prev.sqrt());
        let (a, b) = match prediction {
            Prediction::Epsilon => {
                let a = signal_prev / signal;
                (a, dir - a * noise)
            }
            // x₀ = √ᾱ xₜ − √(1−ᾱ) v and ε = √ᾱ v + √(1−ᾱ) xₜ.
            Prediction::VPrediction => (
                signal_prev * signal + dir * noise,
                dir * signal - signal_prev * noise,
            ),
            // ε = (xₜ − √ᾱ x₀) / √(1−ᾱ).
            Prediction::Sample => (dir / noise, signal_prev - dir * signal / noise),
        };
        Self {
            timestep,
            abar,
            abar_prev,
            a,
            b,
            std,
        }
    }
}

#[cfg(feature = "tch")]
mod tensors {
    use tch::Tensor;

    use super::Ddim;
    use crate::{Gaussian, Result, Sampler, check_steps};

    impl Sampler for Ddim {
        fn n_steps(&self) -> usize {
            self.steps.len()
        }

        fn timestep(&self, step: usize) -> f64 {
            self.steps[step].timestep as f64
        }

        fn is_stochastic(&self, step: usize) -> bool {
            self.steps[step].std > 0.0
        }

        fn transition(
            &self,
            at: &[usize],
            x_t: &Tensor,
            model_output: &Tensor,
        ) -> Result<Gaussian> {
            check_steps(at, self.steps.len())?;
            let (a, b): (Vec<f64>, Vec<f64>) =
                at.iter().map(|&step| self.mean_weights(step)).unzip();
            let std = at.iter().map(|&step| self.std(step)).collect();
            Gaussian::affine(x_t, &a, model_output, &b, std)
        }

        /// `x_t = √(ᾱ / ᾱ_prev) x_prev + √(1 − ᾱ / ᾱ_prev) z`.
        fn renoise(&self, step: usize) -> Option<(f64, f64)> {
            let (abar, abar_prev) = self.abar(step);
            let kept = abar.sqrt() / abar_prev.sqrt();
            Some((kept, (1.0 - kept * kept).max(0.0).sqrt()))
        }
    }
}
