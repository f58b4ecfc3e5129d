//! Ancestral sampling with Euler steps (k-diffusion's `sample_euler_ancestral`) as a table of coefficients.

use crate::{NoiseSchedule, Prediction, Result, ScheduleConfig, spacing};

/// ᾱ of a last timestep without signal, so that its σ is finite: the smallest positive f16
/// (`scheduling_euler_ancestral_discrete.py`, `__init__`). After a timestep that has no more than that, it is half of
/// that one's, since σ must grow.
const SMALLEST_ABAR: f64 = 1.0 / (1_u64 << 24) as f64;

/// What one denoising step does to a latent, in f64. Latents are x₀ + σ ε here, not √ᾱ x₀ + √(1−ᾱ) ε.
///
/// ```text
/// σ      = √((1−ᾱ) / ᾱ)                  σ_up² = σ_to² (σ² − σ_to²) / σ²
/// d      = (x − x̂₀) / σ                  σ_down² = σ_to² − σ_up²,  so  σ_down = σ_to² / σ
/// mean   = x + (σ_down − σ) d  =  a x + b m
/// x_prev ~ N(mean, σ_up² I)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    time: f64,
    sigma: f64,
    sigma_to: f64,
    a: f64,
    b: f64,
    std: f64,
}

/// The Euler ancestral sampler: which model times are visited, and the Gaussian of each step.
///
/// As diffusers 0.42.1, `EulerAncestralDiscreteScheduler`: a latent starts as σ of the first step times standard normal
/// noise (`init_noise_sigma`), the network sees it divided by √(σ² + 1) (`scale_model_input`), and the last step leads
/// to σ = 0: it adds no noise and has no log-probability. With spacing `linspace` model times are fractional, and σ is
/// interpolated between those of whole timesteps. It has no state. With feature `tch` it is a `Sampler`.
///
/// ```
/// use ddpo_sched::{EulerAncestral, ScheduleConfig, Spacing};
///
/// let config = ScheduleConfig {
///     timestep_spacing: Spacing::Linspace,
///     ..ScheduleConfig::sd_v1_4()
/// };
/// let euler = EulerAncestral::new(&config, 20)?;
/// let times: Vec<f64> = euler.times().collect();
/// assert!((times[1] - 946.42).abs() < 0.01);
/// // The sigmas of Stable Diffusion, from 14.61 to 0.03.
/// assert!((euler.init_noise_sigma() - 14.61).abs() < 0.01);
/// assert!(euler.std(18) > 0.0 && euler.std(19) == 0.0);
/// # Ok::<(), ddpo_sched::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct EulerAncestral {
    steps: Vec<Step>,
    init_noise_sigma: f64,
}

impl EulerAncestral {
    /// `n_steps` denoising steps. `set_alpha_to_one` plays no part.
    ///
    /// Prediction `sample`, which this scheduler of diffusers does not know, is as in their
    /// `EulerDiscreteScheduler`: the output is x̂₀.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) as [`Ddim::new`](crate::Ddim::new).
    pub fn new(config: &ScheduleConfig, n_steps: usize) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        let times = spacing::times(config, n_steps)?;
        let abar = schedule.abar();
        spacing::check_signal(schedule.prediction(), times[0], abar[times[0] as usize])?;
        let mut before = 1.0;
        let of_abar = |&abar: &f64| {
            let abar = match abar > 0.0 {
                true => abar,
                false => SMALLEST_ABAR.min(before / 2.0),
            };
            before = abar;
            ((1.0 - abar) / abar).sqrt()
        };
        let sigmas: Vec<f64> = abar.iter().map(of_abar).collect();
        let sigma = |time: f64| {
            let (low, share) = (time.floor() as usize, time.fract());
            match share > 0.0 {
                true => (sigmas[low + 1] - sigmas[low]) * share + sigmas[low],
                false => sigmas[low],
            }
        };
        let visited: Vec<f64> = times.iter().map(|&time| sigma(time)).collect();
        let to = visited[1..].iter().copied().chain([0.0]);
        let steps = times.iter().zip(&visited).zip(to);
        let steps = steps
            .map(|((&time, &sigma), to)| Step::new(time, sigma, to, schedule.prediction()))
            .collect();
        let init_noise_sigma = match config.timestep_spacing {
            crate::Spacing::Leading => (visited[0] * visited[0] + 1.0).sqrt(),
            crate::Spacing::Linspace | crate::Spacing::Trailing => visited[0],
        };
        Ok(Self {
            steps,
            init_noise_sigma,
        })
    }

    /// How many denoising steps.
    pub fn n_steps(&self) -> usize {
        self.steps.len()
    }

    /// The model times that are visited, noisiest first.
    pub fn times(&self) -> impl Iterator<Item = f64> + '_ {
        self.steps.iter().map(|step| step.time)
    }

    /// The mean of a step as a weighted sum of latent and model output: `mean = a x + b m`.
    pub fn mean_weights(&self, step: usize) -> (f64, f64) {
        (self.steps[step].a, self.steps[step].b)
    }

    /// Standard deviation of a step, σ_up: 0 for the last.
    pub fn std(&self, step: usize) -> f64 {
        self.steps[step].std
    }

    /// Noise level before and after a step: σ and σ_to.
    pub fn sigma(&self, step: usize) -> (f64, f64) {
        (self.steps[step].sigma, self.steps[step].sigma_to)
    }

    /// Standard deviation of the initial latent: σ of the first step, with spacing `leading` √(σ² + 1).
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }
}

impl Step {
    fn new(time: f64, sigma: f64, sigma_to: f64, prediction: Prediction) -> Self {
        let std = (sigma_to.powi(2) * (sigma.powi(2) - sigma_to.powi(2)) / sigma.powi(2)).sqrt();
        let down = sigma_to.powi(2) / sigma;
        let dt = down - sigma;
        let total = sigma.powi(2) + 1.0;
        let (a, b) = match prediction {
            // x̂₀ = x − σ m, so d = m.
            Prediction::Epsilon => (1.0, dt),
            // x̂₀ = x / (σ²+1) − m σ / √(σ²+1), so d = x σ / (σ²+1) + m / √(σ²+1).
            Prediction::VPrediction => ((1.0 + down * sigma) / total, dt / total.sqrt()),
            Prediction::Sample => (down / sigma, -dt / sigma),
        };
        Self {
            time,
            sigma,
            sigma_to,
            a,
            b,
            std,
        }
    }
}

#[cfg(feature = "tch")]
mod tensors {
    use tch::Tensor;

    use super::EulerAncestral;
    use crate::{Gaussian, Result, Sampler, check_steps};

    impl Sampler for EulerAncestral {
        fn n_steps(&self) -> usize {
            self.steps.len()
        }

        fn timestep(&self, step: usize) -> f64 {
            self.steps[step].time
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

        fn init_noise_scale(&self) -> f64 {
            self.init_noise_sigma
        }

        fn input_scale(&self, step: usize) -> f64 {
            1.0 / (self.steps[step].sigma.powi(2) + 1.0).sqrt()
        }

        /// `x = x_to + √(σ² − σ_to²) z`.
        fn renoise(&self, step: usize) -> Option<(f64, f64)> {
            let (sigma, to) = self.sigma(step);
            Some((1.0, (sigma.powi(2) - to.powi(2)).sqrt()))
        }
    }
}
