//! Trains the pocket model and its judges from nothing: `cargo xtask pretrain pocket`.

mod args;
mod export;
mod files;
mod judges;
mod log;
mod measure;
mod scenes;
mod stages;

use args::Args;
use clap::Parser;

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
