#![doc = include_str!("../README.md")]

use std::process::ExitCode;

use clap::Parser;

mod commands;
mod config;
mod evaluate;
mod failure;
mod models;
mod notice;
mod output;
mod report;
mod rewards;
mod screen;
mod suggest;
mod train;

use commands::args::{self, Cli, Command};
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
    commands::run(command)
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
