#![doc = include_str!("../README.md")]

use std::process::ExitCode;

use clap::Parser;

mod algorithm;
mod args;
mod config;
mod eval;
mod export;
mod failure;
mod finished;
mod folder;
mod guidance;
mod hub;
mod manifest;
mod model;
mod networks;
mod parallel;
mod plan;
mod probe;
mod record;
mod replay;
mod report;
mod reproduce;
mod rewards;
mod run;
mod sample;
mod score;
mod similarity;
mod stop;
mod suggest;
mod train;
mod watch;
mod weights;

use args::{Cli, Command};
use failure::{Exit, OrExit, Result};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::report(&error).into(),
    };
    ddpo_torch::load_cuda();
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

/// Success is an exit code too: a run may end well and its claim not be met.
fn run(command: Command) -> Result<Exit> {
    // libtorch allows it in convolutions; f32 is f32 unless a run's `model.tf32` says otherwise.
    ddpo_torch::set_tf32(false).or_exit(Exit::Other, "TF32 cannot be switched off")?;
    match command {
        Command::Plan(args) => plan::print(&args),
        Command::Run(args) => run::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Export(args) => export::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_a_plan_computes_f32_in_f32() {
        for command in [
            "sample --model pocket --prompt cat --dtype f8 --out nowhere",
            "score --reward none --images nowhere --out nowhere",
        ] {
            ddpo_torch::set_tf32(true).unwrap();
            let args = std::iter::once("ddpo").chain(command.split(' '));
            let cli = Cli::try_parse_from(args).unwrap();
            assert!(run(cli.command).is_err(), "nothing is to be done here");
            let off = ddpo_torch::Tf32 {
                products: false,
                convolutions: false,
            };
            assert_eq!(ddpo_torch::tf32().unwrap(), off);
        }
    }
}
