//! `ddpo export`: what a run has learned, in the files that diffusers reads.

use std::fs;
use std::path::Path;

use ddpo_model::{LORA_FILE, Lora, StableDiffusion, lora};
use ddpo_train::{Checkpoint, ParamSet};
use tch::{Device, Kind, Tensor};

use crate::commands::args::{ExportArgs, ExportFormat};
use crate::config::{Plan, Train};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::models;
use crate::train::finished;

/// Writes the model as the run's last checkpoint has it, in f32.
pub fn run(args: &ExportArgs) -> Result<Exit> {
    let plan = finished::plan(&args.run, &[])?;
    fits(args, &plan)?;
    vacant(&args.out)?;
    let checkpoint = finished::checkpoint(&args.run, args.epoch)?;
    let whole = models::open(&plan.model.source, Device::Cpu, Kind::Float)?;
    match plan.policy.train {
        Train::Full => full(whole, &checkpoint, args)?,
        Train::Lora { .. } => low_rank(whole, &plan, &checkpoint, args)?,
    }
    println!(
        "after epoch {} ({}): {}",
        checkpoint.epochs_done,
        checkpoint.path.display(),
        how_to_load(args, &plan)
    );
    Ok(Exit::Done)
}

/// Refuses a format that the run has nothing for.
fn fits(args: &ExportArgs, plan: &Plan) -> Result<()> {
    let all = plan.policy.train == Train::Full;
    let name = match args.format {
        ExportFormat::Lora if all => "lora",
        ExportFormat::Merged if all => "merged",
        _ => return Ok(()),
    };
    Err(Failure::config(format!(
        "--format {name}: {} trained all weights and has no low-rank factors; use --format diffusers",
        args.run.display()
    )))
}

/// A folder that is not there, or is empty: what is exported must not mix with something else.
fn vacant(out: &Path) -> Result<()> {
    let shown = out.display();
    fs::create_dir_all(out).or_exit(Exit::Config, format!("cannot write to {shown}"))?;
    let mut listing = fs::read_dir(out).or_exit(Exit::Config, format!("cannot read {shown}"))?;
    match listing.next() {
        None => Ok(()),
        Some(_) => Err(Failure::config(format!(
            "{shown} is not empty: choose another folder with --out"
        ))),
    }
}

fn full(whole: StableDiffusion, checkpoint: &Checkpoint, args: &ExportArgs) -> Result<()> {
    let tensors = whole.unet.tensors.iter();
    restore(
        tensors.map(|(name, tensor)| (name.as_str(), tensor)),
        checkpoint,
    )?;
    save(&whole, &args.out)
}

fn low_rank(
    mut whole: StableDiffusion,
    plan: &Plan,
    checkpoint: &Checkpoint,
    args: &ExportArgs,
) -> Result<()> {
    let config = models::lora_config(&plan.policy);
    let factors = Lora::attach(&mut whole.unet.net, &config, plan.run.seed)
        .or_exit(Exit::Config, "the factors cannot be made")?;
    restore(factors.params().iter(), checkpoint)?;
    match args.format {
        ExportFormat::Lora => {}
        ExportFormat::Diffusers => save(&whole, &args.out)?,
        ExportFormat::Merged => {
            lora::merge(&mut whole.unet.net);
            return save(&whole, &args.out);
        }
    }
    let file = args.out.join(LORA_FILE);
    let doing = format!("cannot write {}", file.display());
    factors.save(&file).or_exit(Exit::Other, doing)
}

/// Copies what was learned over the tensors that a network shares.
fn restore<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    checkpoint: &Checkpoint,
) -> Result<()> {
    let shared = tensors.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
    let mut params = ParamSet::new(shared.collect())?;
    let state = &checkpoint.state;
    state.nested("policy", &mut params).map_err(Failure::from)
}

fn save(whole: &StableDiffusion, out: &Path) -> Result<()> {
    let doing = format!("cannot write to {}", out.display());
    whole.save(out, Kind::Float).or_exit(Exit::Other, doing)
}

/// Where it is, and the Python that reads it.
fn how_to_load(args: &ExportArgs, plan: &Plan) -> String {
    let out = args.out.display();
    match (args.format, &plan.policy.train) {
        (ExportFormat::Lora, _) => format!("{out}/{LORA_FILE}, for load_lora_weights(\"{out}\")"),
        (ExportFormat::Diffusers, Train::Lora { .. }) => format!(
            "{out}, for StableDiffusionPipeline.from_pretrained(\"{out}\"): the model as it was, and beside it \
             what was learned, for load_lora_weights(\"{out}\")"
        ),
        _ => format!("{out}, for StableDiffusionPipeline.from_pretrained(\"{out}\")"),
    }
}
