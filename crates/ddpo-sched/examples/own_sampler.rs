//! A sampler of one's own, checked and run: `cargo run -p ddpo-sched --features dev --example own_sampler`.
//!
//! Ancestral sampling leaves the variance of a step open between two bounds (Ho et al. 2020, section 3.2), and
//! `Ddim` with η = 1 takes the lower one. Where the spread of the data is known, the variance between them is known too,
//! and a few steps are enough. Data here is normal, so that the denoiser has a closed form and the answer is known.

use std::process::ExitCode;

use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, Gaussian, KeyedNoise, LatentBatch, NoiseSchedule,
    Result, Sampler, ScheduleConfig, Seeds, check_steps, dev, sample,
};
use tch::{Device, Kind, Tensor};

/// Mean and standard deviation of the data.
const MEAN: f64 = 2.0;
const SPREAD: f64 = 0.5;

/// Ancestral steps with the variance that is right for data of a known spread (Bao et al. 2022, theorem 1).
struct Analytic {
    steps: Vec<Step>,
}

/// `N(x_t x_t + eps ε, std²)`
struct Step {
    timestep: usize,
    x_t: f64,
    eps: f64,
    std: f64,
}

impl Analytic {
    fn new(schedule: &NoiseSchedule, n_steps: usize, spread: f64) -> Self {
        let times: Vec<usize> = (1..=n_steps)
            .rev()
            .map(|i| i * schedule.len() / n_steps - 1)
            .collect();
        let abar = |step: usize| times.get(step).map_or(1.0, |&t| schedule.abar()[t]);
        let step = |step: usize| {
            let (now, next) = (abar(step), abar(step + 1));
            let beta = 1.0 - now / next;
            // q(x_prev | x_t, x₀) has the mean `from_x_t x_t + from_x_0 x₀` (Ho et al. 2020, formula 7).
            let from_x_t = (now / next).sqrt() * (1.0 - next) / (1.0 - now);
            let from_x_0 = next.sqrt() * beta / (1.0 - now);
            // What is not known of x₀ once x_t is seen.
            let of_x_0 = spread.powi(2) * (1.0 - now) / (now * spread.powi(2) + 1.0 - now);
            let variance = (1.0 - next) / (1.0 - now) * beta + from_x_0.powi(2) * of_x_0;
            Step {
                timestep: times[step],
                x_t: from_x_t + from_x_0 / now.sqrt(),
                eps: -from_x_0 * ((1.0 - now) / now).sqrt(),
                std: variance.sqrt(),
            }
        };
        let steps = (0..n_steps).map(step).collect();
        Self { steps }
    }
}

impl Sampler for Analytic {
    fn n_steps(&self) -> usize {
        self.steps.len()
    }

    fn timestep(&self, step: usize) -> f64 {
        self.steps[step].timestep as f64
    }

    fn is_stochastic(&self, _step: usize) -> bool {
        true
    }

    fn transition(&self, at: &[usize], x_t: &Tensor, eps: &Tensor) -> Result<Gaussian> {
        check_steps(at, self.n_steps())?;
        let each = |number: fn(&Step) -> f64| at.iter().map(|&i| number(&self.steps[i])).collect();
        let (of_x_t, of_eps): (Vec<f64>, Vec<f64>) = (each(|s| s.x_t), each(|s| s.eps));
        Gaussian::affine(x_t, &of_x_t, eps, &of_eps, each(|s| s.std))
    }
}

/// ε of normal data: `√(1−ᾱ) (x_t − √ᾱ mean) / (ᾱ spread² + 1 − ᾱ)`.
struct Exact(NoiseSchedule);

impl Denoiser for Exact {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        let times = input.t.to_kind(Kind::Int64);
        let abar = Tensor::from_slice(self.0.abar())
            .index_select(0, &times)
            .unsqueeze(1);
        let noise: Tensor = 1.0 - &abar;
        let scale = noise.sqrt() / (&abar * SPREAD.powi(2) + noise);
        Ok(((input.x_t - abar.sqrt() * MEAN) * scale).to_kind(Kind::Float))
    }
}

/// Mean and standard deviation of what a sampler draws.
fn drawn(net: &Exact, sampler: &dyn Sampler) -> Result<(f64, f64)> {
    let sample_ids: Vec<u64> = (0..1000).collect();
    let batch = LatentBatch {
        shape: &[16],
        cond: &Conditioning::none(sample_ids.len(), Device::Cpu),
        sample_ids: &sample_ids,
        log_prob: None,
    };
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    let x_0 = sample(net, sampler, &batch, &noise, &mut |_| Ok(()))?;
    Ok((
        x_0.mean(Kind::Float).double_value(&[]),
        x_0.std(true).double_value(&[]),
    ))
}

fn main() -> Result<ExitCode> {
    let config = ScheduleConfig::default();
    let schedule = NoiseSchedule::new(&config)?;
    let (analytic, ddim) = (
        Analytic::new(&schedule, 10, SPREAD),
        Ddim::new(&config, 10, 1.0)?,
    );
    // Panics with the first promise of a sampler that is broken.
    dev::sampler_conforms(&analytic);
    println!("the sampler keeps every promise of a sampler");
    let net = Exact(schedule);
    println!("data: mean {MEAN:.2}, standard deviation {SPREAD:.2}");
    let lower = drawn(&net, &ddim)?;
    println!(
        "DDIM, η = 1, 10 steps: mean {:.2}, standard deviation {:.2}",
        lower.0, lower.1
    );
    let (mean, spread) = drawn(&net, &analytic)?;
    println!("analytic variance, 10 steps: mean {mean:.2}, standard deviation {spread:.2}");
    let right = (mean - MEAN).abs() < 0.03 && (spread - SPREAD).abs() < 0.02;
    Ok(ExitCode::from(u8::from(!right)))
}
