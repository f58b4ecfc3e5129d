//! Divergences, universal guidance and self-recurrence in closed form; against diffusers in `ddpo-tests`.
#![cfg(feature = "tch")]

use std::collections::BTreeSet;

use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, Draw, Error, Gaussian, KeyedNoise, LatentBatch,
    LogProb, NoiseSchedule, NoiseSource, Result, ScheduleConfig, Seeds, Universal, sample,
    sample_repeating,
};
use tch::{Kind, Tensor};

fn gaussian(mean: &[f32], std: f64) -> Gaussian {
    Gaussian {
        mean: Tensor::from_slice(mean).view([1, -1]),
        std: vec![std],
    }
}

fn value(tensor: &Tensor) -> f64 {
    tensor.double_value(&[0])
}

#[test]
fn the_divergence_is_the_closed_form() {
    let (a, b) = ([0.5_f32, -1.0, 2.0], [0.0_f32, -0.5, 2.5]);
    // |a − b|² = 0.75 over three dimensions.
    for (std, of_b, expected) in [
        (0.4, 0.4, 0.75 / 3.0 / (2.0 * 0.16)),
        (
            0.4,
            0.8,
            (0.8_f64 / 0.4).ln() + (0.16 + 0.25) / (2.0 * 0.64) - 0.5,
        ),
    ] {
        let (p, q) = (gaussian(&a, std), gaussian(&b, of_b));
        let mean = value(&p.kl(&q, LogProb::Mean).unwrap());
        assert!(
            (mean - expected).abs() < 1e-6,
            "{mean}, expected {expected}"
        );
        let sum = value(&p.kl(&q, LogProb::Sum).unwrap());
        assert!((sum - 3.0 * expected).abs() < 3e-6, "{sum}");
        assert_eq!(value(&p.kl(&p, LogProb::Sum).unwrap()), 0.0);
    }
    let flat = gaussian(&a, 0.0);
    let refused = flat.kl(&gaussian(&b, 1.0), LogProb::Mean);
    assert!(matches!(refused, Err(Error::NoDensity { sample: 0 })));
}

#[test]
fn the_divergence_has_the_gradient_of_the_closed_form_and_none_into_the_other() {
    let mean = Tensor::from_slice(&[0.5_f32, -1.0])
        .view([1, 2])
        .set_requires_grad(true);
    let other = Tensor::from_slice(&[0.0_f32, 1.0])
        .view([1, 2])
        .set_requires_grad(true);
    let of = |mean: &Tensor| Gaussian {
        mean: mean * 1.0,
        std: vec![0.5],
    };
    let kl = of(&mean).kl(&of(&other), LogProb::Sum).unwrap();
    kl.sum(Kind::Float).backward();
    // (μ − μ') / σ²
    for (axis, expected) in [(0, 2.0), (1, -8.0)] {
        let found = mean.grad().double_value(&[0, axis]);
        assert!(
            (found - expected).abs() < 1e-5,
            "{found}, expected {expected}"
        );
    }
    assert!(!other.grad().defined());
}

/// The mean of `log p − log q` over samples of p is the divergence.
#[test]
fn the_divergence_is_that_of_the_densities() {
    let n = 20_000;
    let of = |mean: f64, std: f64| Gaussian {
        mean: Tensor::full([n, 3], mean, (Kind::Float, tch::Device::Cpu)),
        std: vec![std; n as usize],
    };
    let (p, q) = (of(0.3, 0.5), of(0.1, 0.7));
    let mut noise = vec![0.0_f32; 3 * n as usize];
    let key = Seeds::new(1).derive(ddpo_sched::Stream::Noise, 0, 0);
    key.draws().fill_normal(&mut noise);
    let x = p.at(&Tensor::from_slice(&noise).view([n, 3])).unwrap();
    let [of_p, of_q] = [&p, &q].map(|d| d.log_prob(&x, LogProb::Sum).unwrap());
    let ratio = of_p - of_q;
    let (mean, se) = (
        ratio.mean(Kind::Float).double_value(&[]),
        ratio.std(true).double_value(&[]) / (n as f64).sqrt(),
    );
    let expected = value(&p.kl(&q, LogProb::Sum).unwrap());
    assert!(
        (mean - expected).abs() < 4.0 * se,
        "{mean}, expected {expected}, error {se}"
    );
}

/// ε is the latent scaled: a linear network, so that the gradient is known.
struct Linear(f64);

impl Denoiser for Linear {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        Ok(input.x_t * self.0)
    }
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&ScheduleConfig::sd_v1_4()).unwrap()
}

/// f = ⟨w, x̂₀⟩ with x̂₀ = (1 − c √(1−ᾱ)) / √ᾱ · x_t, so ∇f = w (1 − c √(1−ᾱ)) / √ᾱ.
#[test]
fn guidance_follows_the_gradient_in_x_t_through_the_network() {
    let (c, scale) = (0.3, 2.5);
    let weights = Tensor::from_slice(&[1.0_f32, -2.0, 0.5]).view([1, 3, 1, 1]);
    let held = weights.shallow_clone();
    let objective = move |x_0: &Tensor| {
        Ok((x_0 * &held)
            .flatten(1, -1)
            .sum_dim_intlist(1, false, Kind::Float))
    };
    let guided = Universal::new(Linear(c), schedule(), scale, Box::new(objective));
    let x_t = Tensor::from_slice(&[0.2_f32, -0.4, 1.0, 0.7, 0.0, -1.5]).view([2, 3, 1, 1]);
    let t = Tensor::from_slice(&[981_i64, 41]);
    let input = DenoiseInput {
        x_t: &x_t,
        t: &t,
        cond: &Conditioning::none(2, tch::Device::Cpu),
    };
    let eps = tch::no_grad(|| guided.predict(input)).unwrap();
    assert!(!eps.requires_grad());
    for (sample, timestep) in [(0, 981), (1, 41)] {
        let abar = schedule().abar()[timestep];
        let (signal, noise) = (abar.sqrt(), (1.0 - abar).sqrt());
        let slope = noise * scale * (1.0 - c * noise) / signal;
        let expected = x_t.get(sample) * c - weights.get(0) * slope;
        let apart = (eps.get(sample) - expected).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "sample {sample}: {apart}");
    }
}

#[test]
fn without_weight_and_repeats_the_latents_are_those_of_the_plain_sampler_to_the_bit() {
    let objective = |_: &Tensor| -> Result<Tensor> { unreachable!("nothing is asked") };
    let sampler = Ddim::new(&ScheduleConfig::sd_v1_4(), 10, 1.0).unwrap();
    let cond = Conditioning::none(3, tch::Device::Cpu);
    let batch = LatentBatch {
        shape: &[3, 8, 8],
        cond: &cond,
        sample_ids: &[4, 0, 9],
        log_prob: None,
    };
    let noise = KeyedNoise::new(Seeds::new(5), 0);
    let net: &dyn Denoiser = &Linear(0.3);
    let plain = sample(net, &sampler, &batch, &noise, &mut |_| Ok(())).unwrap();
    let guided = Universal::new(net, schedule(), 0.0, Box::new(objective));
    let found = sample_repeating(&guided, &sampler, &batch, &noise, 1, &mut |_| Ok(()));
    assert_eq!(found.unwrap(), plain);
}

#[test]
fn an_objective_of_the_wrong_shape_is_named() {
    let objective = |x_0: &Tensor| Ok(x_0.sum(Kind::Float));
    let guided = Universal::new(Linear(1.0), schedule(), 1.0, Box::new(objective));
    let x_t = Tensor::zeros([2, 3, 1, 1], (Kind::Float, tch::Device::Cpu));
    let t = Tensor::from_slice(&[1_i64, 1]);
    let (x_t, t, cond) = (&x_t, &t, &Conditioning::none(2, tch::Device::Cpu));
    let error = guided.predict(DenoiseInput { x_t, t, cond }).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("objective: expected shape [2]"),
        "{error}"
    );
}

#[test]
fn a_step_that_is_repeated_goes_back_to_the_noise_it_came_from() {
    // A perfect denoiser of standard normal data is linear, so the variance of latents is known at every step.
    struct Perfect(NoiseSchedule);
    impl Denoiser for Perfect {
        fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
            let abar = self.0.abar()[input.t.double_value(&[0]) as usize];
            Ok(input.x_t * (1.0 - abar).sqrt())
        }
    }
    let sampler = Ddim::new(&ScheduleConfig::sd_v1_4(), 10, 1.0).unwrap();
    let cond = Conditioning::none(64, tch::Device::Cpu);
    let ids: Vec<u64> = (0..64).collect();
    let batch = LatentBatch {
        shape: &[3, 8, 8],
        cond: &cond,
        sample_ids: &ids,
        log_prob: Some(LogProb::Mean),
    };
    let noise = KeyedNoise::new(Seeds::new(5), 0);
    let net = Perfect(schedule());
    let run = |repeats| {
        let mut steps = 0;
        let mut observe = |_: ddpo_sched::StepRecord<'_>| {
            steps += 1;
            Ok(())
        };
        let x_0 = sample_repeating(&net, &sampler, &batch, &noise, repeats, &mut observe);
        assert_eq!(steps, 10, "an observer sees each step once");
        x_0.unwrap()
    };
    let plain = sample(&net, &sampler, &batch, &noise, &mut |_| Ok(())).unwrap();
    assert_eq!(plain, run(1));
    let repeated = run(3);
    assert!((&repeated - plain).abs().max().double_value(&[]) > 0.1);
    let mut variance = 1.0_f64;
    for step in 0..sampler.n_steps() {
        let (a, b) = sampler.mean_weights(step);
        let (abar, abar_prev) = sampler.abar(step);
        let (slope, std) = (a + b * (1.0 - abar).sqrt(), sampler.std(step));
        let kept = abar / abar_prev;
        let taken = |variance: f64| slope * slope * variance + std * std;
        for _ in 0..2 {
            variance = kept * taken(variance) + 1.0 - kept;
        }
        variance = taken(variance);
    }
    // 12288 numbers: the standard error of a deviation is 0.64 % of it.
    let std = repeated.std(true).double_value(&[]);
    let expected = variance.sqrt();
    assert!(
        (std / expected - 1.0).abs() < 0.02,
        "{std}, expected {expected}"
    );
}

#[test]
fn every_draw_has_noise_of_its_own() {
    let noise = KeyedNoise::new(Seeds::new(5), 0);
    let mut draws = vec![Draw::Initial];
    for step in 0..20 {
        draws.push(Draw::Step(step));
        for repeat in 0..6 {
            draws.extend([
                Draw::Repeat { step, repeat },
                Draw::Renoise { step, repeat },
            ]);
        }
    }
    let first = |draw: &Draw| {
        let drawn = noise.normal(&[0], *draw, &[2]).unwrap();
        drawn.double_value(&[0, 0]).to_bits()
    };
    let seen: BTreeSet<u64> = draws.iter().map(first).collect();
    assert_eq!(seen.len(), draws.len());
}
