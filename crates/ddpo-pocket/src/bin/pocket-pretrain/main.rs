//! Trains the pocket model and its judges from nothing: `cargo xtask pretrain pocket`.

mod export;
mod judges;
mod measure;
mod scenes;
mod stages;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Trains the embedded pocket model, stage by stage; every stage goes on where it was stopped.
#[derive(Parser)]
#[command(
    after_help = "Example: pocket-pretrain --work runs/pocket --stage diffusion --samples 1000000"
)]
struct Args {
    /// Folder for checkpoints and results.
    #[arg(long)]
    work: PathBuf,
    /// Goes on from the model in this folder of assets instead of from nothing (where `--work` has no checkpoint).
    #[arg(long)]
    from: Option<PathBuf>,
    /// What to train; `all` trains everything in order.
    #[arg(long, value_enum, default_value = "all")]
    stage: Stage,
    /// Scenes to train on in all (a later call may raise it).
    #[arg(long)]
    samples: Option<u64>,
    /// Threads of libtorch; one process a core with one thread each is fastest on a laptop.
    #[arg(long, default_value_t = 1)]
    threads: i32,
    /// Where `export` writes the model; the crate's own assets, usually.
    #[arg(long)]
    assets: Option<PathBuf>,
    /// Guidance with which `measure` samples; that of the pocket experiments by default.
    #[arg(long, default_value_t = 3.0)]
    guidance: f64,
    /// Minutes between checkpoints.
    #[arg(long, default_value_t = 2.0)]
    checkpoint_minutes: f64,
}

/// A part of the training.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Set the VAE's encoder (seconds).
    Codec,
    /// Train the VAE's decoder.
    Decoder,
    /// Train UNet and text encoder.
    Diffusion,
    /// Train the judge that may serve as a reward.
    RewardJudge,
    /// Train the judge that only measures.
    HeldOutJudge,
    /// Draw a sheet of composed scenes of every kind into the work folder (not a part of `all`).
    Scenes,
    /// Assemble the assets from the averaged weights.
    Export,
    /// Measure the exported model with the held-out judge, and draw its sheet of samples.
    Measure,
    /// All of it, in order.
    All,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    tch::set_num_threads(args.threads);
    match stages::run(&args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::from(2)
        }
    }
}
