//! LoRA of a Stable Diffusion, trained for files that compress well:
//! `cargo run -p ddpo-model --example sd_lora [-- MODEL [OUT]]`.
//!
//! MODEL is a folder in the diffusers layout; without one it is the repository's tiny model with random weights, which
//! runs in seconds and draws nothing. The adapter that is written to OUT is what
//! `StableDiffusionPipeline.load_lora_weights(OUT)` reads.

use std::error::Error;
use std::path::{Path, PathBuf};

use ddpo_model::{Files, LORA_FILE, Lora, LoraConfig, StableDiffusion, UnetPolicy};
use ddpo_reward::{JpegCompressibility, prompts::numbered};
use ddpo_rl::{Ddpo, DdpoConfig};
use ddpo_sched::{Ddim, Guided};
use ddpo_train::{
    AdamW, AdamWConfig, Event, ImageModel, Observer, Policy, Retry, RewardWorker, TrainContext,
    TrainPlan, train,
};
use tch::{Device, Kind};

const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/sd_tiny/model"
);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let model = Files::Folder(arguments.next().unwrap_or_else(|| TINY.into()));
    let out = arguments.next();
    let out = out.unwrap_or_else(|| std::env::temp_dir().join("sd_lora"));
    std::fs::create_dir_all(&out)?;

    let sd = StableDiffusion::load(&model, Device::Cpu, Kind::Float)?;
    // η = 1: every step draws from a normal distribution, and has a log-probability.
    let sampler = Ddim::new(&sd.schedule, 10, 1.0)?;
    let (latent_shape, uncond) = (sd.latent_shape(), sd.prompts.encode(&[""])?);
    let policy = UnetPolicy::lora(sd.unet, &LoraConfig::default(), 1)?;
    let mut policy = Guided::new(policy, uncond, 5.0);
    let mut adamw = AdamW::new(AdamWConfig::default(), policy.params())?;
    let rewards = RewardWorker::new(vec![Box::new(JpegCompressibility::new()?)], Retry::never())?;
    let prompts = numbered(["a cat", "a dog"]);
    let config = DdpoConfig {
        samples_per_epoch: 16,
        ..DdpoConfig::importance_sampling()
    };
    let mut ddpo = Ddpo::new(config, &sampler, 1)?;
    let around = ImageModel::new(&sd.prompts, &sd.images, &latent_shape);
    let mut shown = Shown;
    let mut ctx = TrainContext::new(
        &mut policy,
        &mut adamw,
        &sampler,
        &rewards,
        &prompts,
        around,
    )
    .with_observer(&mut shown);
    train(&mut ddpo, &mut ctx, &TrainPlan::epochs(1))?;
    drop(ctx);

    let adapter = policy.inner.adapter().ok_or("a policy with factors")?;
    adapter.save(&out.join(LORA_FILE))?;
    println!("adapter: {}", out.join(LORA_FILE).display());
    reads_back(&model, &out, adapter)
}

/// Prints what an epoch was worth.
struct Shown;

impl Observer for Shown {
    fn on(&mut self, event: &Event<'_>) -> ddpo_train::Result<()> {
        if let Event::EpochDone { report, .. } = event {
            for name in ["reward/mean", "policy/loss", "policy/clip_fraction"] {
                println!("{name}: {:.3e}", report.get(name).unwrap_or(f64::NAN));
            }
        }
        Ok(())
    }
}

/// The file attaches to a fresh model, with the factors that were trained: no longer those that change nothing.
fn reads_back(model: &Files, out: &Path, trained: &Lora) -> Result<(), Box<dyn Error>> {
    let mut fresh = StableDiffusion::load(model, Device::Cpu, Kind::Float)?;
    let read = Lora::open(&mut fresh.unet.net, out)?;
    let mut moved = false;
    for (name, factor) in trained.params().iter() {
        if read.params().get(name) != Some(factor) {
            return Err(format!("{name} is not what was trained").into());
        }
        moved |= name.ends_with("lora_B.weight") && factor.abs().max().double_value(&[]) > 0.0;
    }
    if !moved {
        return Err("every up factor is zero: nothing was learned".into());
    }
    println!(
        "{} factors read back as they were trained",
        read.params().len()
    );
    Ok(())
}
