//! The stages: what each reads, does and writes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::Role;
use ddpo_pocket::pretrain::batch::compose;
use ddpo_pocket::pretrain::codec::PatchCodec;
use ddpo_pocket::pretrain::decoder::{DecoderPlan, DecoderTraining};
use ddpo_pocket::pretrain::diffusion::{DiffusionPlan, DiffusionTraining};
use ddpo_pocket::scene::{Composer, Mixture};
use ddpo_pocket::shape;
use ddpo_sched::{NoiseSchedule, ScheduleConfig};
use ddpo_torch::weights;
use tch::Tensor;

use crate::args::{Args, Stage};
use crate::files::{CODEC, existing};
use crate::log::Log;
use crate::{export, judges, measure, scenes};

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
    // Other scenes consist of the same drawings, only smaller.
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
