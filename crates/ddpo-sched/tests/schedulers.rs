//! Schedules, spacings, predictions and Euler ancestral against diffusers.
//!
//! The references are diffusers' own code, run in f64: tables hold to 1e-12, and f32 tensors to a few roundings. What
//! diffusers says as it is, with f32 tables (`*.f32`), is compared as loosely as those tables are off.
#![cfg(feature = "tch")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, EulerAncestral, FixedNoise, KeyedNoise,
    LatentBatch, NoiseSchedule, Prediction, Result, Sampler, ScheduleConfig, Seeds, Spacing,
    sample,
};
use serde_json::Value;
use tch::{Kind, Tensor};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/schedulers")
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    let path = folder().join(format!("{name}.safetensors"));
    Tensor::read_safetensors(path)
        .unwrap()
        .into_iter()
        .collect()
}

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn config(value: &Value) -> ScheduleConfig {
    serde_json::from_value(value.clone()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array().unwrap().iter();
    all.map(|number| number.as_f64().unwrap()).collect()
}

/// Largest difference, relative to the largest expected value. `--nocapture` shows what was measured.
#[track_caller]
fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let difference = (actual.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs();
    let worst = difference.max().double_value(&[]);
    let largest = expected.abs().max().double_value(&[]);
    let relative = worst / largest.max(f64::MIN_POSITIVE);
    let index = difference.argmax(None, false).int64_value(&[]);
    println!("{name}: {relative:.2e}, allowed {tolerance:.0e}");
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, largest {worst:.2e} at flat index {index}, allowed {tolerance:.0e}"
    );
}

#[track_caller]
fn check_values(name: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    let (actual, expected) = (Tensor::from_slice(actual), Tensor::from_slice(expected));
    check(name, &actual, &expected, tolerance);
}

// Generator: tests/golden/schedulers.py.
#[test]
fn every_beta_schedule_is_that_of_diffusers() {
    let golden = tensors("tables");
    let sd = r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear""#;
    let cosine = r#""beta_schedule": "squaredcos_cap_v2""#;
    for (name, keys) in [
        ("linear", r#""beta_schedule": "linear""#.to_owned()),
        ("scaled_linear", sd.to_owned()),
        ("squaredcos_cap_v2", cosine.to_owned()),
        (
            "squaredcos_cap_v2_50",
            format!(r#"{cosine}, "num_train_timesteps": 50"#),
        ),
        (
            "trained",
            r#""trained_betas": [0.001, 0.004, 0.0025, 0.3, 0.05], "num_train_timesteps": 5"#
                .into(),
        ),
        (
            "zero_snr",
            format!(r#"{sd}, "rescale_betas_zero_snr": true"#),
        ),
        (
            "zero_snr_cosine",
            format!(r#"{cosine}, "rescale_betas_zero_snr": true"#),
        ),
    ] {
        let config: ScheduleConfig = serde_json::from_str(&format!("{{{keys}}}")).unwrap();
        let schedule = NoiseSchedule::new(&config).unwrap();
        let (betas, abar) = (schedule.betas(), schedule.abar());
        let expected = |what: &str| values(&golden[&format!("{name}.{what}")]);
        check_values(&format!("betas, {name}"), betas, &expected("betas"), 1e-12);
        let exact = expected("alphas_cumprod");
        check_values(&format!("abar, {name}"), abar, &exact, 1e-12);
        // A thousand products, each rounded to f32.
        let rounded = expected("alphas_cumprod.f32");
        check_values(&format!("abar in f32, {name}"), abar, &rounded, 2e-6);
        // Beside the largest, the smallest: each ᾱ on its own scale.
        for (t, (actual, expected)) in abar.iter().zip(exact).enumerate() {
            let difference = (actual - expected).abs();
            assert!(
                difference <= 1e-9 * expected,
                "{name}, abar[{t}]: {actual}, not {expected}"
            );
        }
        let ends_in_noise = abar[abar.len() - 1] == 0.0;
        assert_eq!(ends_in_noise, config.rescale_betas_zero_snr, "{name}");
    }
}

// Generator: tests/golden/schedulers.py.
#[test]
fn timesteps_and_sigmas_are_those_of_diffusers() {
    let (golden, about) = (tensors("timesteps"), json("timesteps"));
    let surplus = numbers(&about["trailing_surplus"]);
    for case in about["cases"].as_array().unwrap() {
        let config = config(&case["config"]);
        let name = case["name"].as_str().unwrap();
        let n_steps = case["n_steps"].as_u64().unwrap() as usize;
        let expected = |what: &str| golden.get(&format!("{name}.{what}")).map(values);
        let ddim = Ddim::new(&config, n_steps, 0.0).unwrap();
        let mut timesteps = expected("ddim").unwrap();
        // diffusers makes a timestep −1 there, which has no ᾱ.
        if config.timestep_spacing == Spacing::Trailing && surplus.contains(&(n_steps as f64)) {
            assert_eq!(timesteps.pop(), Some(-1.0), "{name}");
        }
        let visited: Vec<f64> = ddim.training_timesteps().map(|t| t as f64).collect();
        assert_eq!(visited, timesteps, "{name}");

        let euler = EulerAncestral::new(&config, n_steps).unwrap();
        let times: Vec<f64> = euler.times().collect();
        let sigmas: Vec<f64> = (0..n_steps).map(|step| euler.sigma(step).0).collect();
        assert_eq!(euler.sigma(n_steps - 1).1, 0.0, "{name}");
        // 1 − ᾱ at timestep 0 has four digits in f32, which shows where its σ is the largest: with one step.
        for (tables, tolerance) in [("", 1e-12), (".f32", 2e-5)] {
            let Some(mut reference) = expected(&format!("euler{tables}")) else {
                continue;
            };
            reference.truncate(n_steps);
            check_values(
                &format!("times{tables}, {name}"),
                &times,
                &reference,
                tolerance,
            );
            let mut reference = expected(&format!("sigmas{tables}")).unwrap();
            reference.truncate(n_steps);
            check_values(
                &format!("sigmas{tables}, {name}"),
                &sigmas,
                &reference,
                tolerance,
            );
            let reference = expected(&format!("init_noise_sigma{tables}")).unwrap();
            let scale = [euler.init_noise_sigma()];
            check_values(
                &format!("init{tables}, {name}"),
                &scale,
                &reference,
                tolerance,
            );
        }
    }
}

/// Each step of a case on its own: `[steps, batch, channels, height, width]`.
fn each_step(sampler: &dyn Sampler, golden: &BTreeMap<String, Tensor>) -> Tensor {
    let steps = (0..sampler.n_steps()).map(|step| {
        let row = |name: &str| golden[name].get(step as i64);
        let at = vec![step; row("x").size()[0] as usize];
        let next = sampler.transition(&at, &row("x"), &row("output")).unwrap();
        next.at(&row("noise")).unwrap()
    });
    Tensor::stack(&steps.collect::<Vec<_>>(), 0)
}

// Generator: tests/golden/schedulers.py.
#[test]
fn ddim_steps_of_every_prediction_are_those_of_diffusers() {
    let (golden, about) = (tensors("steps"), json("steps"));
    let cases = about.as_array().unwrap().iter();
    for case in cases.filter(|case| case["scheduler"] == "ddim") {
        let name = case["name"].as_str().unwrap();
        let timesteps = numbers(&case["timesteps"]);
        let (n_steps, eta) = (timesteps.len(), case["eta"].as_f64().unwrap());
        let ddim = Ddim::new(&config(&case["config"]), n_steps, eta).unwrap();
        let visited: Vec<f64> = ddim.training_timesteps().map(|t| t as f64).collect();
        assert_eq!(visited, timesteps, "{name}");
        let (a, b): (Vec<f64>, Vec<f64>) = (0..n_steps).map(|step| ddim.mean_weights(step)).unzip();
        let std: Vec<f64> = (0..n_steps).map(|step| ddim.std(step)).collect();
        for (what, actual) in [("weight_x_t", a), ("weight_output", b), ("std", std)] {
            let expected = numbers(&case[what]);
            check_values(&format!("{what}, {name}"), &actual, &expected, 1e-12);
        }
        let prev = each_step(&ddim, &golden);
        // Coefficients rounded to f32 once, then three products and two sums.
        let expected = &golden[&format!("{name}.prev")];
        check(&format!("prev, {name}"), &prev, expected, 3e-7);
        // f32 tables: 1 − ᾱ at timestep 1 has four digits, and prediction `sample` divides by its root.
        let expected = &golden[&format!("{name}.prev.f32")];
        check(&format!("prev.f32, {name}"), &prev, expected, 5e-5);
    }
}

/// `toy` of tests/golden/schedulers.py.
struct Toy;

impl Denoiser for Toy {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        let wave = (input.t.to_kind(Kind::Float) / 100.0).cos() * 0.3;
        Ok((input.x_t * 0.7).tanh() + wave.view([-1, 1, 1, 1]))
    }
}

// Generator: tests/golden/schedulers.py.
#[test]
fn euler_ancestral_steps_and_trajectories_are_those_of_diffusers() {
    let (golden, about) = (tensors("steps"), json("steps"));
    let cases = about.as_array().unwrap().iter();
    for case in cases.filter(|case| case["scheduler"] == "euler_ancestral") {
        let name = case["name"].as_str().unwrap();
        let n_steps = golden["x"].size()[0] as usize;
        let euler = EulerAncestral::new(&config(&case["config"]), n_steps).unwrap();
        let inputs: Vec<Tensor> = (0..n_steps)
            .map(|step| euler.scale_model_input(&[step; 2], &golden["x"].get(step as i64)))
            .collect();
        let inputs = Tensor::stack(&inputs, 0);
        let prev = each_step(&euler, &golden);

        let noise = FixedNoise::new(KeyedNoise::new(Seeds::new(0), 0))
            .with_latents(&golden["x"].get(0))
            .with_noise(&golden["noise"]);
        let batch = LatentBatch {
            shape: &golden["x"].size()[2..],
            cond: &Conditioning::none(2, tch::Device::Cpu),
            sample_ids: &[0, 1],
            log_prob: None,
        };
        let mut latents = Vec::new();
        let x_0 = sample(&Toy, &euler, &batch, &noise, &mut |record| {
            if record.step == 0 {
                latents.push(record.x_t.shallow_clone());
            }
            latents.push(record.x_prev.shallow_clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(latents.last(), Some(&x_0));
        let latents = Tensor::stack(&latents, 0);
        // Against f64, and against the f32 tables that diffusers keeps.
        // There, a last ᾱ that was cut to 2⁻²⁴ is followed by one with five digits.
        for (tables, tolerance) in [("", 5e-7), (".f32", 5e-5)] {
            for (what, actual) in [("inputs", &inputs), ("prev", &prev), ("latents", &latents)] {
                let expected = &golden[&format!("{name}.{what}{tables}")];
                for step in 0..expected.size()[0] {
                    let (actual, expected) = (actual.get(step), expected.get(step));
                    let name = format!("{what}{tables}, {name}, {step}");
                    check(&name, &actual, &expected, tolerance);
                }
            }
        }
    }
}

// Generator: tests/golden/schedulers.py.
#[test]
fn the_forward_process_is_that_of_diffusers() {
    let golden = tensors("steps");
    let at: Vec<usize> = values(&golden["forward.at"])
        .into_iter()
        .map(|t| t as usize)
        .collect();
    let given = |what: &str| &golden[&format!("forward.{what}")];
    let (x, noise, output) = (given("x"), given("noise"), given("output"));
    for (name, rescale_betas_zero_snr) in [("sd", false), ("zero_snr", true)] {
        let schedule = |prediction_type| {
            NoiseSchedule::new(&ScheduleConfig {
                prediction_type,
                rescale_betas_zero_snr,
                ..ScheduleConfig::sd_v1_4()
            })
            .unwrap()
        };
        let made = schedule(Prediction::VPrediction);
        let mut all = vec![
            ("add_noise", made.q_sample(x, noise, &at)),
            ("get_velocity", made.velocity(x, noise, &at)),
            ("get_velocity", made.target(x, noise, &at)),
        ];
        for (what, prediction) in [
            ("x_0.epsilon", Prediction::Epsilon),
            ("x_0.v_prediction", Prediction::VPrediction),
            ("x_0.sample", Prediction::Sample),
        ] {
            if golden.contains_key(&format!("forward.{name}.{what}")) {
                all.push((what, schedule(prediction).predict_x0(x, output, &at)));
            }
        }
        for (what, actual) in all {
            let actual = actual.unwrap();
            // √(1 − ᾱ) of f32 tables has five digits at timestep 0, but is small there.
            for (tables, tolerance) in [("", 2e-7), (".f32", 1e-6)] {
                let what = format!("{name}.{what}{tables}");
                check(&what, &actual, given(&what), tolerance);
            }
        }
    }
}
