//! What each stage reads, does and writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ddpo_model::{Files, Named, StableDiffusion, Vae};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::Role;
use ddpo_pocket::pretrain::Progress;
use ddpo_pocket::pretrain::batch::compose;
use ddpo_pocket::pretrain::codec::PatchCodec;
use ddpo_pocket::pretrain::decoder::{DecoderPlan, DecoderTraining};
use ddpo_pocket::pretrain::diffusion::{DiffusionPlan, DiffusionTraining};
use ddpo_pocket::scene::{Composer, Mixture};
use ddpo_pocket::shape;
use ddpo_sched::{NoiseSchedule, ScheduleConfig};
use ddpo_torch::{Store, weights};
use tch::{Device, Kind, Tensor};

use crate::{Args, Stage, export, judges, measure, scenes};

/// The codec's file among the assets: training that goes on must keep the latents as they are.
pub const CODEC: &str = "pretrain/codec.safetensors";

/// Scenes that the codec's components are fitted to, and their seed.
const CODEC_SCENES: u64 = 4_000;
const CODEC_SEED: u64 = 100;

pub fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.work)
        .with_context(|| format!("cannot create {}", args.work.display()))?;
    const ORDER: [Stage; 7] = [
        Stage::Codec,
        Stage::Decoder,
        Stage::Diffusion,
        Stage::RewardJudge,
        Stage::HeldOutJudge,
        Stage::Export,
        Stage::Measure,
    ];
    one(args, args.stage, &ORDER)
}

fn one(args: &Args, stage: Stage, order: &[Stage]) -> Result<()> {
    match stage {
        Stage::All => order.iter().try_for_each(|&stage| one(args, stage, &[])),
        Stage::Codec => codec(args),
        Stage::Decoder => decoder(args),
        Stage::Diffusion => diffusion(args),
        Stage::RewardJudge => judges::train(args, Role::Reward),
        Stage::HeldOutJudge => judges::train(args, Role::HeldOut),
        Stage::Scenes => scenes::draw(args),
        Stage::Export => export::export(args),
        Stage::Measure => measure::measure(args),
    }
}

fn codec(args: &Args) -> Result<()> {
    let path = args.work.join("codec.safetensors");
    if path.exists() {
        eprintln!("codec: {} is there already", path.display());
        return Ok(());
    }
    if let Some(from) = &args.from {
        let shipped = from.join(CODEC);
        std::fs::copy(&shipped, &path)
            .with_context(|| format!("cannot copy {}", shipped.display()))?;
        eprintln!("codec: taken from {}", shipped.display());
        return Ok(());
    }
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::singles())?;
    let images = compose(&composer, CODEC_SEED, 0..CODEC_SCENES).images;
    let codec = PatchCodec::fit(&images, &shape::vae());
    codec.save(&path)?;
    let fresh = compose(&composer, CODEC_SEED + 1, 0..500).images;
    eprintln!(
        "codec: best linear reconstruction {:.2} dB",
        codec.linear_psnr(&fresh)
    );
    Ok(())
}

fn decoder(args: &Args) -> Result<()> {
    let pack = Pack::embedded()?;
    // What stands in other scenes is made of the same drawings, only smaller.
    let composer = Composer::new(&pack, Mixture::singles())?;
    let codec = PatchCodec::load(&args.work.join("codec.safetensors"))?;
    let mut plan = DecoderPlan::default();
    plan.samples = args.samples.unwrap_or(plan.samples);
    let path = args.work.join("decoder.safetensors");
    let mut training =
        DecoderTraining::new(plan, &composer, &codec, &shape::vae(), existing(&path))?;
    if let (None, Some(from)) = (existing(&path), &args.from) {
        let file = from.join("model/vae/diffusion_pytorch_model.safetensors");
        training.start_from(&weights::read_all(&file)?, &file)?;
    }
    let mut log = Log::new("decoder", args);
    training.run(&mut |training, progress| {
        if log.tick(progress) {
            training.save(&path)?;
            log.line(&format!("checkpoint; {:.2} dB", training.psnr(100)));
        }
        Ok(true)
    })?;
    training.save(&path)?;
    log.line(&format!("done; {:.2} dB", training.psnr(500)));
    Ok(())
}

fn diffusion(args: &Args) -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::default())?;
    let codec = PatchCodec::load(&args.work.join("codec.safetensors"))?;
    let tokenizer = ddpo_pocket::tokenizer()?;
    let schedule = NoiseSchedule::new(&ScheduleConfig::sd_v1_4())?;
    let mut plan = DiffusionPlan::default();
    plan.samples = args.samples.unwrap_or(plan.samples);
    let path = args.work.join("diffusion.safetensors");
    let mut training = DiffusionTraining::new(
        plan,
        &composer,
        &codec,
        &tokenizer,
        &schedule,
        existing(&path),
    )?;
    if let (None, Some(from)) = (existing(&path), &args.from) {
        training.start_from(&shipped_diffusion(from)?, from)?;
    }
    let mut log = Log::new("diffusion", args);
    training.run(&mut |training, progress| {
        if log.tick(progress) {
            training.save(&path)?;
            log.line("checkpoint");
        }
        Ok(true)
    })?;
    training.save(&path)?;
    Ok(())
}

/// UNet and text encoder of a folder of assets, under the names they have in training.
fn shipped_diffusion(from: &Path) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    for (part, file) in [
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ] {
        let path = from.join(format!("model/{part}/{file}.safetensors"));
        all.extend(
            weights::read_all(&path)?
                .into_iter()
                .map(|(name, tensor)| (format!("{part}.{name}"), tensor)),
        );
    }
    Ok(all)
}

/// The VAE as far as it is trained: the encoder that was set, and the averaged decoder; without these in the work
/// folder, that of the folder of assets which training goes on from.
pub fn trained_vae(args: &Args) -> Result<Named<Vae>> {
    let decoder = args.work.join("decoder.safetensors");
    if let (None, Some(from)) = (existing(&decoder), &args.from) {
        let folder = from.join("model");
        eprintln!("VAE: taken from {}", folder.display());
        let whole = StableDiffusion::load(&Files::Folder(folder), Device::Cpu, Kind::Float)?;
        return Ok(whole.images.vae);
    }
    let config = shape::vae();
    let store = Store::random(0, Device::Cpu, Kind::Float);
    let net = Vae::new(&store.root(), &config)?;
    let mut tensors = store.finish()?;
    average_of(&decoder, "", &tensors)?;
    PatchCodec::load(&args.work.join("codec.safetensors"))?.write(&mut tensors, &config);
    Ok(Named { net, tensors })
}

/// Copies the averaged weights of a checkpoint, whose names start with `part`, over tensors of a model;
/// returns how many there were.
pub fn average_of(
    checkpoint: &Path,
    part: &str,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<usize> {
    let file = weights::read_all(checkpoint)?;
    let _guard = tch::no_grad_guard();
    let prefix = format!("average/{part}");
    let ours = file
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
    let mut n = 0;
    for (name, tensor) in ours {
        n += 1;
        let target = tensors.get(name).with_context(|| {
            format!("{}: no tensor `{name}` in the model", checkpoint.display())
        })?;
        anyhow::ensure!(
            target.size() == tensor.size(),
            "{}: tensor `{name}` has shape {:?}, the model {:?}; delete the file and train again",
            checkpoint.display(),
            tensor.size(),
            target.size()
        );
        target.shallow_clone().copy_(tensor);
    }
    Ok(n)
}

pub fn existing(path: &Path) -> Option<&Path> {
    path.exists().then_some(path)
}

/// A line every few seconds: step, loss (averaged since the last line), rate and time to go.
pub struct Log {
    stage: &'static str,
    started: Instant,
    first_step: Option<u64>,
    shown: Instant,
    saved: Instant,
    every: Duration,
    losses: Vec<f64>,
}

impl Log {
    pub fn new(stage: &'static str, args: &Args) -> Self {
        let now = Instant::now();
        let every = Duration::from_secs_f64(60.0 * args.checkpoint_minutes);
        Self {
            stage,
            started: now,
            first_step: None,
            shown: now,
            saved: now,
            every,
            losses: Vec::new(),
        }
    }

    /// Whether a checkpoint is due.
    pub fn tick(&mut self, progress: Progress) -> bool {
        let first = *self.first_step.get_or_insert(progress.step - 1);
        self.losses.push(progress.loss);
        if self.shown.elapsed() > Duration::from_secs(20) {
            let rate = (progress.step - first) as f64 / self.started.elapsed().as_secs_f64();
            let left = (progress.total - progress.step) as f64 / rate;
            let loss = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
            self.line(&format!(
                "step {}/{}, loss {loss:.4}, lr {:.2e}, grad {:.2}, {:.1} scenes/s, {:.0} min left",
                progress.step,
                progress.total,
                progress.lr,
                progress.grad_norm,
                rate * progress.samples_per_step as f64,
                left / 60.0
            ));
            self.losses.clear();
            self.shown = Instant::now();
        }
        let due = self.saved.elapsed() > self.every;
        if due {
            self.saved = Instant::now();
        }
        due
    }

    pub fn line(&self, text: &str) {
        eprintln!("{}: {text}", self.stage);
    }
}
