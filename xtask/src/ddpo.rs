//! Building `ddpo` and starting it.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{setup, shell};

/// Builds `ddpo` in release mode and replaces this process by `ddpo SUBCOMMAND ARGS`.
pub fn start(subcommand: &str, args: &[String]) -> Result<ExitCode> {
    setup::ensure(setup::Kind::Cpu)?;
    shell::check(shell::cargo().args(["build", "--release", "--package", "ddpo-cli"]))?;
    let binary = target_folder()?.join("release/ddpo");
    let mut command = Command::new(binary);
    command
        .current_dir(shell::root())
        .arg(subcommand)
        .args(args);
    shell::become_command(&mut command)
}

/// Rebuilds the artwork pack from its npm packages.
pub fn pack_artwork(args: &[String]) -> Result<ExitCode> {
    pocket("pocket-pack", "pack-builder", args)
}

/// Trains the pocket model: by default in `runs/pretrain-pocket`, exported over the crate's own assets.
pub fn pretrain_pocket(args: &[String]) -> Result<ExitCode> {
    let mut args = args.to_vec();
    let defaults = [
        ("--work", "runs/pretrain-pocket"),
        ("--assets", "crates/ddpo-pocket/assets"),
    ];
    for (flag, value) in defaults {
        if !args.iter().any(|arg| arg.split('=').next() == Some(flag)) {
            args.extend([flag, value].map(str::to_owned));
        }
    }
    pocket("pocket-pretrain", "pretrain-bin", &args)
}

/// Builds and starts a binary of ddpo-pocket, which needs a feature of its own.
fn pocket(binary: &str, feature: &str, args: &[String]) -> Result<ExitCode> {
    setup::ensure(setup::Kind::Cpu)?;
    let mut command = shell::cargo();
    command.args(["run", "--release", "--package", "ddpo-pocket"]);
    command
        .args(["--features", feature, "--bin", binary, "--"])
        .args(args);
    shell::become_command(&mut command)
}

/// Cargo's target directory, from `cargo metadata`.
pub fn target_folder() -> Result<std::path::PathBuf> {
    let metadata = metadata()?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("cargo metadata has no target")?;
    Ok(folder.into())
}

/// `cargo metadata` of the workspace's own packages.
pub fn metadata() -> Result<Value> {
    let text = shell::output(shell::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}
