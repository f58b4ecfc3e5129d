//! How much signal is left at each training timestep: f64 tables, computed once.
//!
//! diffusers keeps these tables in f32. Near timestep 0, where 1 − ᾱ is below 1e-3, that costs four of
//! seven digits of the step's standard deviation; here everything up to the tensors is f64.

use crate::{Error, Result};

/// A noise schedule as diffusers' `scheduler_config.json` states it.
///
/// With feature `serde` it is read from that file, whatever scheduler class wrote it: keys that only other
/// samplers use (`skip_prk_steps` of SD v1.4's PNDM file) are ignored, a missing key takes the default of
/// diffusers' `DDIMScheduler`, except for `clip_sample`, which Stable Diffusion's pipeline switches off.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct ScheduleConfig {
    /// Timesteps of the training process.
    pub num_train_timesteps: usize,
    /// β at timestep 0.
    pub beta_start: f64,
    /// β at the last timestep.
    pub beta_end: f64,
    /// How β goes from one to the other.
    pub beta_schedule: BetaSchedule,
    /// Whether ᾱ beyond the last denoising step is 1, rather than that of timestep 0.
    pub set_alpha_to_one: bool,
    /// Added to every timestep that is visited.
    pub steps_offset: usize,
    /// What the network predicts.
    pub prediction_type: Prediction,
    /// Which timesteps are visited.
    pub timestep_spacing: Spacing,
    /// Whether x₀ is clipped to [−1, 1]; refused, because the step would not be Gaussian in ε.
    pub clip_sample: bool,
    /// Dynamic thresholding of x₀; refused like `clip_sample`.
    pub thresholding: bool,
    /// Zero terminal signal-to-noise ratio; refused.
    pub rescale_betas_zero_snr: bool,
}

impl Default for ScheduleConfig {
    /// diffusers 0.42.1, `DDIMScheduler.__init__`, but no clipping.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: Prediction::Epsilon,
            timestep_spacing: Spacing::Leading,
            clip_sample: false,
            thresholding: false,
            rescale_betas_zero_snr: false,
        }
    }
}

impl ScheduleConfig {
    /// Stable Diffusion v1.4 (`scheduler/scheduler_config.json` of CompVis/stable-diffusion-v1-4).
    pub fn sd_v1_4() -> Self {
        Self {
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            set_alpha_to_one: false,
            steps_offset: 1,
            ..Self::default()
        }
    }
}

/// How β goes from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum BetaSchedule {
    /// β grows linearly (DDPM).
    Linear,
    /// √β grows linearly (latent diffusion).
    ScaledLinear,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// The velocity `√ᾱ ε − √(1−ᾱ) x₀` (Salimans and Ho 2022).
    VPrediction,
    /// The clean latent x₀.
    Sample,
}

/// Which training timesteps are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Spacing {
    /// Multiples of `num_train_timesteps / n_steps` (integer division), plus `steps_offset`.
    Leading,
}

/// β and ᾱ at every training timestep.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f64>,
    abar: Vec<f64>,
    prediction: Prediction,
}

impl NoiseSchedule {
    /// Computes the tables.
    ///
    /// # Errors
    /// [`Error::Config`] where a key has a value that this crate cannot honour; it names the key.
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        check(config)?;
        let betas = betas(config);
        let abar = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        Ok(Self {
            betas,
            abar,
            prediction: config.prediction_type,
        })
    }

    /// βₜ for every training timestep.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱₜ = ∏ (1 − β) up to and with t, for every training timestep: strictly decreasing, in (0, 1).
    pub fn abar(&self) -> &[f64] {
        &self.abar
    }

    /// What the network of this schedule predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Timesteps of the training process.
    pub fn len(&self) -> usize {
        self.abar.len()
    }

    /// Never: a schedule has at least one timestep.
    pub fn is_empty(&self) -> bool {
        self.abar.is_empty()
    }
}

fn betas(config: &ScheduleConfig) -> Vec<f64> {
    let n = config.num_train_timesteps;
    let between =
        |from: f64, to: f64, t: usize| from + (to - from) * t as f64 / (n.max(2) - 1) as f64;
    (0..n)
        .map(|t| match config.beta_schedule {
            BetaSchedule::Linear => between(config.beta_start, config.beta_end, t),
            BetaSchedule::ScaledLinear => {
                between(config.beta_start.sqrt(), config.beta_end.sqrt(), t).powi(2)
            }
        })
        .collect()
}

fn check(config: &ScheduleConfig) -> Result<()> {
    if config.num_train_timesteps == 0 {
        return Err(Error::config(
            "num_train_timesteps",
            0,
            "must be at least 1",
        ));
    }
    for (key, beta) in [
        ("beta_start", config.beta_start),
        ("beta_end", config.beta_end),
    ] {
        if !(beta > 0.0 && beta < 1.0) {
            return Err(Error::config(
                key,
                beta,
                "must lie strictly between 0 and 1",
            ));
        }
    }
    for (key, on) in [
        ("clip_sample", config.clip_sample),
        ("thresholding", config.thresholding),
        ("rescale_betas_zero_snr", config.rescale_betas_zero_snr),
    ] {
        if on {
            return Err(Error::config(key, on, "is not supported, must be false"));
        }
    }
    Ok(())
}
