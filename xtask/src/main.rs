//! `cargo xtask`: sets up libtorch, builds `ddpo` and starts it, and runs what CI runs.
//!
//! This crate is what a fresh clone builds first, so it links no libtorch and keeps its dependencies few.
//! One file a command; whatever knows about diffusion models lives in `ddpo`, which is only started from here.

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
    /// Fetches libtorch 2.11.0 (and cmake where there is none); every other command does this first by itself
    Setup {
        /// The full CUDA set instead of the CPU's libraries (about 5 GB)
        #[arg(long)]
        cuda: bool,
    },
    /// Runs an experiment of the paper and checks its claims; `reproduce list` names them
    Reproduce(Reproduce),
    /// Says what is there and what is missing
    Doctor,
    /// Everything that CI runs
    Test,
    /// Runs the benchmarks
    Bench {
        /// Handed to criterion; or lora-iteration DIR …, which measures the preset lora on a model of full size
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
        /// Handed to `pocket-pretrain`; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Rebuilds the artwork pack from its npm packages
    Artwork {
        /// Handed to `pocket-pack`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Checks the rules of the repository that no compiler knows
    Tidy,
}

/// Arguments of `reproduce`, handed on to `ddpo reproduce`.
#[derive(Args)]
struct Reproduce {
    /// Name of an experiment, `list`, or `all`
    experiment: String,
    /// Preset: pocket (default), lora or paper
    #[arg(long)]
    preset: Option<String>,
    /// Algorithms, separated by commas
    #[arg(long)]
    algorithms: Option<String>,
    /// How many seeds to run of each algorithm
    #[arg(long)]
    seeds: Option<u32>,
    /// Runs at the same time; as many as the processor has cores for when not given
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
