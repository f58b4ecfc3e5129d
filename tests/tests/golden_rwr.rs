//! The denoising loss, the encoder's posterior, DPOK's term and universal guidance against torch and diffusers 0.42.1.
//!
//! Files: tests/golden/rwr.py, dpok.py and universal_guidance.py, on the model of sd_tiny.py.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use ddpo_model::{Files, Lora, StableDiffusion, UnetPolicy};
use ddpo_rl::{DdpoConfig, Trajectories, replay_update};
use ddpo_rwr::Noised;
use ddpo_sched::{
    Ddim, Denoiser, Draw, Guided, LatentBatch, NoiseSchedule, NoiseSource, Objective, Universal,
    sample_repeating,
};
use ddpo_torch::weights::read_all;
use ddpo_train::{AdamW, AdamWConfig, Encoder, Images, Policy};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

const FORWARD: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;

fn golden(file: &str) -> PathBuf {
    ddpo_tests::root().join("tests/golden").join(file)
}

fn read(file: &str) -> Tensors {
    read_all(&golden(file)).unwrap()
}

fn model() -> StableDiffusion {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    let files = Files::Folder(golden("sd_tiny/model"));
    StableDiffusion::load(&files, Device::Cpu, Kind::Float).unwrap()
}

fn schedule(model: &StableDiffusion) -> NoiseSchedule {
    NoiseSchedule::new(&model.schedule).unwrap()
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

/// The numbers of a JSON file: one `"key": value` a line.
fn number(file: &str, key: &str) -> f64 {
    let text = std::fs::read_to_string(golden(file)).unwrap();
    let start = format!("\"{key}\": ");
    let mut lines = text.lines().map(str::trim);
    let value = lines.find_map(|line| line.strip_prefix(&start)).unwrap();
    value.trim_end_matches(',').parse().unwrap()
}

#[test]
fn images_are_encoded_to_the_posterior_of_diffusers() {
    let golden = read("rwr/posterior.safetensors");
    let bytes = golden["images"].flatten(0, -1).contiguous();
    let bytes = Vec::<u8>::try_from(&bytes).unwrap();
    let images = Images::from_bytes(2, 16, 16, bytes).unwrap();
    let found = model().images.encode(&images).unwrap();
    check("mean", &found.mean, &golden["mean"], FORWARD);
    check("std", &found.std, &golden["std"], FORWARD);
    let odd = Images::from_bytes(1, 6, 16, vec![0; 6 * 16 * 3]).unwrap();
    let refused = model().images.encode(&odd).unwrap_err().to_string();
    assert!(refused.contains("multiples of 4 pixels"), "{refused}");
}

/// Losses and gradients of a policy on the golden batch with these weights, in parts of `micro_batch`.
fn gradients(policy: &dyn Policy, weights: &Tensor, micro_batch: i64) -> (Tensor, Tensors) {
    let (given, schedule) = (read("rwr/batch.safetensors"), schedule(&model()));
    let timesteps = Vec::<i64>::try_from(&given["timesteps"]).unwrap();
    let weights = Vec::<f32>::try_from(weights).unwrap();
    let (n, mut losses) = (timesteps.len(), Vec::new());
    for first in (0..n as i64).step_by(micro_batch as usize) {
        let rows = |name: &str| given[name].narrow(0, first, micro_batch);
        let range = first as usize..(first + micro_batch) as usize;
        let timesteps: Vec<usize> = timesteps[range.clone()]
            .iter()
            .map(|&t| t as usize)
            .collect();
        let (x_0, eps, cond) = (rows("x_0"), rows("eps"), rows("cond"));
        let noised = Noised::new(
            &schedule,
            &x_0,
            &eps,
            &timesteps,
            cond.into(),
            &weights[range],
        );
        losses.extend(noised.unwrap().accumulate(policy, n).unwrap());
    }
    let grads = policy.params().grads().unwrap().into_iter();
    let grads = policy.params().names().iter().cloned().zip(grads);
    (Tensor::from_slice(&losses), grads.collect())
}

/// A gradient within 1e-6 of torch's, and within 1e-4 of its own largest entry: some are sums that nearly cancel.
#[track_caller]
fn check_gradients(which: &str, found: &Tensors) {
    let expected = read("rwr/grads.safetensors");
    let (mut worst, mut relative) = (0.0_f64, 0.0_f64);
    for (name, grad) in found {
        let expected = &expected[&format!("{which}.{name}")];
        relative = relative.max(check(name, grad, expected, GRADIENT));
        worst = worst.max((grad - expected).abs().max().double_value(&[]));
    }
    assert_eq!(found.len() * 4, expected.len());
    println!("{which}: gradients within {worst:.2e}, relative {relative:.2e}");
    assert!(worst <= 1e-6, "{which}: {worst:.2e}");
}

#[test]
fn equal_weights_are_the_ordinary_denoising_loss() {
    let given = read("rwr/batch.safetensors");
    for micro_batch in [4, 1] {
        let policy = UnetPolicy::full(model().unet).unwrap();
        let ones = given["weights"].ones_like();
        let (losses, grads) = gradients(&policy, &ones, micro_batch);
        check("losses", &losses, &given["losses"], FORWARD);
        check_gradients("mean", &grads);
    }
}

#[test]
fn one_weight_and_no_other_is_that_samples_loss() {
    let weights = Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 0.0]);
    let policy = UnetPolicy::full(model().unet).unwrap();
    let (losses, grads) = gradients(&policy, &weights, 4);
    let of_sample = read("rwr/batch.safetensors")["losses"].double_value(&[2]);
    let expected = Tensor::from_slice(&[0.0, 0.0, of_sample, 0.0]);
    check("losses", &losses, &expected, FORWARD);
    check_gradients("single", &grads);
}

#[test]
fn softmax_weights_and_guidance_have_the_gradients_of_torch() {
    let given = read("rwr/batch.safetensors");
    let policy = UnetPolicy::full(model().unet).unwrap();
    let (losses, grads) = gradients(&policy, &given["weights"], 2);
    check(
        "losses",
        &losses,
        &(&given["losses"] * &given["weights"]),
        FORWARD,
    );
    check_gradients("softmax", &grads);

    let policy = UnetPolicy::full(model().unet).unwrap();
    let guided = Guided::new(policy, given["uncond"].shallow_clone(), 5.0);
    let (losses, grads) = gradients(&guided, &given["weights"].ones_like(), 4);
    check("losses", &losses, &given["losses.guided"], FORWARD);
    check_gradients("guided", &grads);
}

#[test]
fn staying_near_the_pretrained_policy_has_the_gradients_of_torch() {
    let rolled = read("sd_tiny/rollout.safetensors");
    let guided = |policy| {
        let uncond = rolled["negative_embeds"].narrow(0, 0, 1);
        Guided::new(policy, uncond, 5.0)
    };
    let mut whole = model();
    let lora = golden("dpok/lora/pytorch_lora_weights.safetensors");
    let lora = Lora::open(&mut whole.unet.net, &lora).unwrap();
    let policy = guided(UnetPolicy::with_lora(whole.unet, lora));
    let pretrained = guided(UnetPolicy::frozen(model().unet).unwrap());
    let rollout = Trajectories::new(
        vec![0, 1, 2],
        rolled["latents"].shallow_clone(),
        rolled["log_probs"].shallow_clone(),
        rolled["prompt_embeds"].shallow_clone(),
    );
    let mut optimizer = AdamW::new(AdamWConfig::default(), policy.params()).unwrap();
    let config = DdpoConfig {
        kl_weight: number("dpok/numbers.json", "kl_weight"),
        micro_batch: 8,
        ..DdpoConfig::importance_sampling()
    };
    let replayed = replay_update(
        &policy,
        Some(&pretrained as &dyn Denoiser),
        &mut optimizer,
        &Ddim::new(&whole.schedule, 10, 1.0).unwrap(),
        &rollout.unwrap(),
        &Vec::<f32>::try_from(&rolled["advantages"]).unwrap(),
        &config,
    )
    .unwrap();
    for (metric, key) in [("policy/loss", "loss"), ("policy/kl_pretrained", "kl")] {
        let (found, expected) = (
            replayed.report.get(metric).unwrap(),
            number("dpok/numbers.json", key),
        );
        let relative = ((found - expected) / expected).abs();
        assert!(relative < 1e-4, "{metric}: {found}, expected {expected}");
    }
    let expected = read("dpok/update.safetensors");
    assert_eq!(replayed.grads.len() + 1, expected.len());
    // Keys and queries of a small adapter get gradients of 1e-5, sums of terms a hundred times as large.
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    let all = expected.iter().filter(|(name, _)| *name != "kl");
    let scale = all.map(|(_, grad)| largest(grad)).fold(0.0, f64::max);
    let mut worst = 0.0_f64;
    for (name, grad) in &replayed.grads {
        let expected = &expected[&format!("grads.{name}")];
        check(name, grad, expected, 1e-3);
        worst = worst.max(largest(&(grad - expected)) / scale);
    }
    println!("gradients within {worst:.2e} of the largest, {scale:.2e}");
    // The bound of every DDPO gradient here: (x − μ) / σ loses digits in f32 at the last steps.
    assert!(worst <= GRADIENT, "{worst:.2e}");
}

/// The noise of `universal_guidance.py`; counts what is asked for.
struct Given {
    tensors: Tensors,
    asked: Cell<usize>,
}

impl NoiseSource for Given {
    fn normal(&self, ids: &[u64], draw: Draw, shape: &[i64]) -> ddpo_sched::Result<Tensor> {
        self.asked.set(self.asked.get() + 1);
        let of = |name: &str, step: usize, repeat: usize| {
            self.tensors[name].get(step as i64).get(repeat as i64)
        };
        let found = match draw {
            Draw::Initial => self.tensors["initial"].shallow_clone(),
            Draw::Step(step) => of("noise", step, 2),
            Draw::Repeat { step, repeat } => of("noise", step, repeat),
            Draw::Renoise { step, repeat } => of("renoise", step, repeat),
        };
        assert_eq!(
            (found.size()[0], &found.size()[1..]),
            (ids.len() as i64, shape)
        );
        Ok(found)
    }
}

/// Latents after each step under universal guidance of this weight.
fn guided_by_a_image(weight: f64) -> Tensor {
    const TOLD: &str = "universal_guidance/numbers.json";
    let tensors = read("universal_guidance/trajectory.safetensors");
    let whole = model();
    let (vae, target) = (whole.images.vae, tensors["target"].shallow_clone());
    let objective: Objective = Box::new(move |x_0| {
        let distance = (vae.net.decode(x_0) - &target).square();
        Ok(-distance.flatten(1, -1).mean_dim(1, false, Kind::Float))
    });
    let schedule = NoiseSchedule::new(&whole.schedule).unwrap();
    let sampler = Ddim::new(
        &whole.schedule,
        number(TOLD, "n_steps") as usize,
        number(TOLD, "eta"),
    );
    let policy = UnetPolicy::frozen(whole.unet).unwrap();
    let cfg = number(TOLD, "guidance_scale");
    let inner = Guided::new(policy, tensors["uncond"].shallow_clone(), cfg);
    let net = Universal::new(inner, schedule, weight, objective);
    let cond = tensors["cond"].shallow_clone().into();
    let mut latents = vec![tensors["initial"].shallow_clone()];
    let batch = LatentBatch {
        shape: &[4, 8, 8],
        cond: &cond,
        sample_ids: &[0, 1],
        log_prob: None,
    };
    let repeats = number(TOLD, "repeats") as usize;
    let noise = Given {
        tensors,
        asked: Cell::new(0),
    };
    let x_0 = sample_repeating(
        &net,
        &sampler.unwrap(),
        &batch,
        &noise,
        repeats,
        &mut |record| {
            latents.push(record.x_prev.copy());
            Ok(())
        },
    );
    assert_eq!(x_0.unwrap(), *latents.last().unwrap());
    assert_eq!(
        noise.asked.get(),
        1 + 10 * (3 + 2),
        "initial, steps, ways back"
    );
    Tensor::stack(&latents, 0)
}

#[test]
fn universal_guidance_with_self_recurrence_is_that_of_the_reference() {
    let golden = read("universal_guidance/trajectory.safetensors");
    let weight = number("universal_guidance/numbers.json", "weight");
    let latents = guided_by_a_image(weight);
    let worst = check("latents", &latents, &golden["latents"], 1e-4);
    println!("guided latents: relative difference {worst:.2e}");
    let plain = guided_by_a_image(0.0).get(10);
    let worst = check("unguided", &plain, &golden["plain"], 1e-4);
    println!("unguided latents: relative difference {worst:.2e}");
    let moved = (plain - latents.get(10)).abs().max().double_value(&[]);
    assert!(moved > 0.1, "guidance moves the latents: {moved}");
}
