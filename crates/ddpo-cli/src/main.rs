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
use failure::{Exit, Result};

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
