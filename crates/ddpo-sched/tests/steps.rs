//! Steps, the denoising loop, noise and guidance.
#![cfg(feature = "tch")]

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, Draw, Error, FixedNoise, Gaussian, Guided,
    KeyedNoise, LatentBatch, LogProb, NoiseSource, Result, Sampler, ScheduleConfig, Seeds, Stream,
    sample,
};
use proptest::prelude::*;
use tch::{Kind, Tensor};

/// The closed-form denoiser of tests/golden/ddim.py.
struct Toy;

impl Denoiser for Toy {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        let shift = input.cond.tokens.mean_dim(1, false, Kind::Float);
        let wave = (input.t.to_kind(Kind::Float) / 100.0).cos() * 0.3;
        let eps = (input.x_t * 0.7 + shift.unsqueeze(-1).unsqueeze(-1)).tanh();
        Ok(eps + wave.view([-1, 1, 1, 1]))
    }
}

fn golden() -> BTreeMap<String, Tensor> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ddim/tensors.safetensors");
    Tensor::read_safetensors(path)
        .unwrap()
        .into_iter()
        .collect()
}

fn sd(n_steps: usize, eta: f64) -> Ddim {
    Ddim::new(&ScheduleConfig::sd_v1_4(), n_steps, eta).unwrap()
}

#[track_caller]
fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let difference = (actual - expected).abs();
    let worst = difference.max().double_value(&[]);
    let relative = worst / expected.abs().max().double_value(&[]);
    let index = difference.argmax(None, false).int64_value(&[]);
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, largest {worst:.2e} at flat index {index}, allowed {tolerance:.0e}"
    );
}

fn ids(n: u64) -> Vec<u64> {
    (0..n).collect()
}

// Generator: tests/golden/ddim.py.
#[test]
fn alphas_are_those_of_diffusers() {
    let schedule = ddpo_sched::NoiseSchedule::new(&ScheduleConfig::sd_v1_4()).unwrap();
    check(
        "alphas_cumprod",
        &Tensor::from_slice(schedule.abar()),
        &golden()["alphas_cumprod"],
        1e-12,
    );
}

// Generator: tests/golden/ddim.py.
#[test]
fn a_step_at_mixed_timesteps_is_that_of_diffusers() {
    let golden = golden();
    let at: Vec<usize> = Vec::<i64>::try_from(&golden["step.at"])
        .unwrap()
        .into_iter()
        .map(|step| step as usize)
        .collect();
    let next = sd(50, 1.0)
        .transition(&at, &golden["step.x_t"], &golden["step.eps"])
        .unwrap();
    let prev = next.at(&golden["step.noise"]).unwrap();
    let log_prob = next.log_prob(&prev, LogProb::Mean).unwrap();
    check("mean", &next.mean, &golden["step.mean"], 1e-6);
    check("prev", &prev, &golden["step.prev"], 1e-6);
    check("log_prob", &log_prob, &golden["step.log_prob"], 1e-6);
}

// Generator: tests/golden/ddim.py.
#[test]
fn trajectories_are_those_of_diffusers() {
    let golden = golden();
    for (name, scale) in [("plain", 1.0), ("guided", 5.0)] {
        let net = Guided::new(Toy, golden["uncond"].shallow_clone(), scale);
        let noise = FixedNoise::new(KeyedNoise::new(Seeds::new(0), 0))
            .with_latents(&golden["latents"])
            .with_noise(&golden["noise"]);
        let (mut latents, mut log_probs) = (vec![golden["latents"].shallow_clone()], Vec::new());
        let batch = LatentBatch {
            shape: &[4, 6, 6],
            cond: &golden["cond"].shallow_clone().into(),
            sample_ids: &ids(3),
            log_prob: Some(LogProb::Mean),
        };
        let x_0 = sample(&net, &sd(10, 1.0), &batch, &noise, &mut |record| {
            latents.push(record.x_prev.shallow_clone());
            log_probs.push(record.log_prob.unwrap().shallow_clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(latents.last(), Some(&x_0));
        let (latents, log_probs) = (Tensor::stack(&latents, 0), Tensor::stack(&log_probs, 0));
        // Against f64 tables, and against the f32 tables that diffusers keeps.
        for tables in ["f64", "f32"] {
            let expected = |what: &str| &golden[&format!("{name}.{tables}.{what}")];
            let case = format!("{name}, {tables} tables");
            check(
                &format!("latents, {case}"),
                &latents,
                expected("latents"),
                1e-5,
            );
            check(
                &format!("log_probs, {case}"),
                &log_probs,
                expected("log_probs"),
                1e-5,
            );
        }
    }
}

fn gaussian(mean: &Tensor, std: f64) -> Gaussian {
    Gaussian {
        mean: mean.shallow_clone(),
        std: vec![std; mean.size()[0] as usize],
    }
}

proptest! {
    #[test]
    fn log_prob_of_what_was_drawn_is_the_closed_form(
        std in 0.01..3.0_f64,
        noise in prop::collection::vec(-4.0..4.0_f32, 12),
    ) {
        let mean = Tensor::zeros([2, 6], (Kind::Float, tch::Device::Cpu));
        let step = gaussian(&mean, std);
        let x = step.at(&Tensor::from_slice(&noise).view([2, 6])).unwrap();
        let log_prob = step.log_prob(&x, LogProb::Mean).unwrap();
        let sum = step.log_prob(&x, LogProb::Sum).unwrap();
        for (row, noise) in noise.chunks(6).enumerate() {
            let squares: f64 = noise.iter().map(|&z| f64::from(z).powi(2)).sum();
            let expected = -0.5 * squares / 6.0 - std.ln() - 0.5 * std::f64::consts::TAU.ln();
            let row = [row as i64];
            prop_assert!((log_prob.double_value(&row) - expected).abs() < 1e-5);
            prop_assert!((sum.double_value(&row) - 6.0 * expected).abs() < 1e-4);
        }
    }
}

#[test]
fn gradients_reach_the_mean_and_not_the_sample() {
    let on_cpu = (Kind::Float, tch::Device::Cpu);
    let mean = Tensor::zeros([1, 2], on_cpu).set_requires_grad(true);
    let x = (Tensor::ones([1, 2], on_cpu) * 3.0).set_requires_grad(true);
    let log_prob = gaussian(&mean, 2.0).log_prob(&x, LogProb::Mean).unwrap();
    log_prob.sum(Kind::Float).backward();
    // d/dmean of −(x − mean)²/(2σ²), averaged over two dimensions: 3 / 4 / 2.
    check(
        "gradient",
        &mean.grad(),
        &Tensor::from_slice(&[0.375_f32; 2]).view([1, 2]),
        1e-6,
    );
    assert!(!x.grad().defined());
}

#[test]
fn a_step_without_noise_has_no_log_probability() {
    struct NeverAsked;
    impl Denoiser for NeverAsked {
        fn predict(&self, _: DenoiseInput<'_>) -> Result<Tensor> {
            panic!("the network is not asked")
        }
    }
    let to_one = ScheduleConfig {
        set_alpha_to_one: true,
        ..ScheduleConfig::sd_v1_4()
    };
    let cases = [(sd(10, 0.0), 0), (Ddim::new(&to_one, 10, 1.0).unwrap(), 9)];
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    for (ddim, expected) in cases {
        let batch = LatentBatch {
            shape: &[1, 2, 2],
            cond: &Conditioning::none(1, tch::Device::Cpu),
            sample_ids: &[0],
            log_prob: Some(LogProb::Mean),
        };
        let refused = sample(&NeverAsked, &ddim, &batch, &noise, &mut |_| Ok(()));
        match refused {
            Err(Error::Deterministic { step, .. }) => assert_eq!(step, expected),
            other => panic!("{other:?}"),
        }
    }
    let mean = Tensor::zeros([1, 2], (Kind::Float, tch::Device::Cpu));
    let flat = gaussian(&mean, 0.0).log_prob(&mean, LogProb::Mean);
    assert!(matches!(flat, Err(Error::NoDensity { sample: 0 })));
}

#[test]
fn without_log_probabilities_deterministic_sampling_works() {
    let cond = Tensor::zeros([1, 1, 4], (Kind::Float, tch::Device::Cpu)).into();
    let batch = LatentBatch {
        shape: &[4, 2, 2],
        cond: &cond,
        sample_ids: &[0],
        log_prob: None,
    };
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    let x_0 = sample(&Toy, &sd(10, 0.0), &batch, &noise, &mut |record| {
        assert!(record.log_prob.is_none());
        Ok(())
    });
    assert_eq!(x_0.unwrap().size(), [1, 4, 2, 2]);
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let ddim = sd(10, 1.0);
    let noise = KeyedNoise::new(Seeds::new(5), 2);
    let cond = Tensor::from_slice(&[0.1_f32, -0.2, 0.3, 0.4]).view([1, 1, 4]);
    let draw = |ids: &[u64]| {
        let batch = LatentBatch {
            shape: &[4, 3, 3],
            cond: &cond.expand([ids.len() as i64, 1, 4], false).into(),
            sample_ids: ids,
            log_prob: Some(LogProb::Mean),
        };
        sample(&Toy, &ddim, &batch, &noise, &mut |_| Ok(())).unwrap()
    };
    let all = draw(&[3, 0, 8, 1]);
    for (row, id) in [(0, 3), (1, 0), (2, 8), (3, 1)] {
        check("alone", &draw(&[id]), &all.narrow(0, row, 1), 1e-6);
    }
}

#[test]
fn noise_differs_by_every_part_of_its_key() {
    let draw = |seed, stream, epoch, id, draw| {
        let noise = KeyedNoise::of_stream(Seeds::new(seed), stream, epoch);
        noise.normal(&[id], draw, &[2, 3, 3]).unwrap()
    };
    let base = draw(1, Stream::Noise, 2, 3, Draw::Step(4));
    assert_eq!(base, draw(1, Stream::Noise, 2, 3, Draw::Step(4)));
    for other in [
        draw(9, Stream::Noise, 2, 3, Draw::Step(4)),
        draw(1, Stream::Evaluation, 2, 3, Draw::Step(4)),
        draw(1, Stream::Noise, 9, 3, Draw::Step(4)),
        draw(1, Stream::Noise, 2, 9, Draw::Step(4)),
        draw(1, Stream::Noise, 2, 3, Draw::Step(9)),
        draw(1, Stream::Noise, 2, 3, Draw::Initial),
    ] {
        assert!((&base - other).abs().max().double_value(&[]) > 0.1);
    }
}

#[test]
fn fixed_noise_names_what_it_does_not_have() {
    let on_cpu = (Kind::Float, tch::Device::Cpu);
    let keyed = KeyedNoise::new(Seeds::new(0), 0);
    let fixed = FixedNoise::new(keyed).with_noise(&Tensor::zeros([2, 3, 1, 2, 2], on_cpu));
    let shape = [1, 2, 2];
    let initial = fixed.normal(&[1], Draw::Initial, &shape).unwrap();
    assert_eq!(initial, keyed.normal(&[1], Draw::Initial, &shape).unwrap());
    assert_eq!(
        fixed.normal(&[2], Draw::Step(1), &shape).unwrap(),
        Tensor::zeros([1, 1, 2, 2], on_cpu)
    );
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert_eq!(
        message(fixed.normal(&[0], Draw::Step(2), &shape)),
        "steps of noise: 2 is out of range, there are 2"
    );
    assert_eq!(
        message(fixed.normal(&[3], Draw::Step(0), &shape)),
        "noise of a step: 3 is out of range, there are 3"
    );
    assert_eq!(
        message(fixed.normal(&[0], Draw::Step(0), &[1, 4, 4])),
        "fixed noise of a sample: expected shape [1, 4, 4], got [1, 2, 2]"
    );
}

#[test]
fn guidance_of_one_is_the_conditional_pass_alone() {
    struct Counts;
    impl Denoiser for Counts {
        fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
            assert_eq!(input.x_t.size()[0], 2);
            Toy.predict(input)
        }
    }
    let x_t = Tensor::ones([2, 4, 2, 2], (Kind::Float, tch::Device::Cpu));
    let t = Tensor::from_slice(&[1_i64, 500]);
    let cond = Conditioning::new(Tensor::ones([2, 3, 4], (Kind::Float, tch::Device::Cpu)));
    let input = DenoiseInput {
        x_t: &x_t,
        t: &t,
        cond: &cond,
    };
    let plain = Toy.predict(input).unwrap();
    let uncond = cond.narrow(0, 1).map(|part| part * 0.0);
    let guided = Guided::new(Counts, uncond, 1.0).predict(input).unwrap();
    assert_eq!(plain, guided);
    let misfit = Guided::new(
        Toy,
        Tensor::zeros([1, 7, 4], (Kind::Float, tch::Device::Cpu)),
        5.0,
    );
    assert_eq!(
        misfit.predict(input).unwrap_err().to_string(),
        "unconditional embedding: expected shape [1, 3, 4], got [1, 7, 4]"
    );
}

#[test]
fn an_observer_can_stop_the_loop() {
    let cond = Tensor::zeros([1, 1, 4], (Kind::Float, tch::Device::Cpu)).into();
    let batch = LatentBatch {
        shape: &[4, 2, 2],
        cond: &cond,
        sample_ids: &[0],
        log_prob: None,
    };
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    let mut seen = 0;
    let stopped = sample(&Toy, &sd(10, 1.0), &batch, &noise, &mut |record| {
        seen += 1;
        match record.step {
            3 => Err(Error::Stopped),
            _ => Ok(()),
        }
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(seen, 4);
}
