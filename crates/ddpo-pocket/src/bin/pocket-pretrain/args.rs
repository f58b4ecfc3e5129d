//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Trains the embedded pocket model, stage by stage; every stage resumes from its checkpoint.
#[derive(Parser)]
#[command(
    after_help = "Example: pocket-pretrain --work runs/pocket --stage diffusion --samples 1000000"
)]
pub struct Args {
    /// Folder for checkpoints and results.
    #[arg(long)]
    pub work: PathBuf,
    /// Starts from the model in this folder of assets instead of from random weights (unless `--work` has a checkpoint).
    #[arg(long)]
    pub from: Option<PathBuf>,
    /// What to train; `all` trains everything in order.
    #[arg(long, value_enum, default_value = "all")]
    pub stage: Stage,
    /// Scenes to train on in total (a later call may raise it).
    #[arg(long)]
    pub samples: Option<u64>,
    /// Threads of libtorch; one process per core with one thread each is fastest on a laptop.
    #[arg(long, default_value_t = 1)]
    pub threads: i32,
    /// Where `export` writes the model; usually the crate's own assets.
    #[arg(long)]
    pub assets: Option<PathBuf>,
    /// Guidance scale with which `measure` samples; by default that of the pocket experiments.
    #[arg(long, default_value_t = 3.0)]
    pub guidance: f64,
    /// Minutes between checkpoints.
    #[arg(long, default_value_t = 2.0)]
    pub checkpoint_minutes: f64,
}

/// A stage of the training.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Compute the VAE's encoder (seconds).
    Codec,
    /// Train the VAE's decoder.
    Decoder,
    /// Train the UNet and the text encoder.
    Diffusion,
    /// Train the judge that may serve as a reward.
    RewardJudge,
    /// Train the held-out judge.
    HeldOutJudge,
    /// Draw a sheet of composed scenes of every kind into the work folder (not part of `all`).
    Scenes,
    /// Assemble the assets from the averaged weights.
    Export,
    /// Evaluate the exported model with the held-out judge, and draw its sheet of samples.
    Measure,
    /// All stages, in order.
    All,
}
