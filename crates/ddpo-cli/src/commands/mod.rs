//! What can be typed after `ddpo`: a file for each command.

pub mod args;
mod eval;
mod export;
mod init;
mod plan;
mod probe;
mod replay;
mod report;
mod reproduce;
mod run;
mod sample;
mod score;

use args::Command;

use crate::failure::{Exit, Result};

/// Does what was asked for.
pub fn run(command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(&args),
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
