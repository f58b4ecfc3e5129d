//! Sampling and one update of Stable Diffusion against diffusers 0.42.1 and ddpo-pytorch's formulas, in f32.
//!
//! Files: tests/golden/sd_tiny.py. The program is held to the same files in `golden.rs`; here every number that
//! the libraries return is compared, without going through the program.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ddpo_model::{Files, StableDiffusion, UnetPolicy};
use ddpo_rl::{DdpoConfig, Replayed, Trajectories, replay_update};
use ddpo_sched::{
    Ddim, FixedNoise, Guided, KeyedNoise, LatentBatch, LogProb, Sampler, Seeds, sample,
};
use ddpo_torch::weights::read_all;
use ddpo_train::{AdamW, AdamWConfig, Policy};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

const FORWARD: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;
const GUIDANCE: f64 = 5.0;

fn golden(file: &str) -> PathBuf {
    ddpo_tests::root().join("tests/golden/sd_tiny").join(file)
}

fn read(file: &str) -> Tensors {
    read_all(&golden(file)).unwrap()
}

/// Largest difference relative to the largest expected value; returns it.
#[track_caller]
fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) -> f64 {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let (actual, expected) = (actual.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (actual - &expected).abs();
    let worst = difference.max().double_value(&[]);
    let relative = worst / expected.abs().max().double_value(&[]);
    let index = difference.argmax(None, false).int64_value(&[]);
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, largest {worst:.2e} at flat index {index}, allowed {tolerance:.0e}"
    );
    relative
}

/// The policy under guidance, its sampler, and prompts' embeddings.
fn guided(trace: &Tensors) -> (Guided<UnetPolicy>, Ddim) {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    let files = Files::Folder(golden("model"));
    let model = StableDiffusion::load(&files, Device::Cpu, Kind::Float).unwrap();
    let sampler = Ddim::new(&model.schedule, 10, 1.0).unwrap();
    let policy = UnetPolicy::full(model.unet).unwrap();
    let uncond = trace["negative_embeds"].shallow_clone();
    (Guided::new(policy, uncond, GUIDANCE), sampler)
}

#[test]
fn a_guided_trajectory_and_its_densities_are_those_of_diffusers() {
    let trace = read("trace.safetensors");
    let (policy, sampler) = guided(&trace);
    let noise = FixedNoise::new(KeyedNoise::new(Seeds::new(0), 0))
        .with_latents(&trace["latents"].get(0))
        .with_noise(&trace["noise"]);
    let batch = LatentBatch {
        shape: &[4, 8, 8],
        cond: &trace["prompt_embeds"].shallow_clone().into(),
        sample_ids: &[0, 1, 2],
        log_prob: Some(LogProb::Mean),
    };
    let (mut latents, mut log_probs) = (vec![trace["latents"].get(0)], Vec::new());
    let mut timesteps = Vec::new();
    let _x_0 = sample(&policy, &sampler, &batch, &noise, &mut |record| {
        latents.push(record.x_prev.copy());
        log_probs.extend(record.log_prob.map(Tensor::copy));
        timesteps.push(record.timestep as i64);
        Ok(())
    })
    .unwrap();
    assert_eq!(Tensor::from_slice(&timesteps), trace["timesteps"]);
    for (step, latent) in latents.iter().enumerate() {
        let expected = trace["latents"].get(step as i64);
        check(&format!("latents {step}"), latent, &expected, FORWARD);
    }
    let worst = check(
        "latents",
        &Tensor::stack(&latents, 0),
        &trace["latents"],
        FORWARD,
    );
    println!("latents: relative difference {worst:.2e}");
    let worst = check(
        "log_probs",
        &Tensor::stack(&log_probs, 0),
        &trace["log_probs"],
        FORWARD,
    );
    println!("log_probs: relative difference {worst:.2e}");
}

/// One update as the numbers in `update.json` say; the gradients and the weights after it.
fn replayed(micro_batch: usize) -> (Replayed, Tensors) {
    let rolled = read("rollout.safetensors");
    let (policy, sampler) = guided(&rolled);
    let rollout = Trajectories::new(
        vec![0, 1, 2],
        rolled["latents"].shallow_clone(),
        rolled["log_probs"].shallow_clone(),
        rolled["prompt_embeds"].shallow_clone(),
    );
    let adamw = AdamWConfig {
        lr: number("lr"),
        ..AdamWConfig::default()
    };
    let mut optimizer = AdamW::new(adamw, policy.params()).unwrap();
    let config = DdpoConfig {
        micro_batch,
        max_grad_norm: number("max_grad_norm"),
        ..DdpoConfig::importance_sampling()
    };
    let advantages = Vec::<f32>::try_from(&rolled["advantages"]).unwrap();
    sampler.require_stochastic().unwrap();
    let replayed = replay_update(
        &policy,
        None,
        &mut optimizer,
        &sampler,
        &rollout.unwrap(),
        &advantages,
        &config,
    );
    let weights = policy.params().iter();
    let weights = weights.map(|(name, tensor)| (name.to_owned(), tensor.detach()));
    (replayed.unwrap(), weights.collect())
}

/// The numbers of `update.json`: one `"key": value` a line.
fn number(key: &str) -> f64 {
    let text = std::fs::read_to_string(golden("update.json")).unwrap();
    let start = format!("\"{key}\": ");
    let mut lines = text.lines().map(str::trim);
    let value = lines.find_map(|line| line.strip_prefix(&start)).unwrap();
    value.trim_end_matches(',').parse().unwrap()
}

#[test]
fn an_update_has_every_gradient_and_weight_of_the_reference() {
    let expected = read("update.safetensors");
    // All thirty pairs at once, and in parts that mix steps.
    for micro_batch in [30, 8] {
        let (replayed, weights) = replayed(micro_batch);
        assert_eq!(2 * replayed.grads.len() + 1, expected.len());
        let (mut worst, mut worst_weight) = (0.0_f64, 0.0_f64);
        let (mut n_compared, mut n_weights) = (0, 0);
        for (name, gradient) in &replayed.grads {
            let of = &expected[&format!("grads.{name}")];
            worst = worst.max(check(name, gradient, of, GRADIENT));
            // AdamW's first step is lr·g / (|g| + 1e-8): where g is of that size, its rounding is the step.
            let steep = of.abs().ge(1e-6);
            n_compared += steep.sum(Kind::Int64).int64_value(&[]);
            n_weights += of.numel() as i64;
            let of = expected[&format!("weights.{name}")].masked_select(&steep);
            let weight = weights[name].masked_select(&steep);
            let name = format!("{name} after the step");
            worst_weight = worst_weight.max(check(&name, &weight, &of, FORWARD));
        }
        assert!(n_compared * 100 >= n_weights * 95);
        println!(
            "micro-batch {micro_batch}: gradients within {worst:.2e}, weights within {worst_weight:.2e}"
        );
        for (metric, key, tolerance) in [
            ("policy/loss", "loss", FORWARD),
            ("policy/grad_norm", "grad_norm", GRADIENT),
            ("policy/clip_fraction", "clip_fraction", FORWARD),
        ] {
            let (actual, expected) = (replayed.report.get(metric).unwrap(), number(key));
            let relative = ((actual - expected) / expected).abs();
            assert!(
                relative <= tolerance,
                "{metric}: {actual}, expected {expected}"
            );
        }
    }
}

#[test]
fn the_ratios_of_an_update_are_those_of_the_reference() {
    let ratios = &read("update.safetensors")["ratios"];
    let expected = (ratios - 1.0).abs().amax(1, false);
    let (replayed, _) = replayed(30);
    for (step, deviation) in replayed.ratio_deviation.iter().enumerate() {
        let expected = expected.double_value(&[step as i64]);
        // A twentieth of the clip range: at the last steps (x − mean) / std loses that much in f32.
        assert!(
            (deviation - expected).abs() <= 5e-6,
            "step {step}: {deviation:.3e}, expected {expected:.3e}"
        );
    }
}
