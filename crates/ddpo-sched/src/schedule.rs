//! How much signal is left at each training timestep: f64 tables, computed once.
//!
//! diffusers keeps these tables in f32. Near timestep 0, where 1 − ᾱ is below 1e-3, that costs four of
//! seven digits of the step's standard deviation; here everything up to the tensors is f64.

use crate::{Error, Result};

/// A noise schedule as diffusers' `scheduler_config.json` states it.
///
/// With feature `serde` it is read from that file, whatever scheduler class wrote it: keys that only other
/// samplers use (`skip_prk_steps` of SD v1.4's PNDM file) are ignored, a missing key takes the default of
/// diffusers' `DDIMScheduler`, except for `clip_sample`, which Stable Diffusion's pipeline switches off. (A file of
/// their `EulerAncestralDiscreteScheduler` without `timestep_spacing` means `linspace`: that class has another
/// default.)
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
    /// β at every timestep, in the place of `beta_schedule`; `num_train_timesteps` of them.
    pub trained_betas: Option<Vec<f64>>,
    /// Whether ᾱ beyond the last denoising step is 1, rather than that of timestep 0.
    pub set_alpha_to_one: bool,
    /// Added to every timestep that is visited, with spacing `leading`; the others ignore it, as diffusers does.
    pub steps_offset: usize,
    /// What the network predicts.
    pub prediction_type: Prediction,
    /// Which timesteps are visited.
    pub timestep_spacing: Spacing,
    /// Whether x₀ is clipped to [−1, 1]; refused, because the step would not be Gaussian in ε.
    pub clip_sample: bool,
    /// Dynamic thresholding of x₀; refused like `clip_sample`.
    pub thresholding: bool,
    /// Whether the betas are rescaled so that ᾱ of the last timestep is 0: zero terminal signal-to-noise ratio (Lin et
    /// al. 2023, algorithm 1; `rescale_zero_terminal_snr` of diffusers' `scheduling_ddim.py`).
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
            trained_betas: None,
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
    /// `β = min(1 − f((t+1)/T) / f(t/T), 0.999)` with `f(u) = cos²((u + 0.008) / 1.008 · π/2)` (Nichol and Dhariwal
    /// 2021, formula 17; `betas_for_alpha_bar` of diffusers' `scheduling_ddim.py`). `beta_start` and `beta_end` play
    /// no part.
    #[cfg_attr(feature = "serde", serde(rename = "squaredcos_cap_v2"))]
    SquaredcosCapV2,
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

/// Which training timesteps are visited: table 2 of Lin et al. 2023, as `set_timesteps` of diffusers 0.42.1 reads it
/// in `scheduling_ddim.py` and `scheduling_euler_ancestral_discrete.py`. T is `num_train_timesteps`, n the number of
/// steps; what is rounded goes to the even neighbour from halfway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Spacing {
    /// Multiples of T / n (integer division), plus `steps_offset`.
    Leading,
    /// n equal distances from T − 1 to 0, both visited. DDIM rounds them, Euler ancestral does not.
    Linspace,
    /// T, T − T/n, … rounded, less one: T − 1 is visited, 0 is not.
    ///
    /// For n steps that T/n is rounded badly for (61, 103, 121, …, 62 numbers up to 1,000) diffusers' `np.arange` makes
    /// n + 1 timesteps, the last of them −1; here it is the first n.
    Trailing,
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
        let mut betas = betas(config);
        if config.rescale_betas_zero_snr {
            betas = with_zero_terminal_snr(&betas);
        }
        let abar = cumulative(&betas);
        if let Some(t) = abar.windows(2).position(|w| w[1] >= w[0]) {
            let expected = format!(
                "must leave signal to fall: ᾱ is {} from timestep {t}",
                abar[t]
            );
            return Err(Error::config("num_train_timesteps", abar.len(), expected));
        }
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

    /// ᾱₜ = ∏ (1 − β) up to and with t, for every training timestep: strictly decreasing, in (0, 1), except that the
    /// last is 0 with `rescale_betas_zero_snr`.
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
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let n = config.num_train_timesteps;
    let between =
        |from: f64, to: f64, t: usize| from + (to - from) * t as f64 / (n.max(2) - 1) as f64;
    (0..n)
        .map(|t| match config.beta_schedule {
            BetaSchedule::Linear => between(config.beta_start, config.beta_end, t),
            BetaSchedule::ScaledLinear => {
                between(config.beta_start.sqrt(), config.beta_end.sqrt(), t).powi(2)
            }
            BetaSchedule::SquaredcosCapV2 => {
                // In f64: with integers, all shares of T but the last would be 0.
                let kept = |t: usize| {
                    let share = t as f64 / n as f64;
                    let angle = (share + 0.008) / 1.008 * std::f64::consts::PI / 2.0;
                    angle.cos().powi(2)
                };
                (1.0 - kept(t + 1) / kept(t)).min(0.999)
            }
        })
        .collect()
}

fn cumulative(betas: &[f64]) -> Vec<f64> {
    let products = betas.iter().scan(1.0, |product, beta| {
        *product *= 1.0 - beta;
        Some(*product)
    });
    products.collect()
}

/// Shifts √ᾱ so that its last value is 0, and scales it so that its first stays.
fn with_zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let roots: Vec<f64> = cumulative(betas).iter().map(|abar| abar.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let abar: Vec<f64> = roots.iter().map(|r| ((r - last) * scale).powi(2)).collect();
    let before = std::iter::once(&1.0).chain(&abar);
    abar.iter().zip(before).map(|(a, b)| 1.0 - a / b).collect()
}

fn check(config: &ScheduleConfig) -> Result<()> {
    let n = config.num_train_timesteps;
    if n == 0 {
        return Err(Error::config(
            "num_train_timesteps",
            n,
            "must be at least 1",
        ));
    }
    let range = |key, beta: f64| {
        if beta > 0.0 && beta < 1.0 {
            return Ok(());
        }
        let expected = "must lie strictly between 0 and 1";
        Err(Error::config(key, beta, expected))
    };
    match (&config.trained_betas, config.beta_schedule) {
        (Some(betas), _) => {
            if betas.len() != n {
                let expected = format!("must be as many as num_train_timesteps = {n}");
                return Err(Error::config("trained_betas", betas.len(), expected));
            }
            betas.iter().try_for_each(|&b| range("trained_betas", b))?;
        }
        (None, BetaSchedule::Linear | BetaSchedule::ScaledLinear) => {
            range("beta_start", config.beta_start)?;
            range("beta_end", config.beta_end)?;
        }
        (None, BetaSchedule::SquaredcosCapV2) => {}
    }
    if config.rescale_betas_zero_snr && n == 1 {
        let expected = "must be false with one timestep: all of its signal would be gone";
        return Err(Error::config("rescale_betas_zero_snr", true, expected));
    }
    for (key, on) in [
        ("clip_sample", config.clip_sample),
        ("thresholding", config.thresholding),
    ] {
        if on {
            return Err(Error::config(key, on, "is not supported, must be false"));
        }
    }
    Ok(())
}
