//! Sampling with low-rank branches added to the weights, against sampling with them beside. Model:
//! tests/golden/sd_tiny.py.

use std::path::Path;

use ddpo_model::{Files, LoraConfig, StableDiffusion, UnetPolicy};
use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, Guided, KeyedNoise, LatentBatch, LogProb, Sampler,
    Seeds, sample,
};
use ddpo_train::Policy;
use tch::{Device, Kind, Tensor};

/// What the presets allow in f32: a tenth of the clip range.
const RATIO_BOUND: f64 = 1e-5;

/// Numbers that look random and are the same everywhere.
fn wave(shape: &[i64], seed: f64) -> Tensor {
    let n = shape.iter().product::<i64>();
    let x = Tensor::arange(n, (Kind::Double, Device::Cpu)) * 12.9898 + seed;
    let x = x.sin() * 43758.5453;
    let uniform = &x - x.floor();
    ((uniform - 0.5) * 3.4).to_kind(Kind::Float).view(shape)
}

/// The golden model under guidance, with factors that do something, and a sampler for it.
fn adapted() -> (Guided<UnetPolicy>, Ddim) {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd_tiny/model");
    let files = Files::Folder(folder);
    let model = StableDiffusion::load(&files, Device::Cpu, Kind::Float).unwrap();
    let config = LoraConfig {
        alpha: 3.0,
        ..LoraConfig::default()
    };
    let policy = UnetPolicy::lora(model.unet, &config, 3).unwrap();
    tch::no_grad(|| {
        for (i, factor) in policy.params().tensors().iter().enumerate() {
            let values = wave(&factor.size(), i as f64) * 0.3;
            factor.shallow_clone().copy_(&values);
        }
    });
    let sampler = Ddim::new(&model.schedule, 10, 1.0).unwrap();
    (Guided::new(policy, wave(&[1, 7, 24], 9.0), 5.0), sampler)
}

/// Every call computes everything, branches beside the weights.
struct Beside<'a>(&'a dyn Denoiser);

impl Denoiser for Beside<'_> {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.0.predict(input)
    }
}

fn cond() -> Conditioning {
    wave(&[3, 7, 24], 2.0).into()
}

/// Latents, noisiest first, and log-probabilities of all steps.
fn trajectory(net: &dyn Denoiser, sampler: &Ddim) -> (Vec<Tensor>, Vec<Tensor>) {
    let batch = LatentBatch {
        shape: &[4, 8, 8],
        cond: &cond(),
        sample_ids: &[0, 1, 2],
        log_prob: Some(LogProb::Mean),
    };
    let noise = KeyedNoise::new(Seeds::new(7), 0);
    let (mut latents, mut log_probs) = (Vec::new(), Vec::new());
    let _x_0 = sample(net, sampler, &batch, &noise, &mut |record| {
        if record.step == 0 {
            latents.push(record.x_t.copy());
        }
        latents.push(record.x_prev.copy());
        log_probs.extend(record.log_prob.map(Tensor::copy));
        Ok(())
    })
    .unwrap();
    (latents, log_probs)
}

/// Largest difference relative to the largest value.
fn distance(a: &[Tensor], b: &[Tensor]) -> f64 {
    let (a, b) = (Tensor::stack(a, 0), Tensor::stack(b, 0));
    ((a - &b).abs().max() / b.abs().max()).double_value(&[])
}

/// Every tensor of the UNet and of the adapter.
fn bits(guided: &Guided<UnetPolicy>) -> Vec<Tensor> {
    let weights = guided.inner.unet().tensors.values();
    let factors = guided.params().tensors().iter();
    weights.chain(factors).map(|t| t.detach().copy()).collect()
}

#[test]
fn merged_branches_sample_what_branches_beside_the_weights_do() {
    let (guided, sampler) = adapted();
    let before = bits(&guided);
    let (latents, log_probs) = trajectory(&guided, &sampler);
    assert_eq!(bits(&guided), before, "weights and factors, to the bit");
    let (expected, expected_log_probs) = trajectory(&Beside(&guided), &sampler);
    let off = distance(&latents, &expected);
    let log_off = distance(&log_probs, &expected_log_probs);
    println!("latents {off:.1e}, log-probabilities {log_off:.1e}");
    assert!(off > 0.0, "nothing was merged");
    assert!(off < 5e-6 && log_off < 1e-6, "{off:.1e}, {log_off:.1e}");

    // The adapter itself changes far more than that.
    tch::no_grad(|| {
        for factor in guided.params().tensors() {
            let _ = factor.shallow_clone().zero_();
        }
    });
    let (plain, _) = trajectory(&guided, &sampler);
    assert!(distance(&plain, &expected) > 1e-2);
}

/// A backward pass at one step of a trajectory; the log-probabilities that it saw.
fn replayed(
    guided: &Guided<UnetPolicy>,
    sampler: &Ddim,
    step: usize,
    [x_t, x_prev]: [&Tensor; 2],
) -> Tensor {
    let (at, cond) = ([step; 3], cond());
    let t = &Sampler::timesteps(sampler, &at).unwrap();
    let mut seen = None;
    let cond = &cond;
    guided
        .accumulate(DenoiseInput { x_t, t, cond }, &mut |eps| {
            let next = sampler.transition(&at, x_t, eps)?;
            let log_prob = next.log_prob(x_prev, LogProb::Mean)?;
            seen = Some(log_prob.detach().copy());
            Ok(log_prob.sum(Kind::Float))
        })
        .unwrap();
    seen.unwrap()
}

#[test]
fn the_ratio_of_a_replay_is_one_and_its_gradients_reach_the_factors() {
    let (guided, sampler) = adapted();
    let (latents, log_probs) = trajectory(&guided, &sampler);
    let mut worst = 0.0_f64;
    for (step, old) in log_probs.iter().enumerate() {
        let new = replayed(
            &guided,
            &sampler,
            step,
            [&latents[step], &latents[step + 1]],
        );
        let ratio = (new - old).exp();
        worst = worst.max((ratio - 1.0).abs().max().double_value(&[]));
    }
    println!("largest |ratio - 1|: {worst:.1e}");
    assert!(worst <= RATIO_BOUND, "{worst:.1e}");
    for grad in guided.params().grads().unwrap() {
        assert!(grad.abs().max().double_value(&[]) > 0.0);
    }
}

/// A rollout that is under way is nothing that training could see.
#[test]
fn training_beside_a_rollout_has_the_gradients_of_training_alone() {
    let (guided, sampler) = adapted();
    let (latents, _) = trajectory(&guided, &sampler);
    let gradients = || -> Vec<Tensor> {
        guided.params().zero_grad();
        let _ = replayed(&guided, &sampler, 4, [&latents[4], &latents[5]]);
        let grads = guided.params().grads().unwrap();
        grads.iter().map(Tensor::copy).collect()
    };
    let alone = gradients();
    let rollout = guided.conditioned(&cond()).unwrap();
    assert_eq!(gradients(), alone);
    let t = Tensor::from_slice(&[501_f32; 3]);
    let first = rollout(&latents[4], &t).unwrap();
    assert!(!first.requires_grad());
    assert_eq!(gradients(), alone);
    assert_eq!(rollout(&latents[4], &t).unwrap(), first);
}
