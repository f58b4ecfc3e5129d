//! `cargo xtask`: sets up libtorch, builds `ddpo` and starts it, and runs what CI runs.
//!
//! A fresh clone builds this crate first, so it does not link libtorch and has few dependencies.
//! There is one file per command; everything about diffusion models is in `ddpo`, which is only started from here.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

mod ci;
mod cmake;
mod ddpo;
mod doctor;
mod edges;
mod experiments;
mod golden;
mod libtorch;
mod modules;
mod python;
mod setup;
mod shell;
mod tidy;
mod wheels;

/// Exit code of bad arguments, shared with `ddpo`.
const BAD_ARGUMENTS: u8 = 2;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Sets up, builds, runs and checks ddpo",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetches libtorch 2.11.0 (and cmake if there is none); every other command does this first
    Setup {
        /// The full CUDA set instead of the CPU's libraries (about 5 GB)
        #[arg(long)]
        cuda: bool,
    },
    /// Runs an experiment of the paper and checks its claims; `reproduce list` names them
    Reproduce(Reproduce),
    /// Reports what is installed and what is missing
    Doctor,
    /// Runs everything that CI runs
    Test,
    /// Runs the benchmarks
    Bench {
        /// Passed to criterion; or lora-iteration DIR …, which measures the preset lora on a full-size model
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Regenerates the golden files with the pinned Python packages
    Golden {
        /// Compare with the committed files instead of replacing them
        #[arg(long)]
        check: bool,
    },
    /// Trains an embedded model: `pretrain pocket`
    Pretrain {
        /// Which model; `pocket` is the only one
        model: String,
        /// Passed to `pocket-pretrain`; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Rebuilds the artwork pack from its npm packages
    Artwork {
        /// Passed to `pocket-pack`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Checks the repository's rules that the compiler does not
    Tidy,
}

/// Arguments of `reproduce`, passed on to `ddpo reproduce`.
#[derive(Args)]
struct Reproduce {
    /// Name of an experiment, `list`, or `all`
    experiment: String,
    /// Preset: pocket (default), lora or paper
    #[arg(long)]
    preset: Option<String>,
    /// Algorithms or variants, separated by commas
    #[arg(long)]
    algorithms: Option<String>,
    /// Number of seeds per algorithm
    #[arg(long)]
    seeds: Option<u32>,
    /// Parallel runs; by default as many as the processor has cores for
    #[arg(long)]
    jobs: Option<u32>,
    /// Folder for the runs
    #[arg(long)]
    out: Option<String>,
    /// Overrides a key of the configuration, as `rl.lr=1e-4`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return shell::report_usage(&error),
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup { cuda } => {
            setup::ensure(if cuda {
                setup::Kind::Cuda
            } else {
                setup::Kind::Cpu
            })?;
            println!("ready: {}", setup::summary()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Reproduce(args) => experiments::reproduce(&args),
        Command::Doctor => doctor::run(),
        Command::Test => ci::run(),
        Command::Bench { args } => ci::bench(&args),
        Command::Golden { check } => golden::run(check),
        Command::Pretrain { model, args } if model == "pocket" => ddpo::pretrain_pocket(&args),
        Command::Pretrain { model, .. } => Ok(shell::usage(&format!(
            "unknown model `{model}`: only `pocket` can be pretrained"
        ))),
        Command::Artwork { args } => ddpo::pack_artwork(&args),
        Command::Tidy => tidy::run(),
    }
}
