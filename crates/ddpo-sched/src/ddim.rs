//! DDIM with η (Song et al. 2021, formulas 12 and 16) as a table of coefficients.

use crate::{Error, NoiseSchedule, Result, ScheduleConfig};

/// What one denoising step does to a latent, in f64.
///
/// Symbols: ᾱ is [`sqrt_abar`](Self::sqrt_abar) squared, σ is [`std`](Self::std).
///
/// ```text
/// x̂₀     = (xₜ − √(1−ᾱ) ε) / √ᾱ
/// mean   = √ᾱ_prev x̂₀ + dir ε          dir² + σ² = 1 − ᾱ_prev
/// x_prev ~ N(mean, σ² I)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCoeffs {
    /// Training timestep that the network is asked about.
    pub timestep: usize,
    /// √ᾱ at this timestep.
    pub sqrt_abar: f64,
    /// √(1 − ᾱ) at this timestep.
    pub sqrt_one_minus_abar: f64,
    /// √ᾱ at the timestep that the step leads to.
    pub sqrt_abar_prev: f64,
    /// Weight of ε in the mean, the "direction pointing to xₜ".
    pub dir: f64,
    /// Standard deviation σ of the step: η times that of the DDPM posterior.
    pub std: f64,
}

impl StepCoeffs {
    /// The mean as a weighted sum: `mean = a xₜ + b ε`.
    pub fn mean_weights(&self) -> (f64, f64) {
        let a = self.sqrt_abar_prev / self.sqrt_abar;
        (a, self.dir - a * self.sqrt_one_minus_abar)
    }
}

/// The DDIM sampler: which timesteps are visited, and the Gaussian of each step.
///
/// It has no state: the same step asked twice is the same distribution. With feature `tch` it is a
/// `Sampler`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddim {
    steps: Vec<StepCoeffs>,
}

impl Ddim {
    /// `n_steps` denoising steps with noise scale `eta`: 0 is deterministic, 1 has the variance of DDPM.
    ///
    /// Timesteps as diffusers 0.42.1, `DDIMScheduler.set_timesteps`, spacing `leading`:
    /// `i · (num_train_timesteps / n_steps) + steps_offset` for i from `n_steps − 1` down to 0. The last
    /// step leads to ᾱ of timestep 0, or to 1 if `set_alpha_to_one`.
    ///
    /// # Errors
    /// [`Error::Config`] if a number is out of range, with the arithmetic.
    pub fn new(config: &ScheduleConfig, n_steps: usize, eta: f64) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        let n_train = schedule.len();
        if n_steps == 0 || n_steps > n_train {
            return Err(Error::config(
                "n_steps",
                n_steps,
                format!("must be between 1 and num_train_timesteps = {n_train}"),
            ));
        }
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::config("eta", eta, "must be between 0 and 1"));
        }
        let stride = n_train / n_steps;
        let first = (n_steps - 1) * stride + config.steps_offset;
        if first >= n_train {
            return Err(Error::config(
                "steps_offset",
                config.steps_offset,
                format!(
                    "the first timestep ({n_steps} - 1) * {stride} + {} = {first} must be below {n_train}",
                    config.steps_offset
                ),
            ));
        }
        let abar = schedule.abar();
        let last = if config.set_alpha_to_one {
            1.0
        } else {
            abar[0]
        };
        let steps = (0..n_steps)
            .rev()
            .map(|i| {
                let t = i * stride + config.steps_offset;
                let abar_prev = t.checked_sub(stride).map_or(last, |prev| abar[prev]);
                coefficients(t, abar[t], abar_prev, eta)
            })
            .collect();
        Ok(Self { steps })
    }

    /// All steps, noisiest first.
    pub fn steps(&self) -> &[StepCoeffs] {
        &self.steps
    }
}

fn coefficients(timestep: usize, abar: f64, abar_prev: f64, eta: f64) -> StepCoeffs {
    let variance = (1.0 - abar_prev) / (1.0 - abar) * (1.0 - abar / abar_prev);
    let std = eta * variance.max(0.0).sqrt();
    StepCoeffs {
        timestep,
        sqrt_abar: abar.sqrt(),
        sqrt_one_minus_abar: (1.0 - abar).sqrt(),
        sqrt_abar_prev: abar_prev.sqrt(),
        dir: (1.0 - abar_prev - std * std).max(0.0).sqrt(),
        std,
    }
}
