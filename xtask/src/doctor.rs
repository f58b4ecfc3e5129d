//! `cargo xtask doctor`: what is there, what is missing, and what to do about it.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::python::{HOW_TO_INSTALL, Python};
use crate::{cmake, libtorch, setup, shell};

/// Free disk space, in GB, for set-up, a release build and some runs.
const DISK_GB: f64 = 4.0;

/// Prints the findings; succeeds if nothing that is needed is missing.
pub fn run() -> Result<ExitCode> {
    let mut checkup = Checkup { n_missing: 0 };
    checkup.line(
        "rust",
        first_line("rustc", "--version").ok_or_else(|| "rustc not found".into()),
    );
    checkup.line(
        "build tools",
        match setup::missing_build_tools() {
            Some(missing) => Err(missing),
            None => {
                Ok(first_line("c++", "--version").unwrap_or_else(|| "C++ compiler, make".into()))
            }
        },
    );
    let python = Python::find()
        .ok()
        .and_then(|python| shell::output(python.pip().arg("--version")).ok());
    let have_libtorch = libtorch::summary();
    checkup.line(
        "python",
        match python {
            Some(version) => Ok(short_pip(&version)),
            None if have_libtorch.is_ok() => {
                Ok("none; only set-up and golden files need it".into())
            }
            None => Err(HOW_TO_INSTALL.into()),
        },
    );
    checkup.line(
        "libtorch",
        have_libtorch.map_err(|error| format!("{error:#}")),
    );
    let cmake = cmake::summary();
    checkup.line(
        "cmake",
        if cmake.contains("missing") {
            Err(cmake)
        } else {
            Ok(cmake)
        },
    );
    checkup.line("model", model());
    checkup.line(
        "cores",
        Ok(std::thread::available_parallelism()
            .map_or_else(|_| "unknown".into(), |n| n.to_string())),
    );
    checkup.line(
        "memory",
        Ok(memory_gb().map_or("unknown".into(), |gb| format!("{gb:.1} GB"))),
    );
    checkup.line("disk", disk());
    checkup.line("cuda", Ok(cuda()));
    Ok(checkup.exit_code())
}

struct Checkup {
    n_missing: usize,
}

impl Checkup {
    fn line(&mut self, what: &str, found: Result<String, String>) {
        let (mark, text) = match found {
            Ok(text) => ("ok", text),
            Err(text) => {
                self.n_missing += 1;
                ("MISSING", text)
            }
        };
        println!("{what:<12} {mark:<8} {text}");
    }

    fn exit_code(&self) -> ExitCode {
        if self.n_missing == 0 {
            println!("everything is there");
            return ExitCode::SUCCESS;
        }
        println!(
            "{} missing; `cargo xtask setup` fetches libtorch and cmake",
            self.n_missing
        );
        ExitCode::FAILURE
    }
}

fn first_line(program: &str, arg: &str) -> Option<String> {
    let text = shell::output(Command::new(program).arg(arg)).ok()?;
    text.lines().next().map(str::to_owned)
}

/// `pip 23.2.1 from /… (python 3.11)` without the path.
fn short_pip(text: &str) -> String {
    let version = text.split_whitespace().nth(1).unwrap_or("?");
    let python = text
        .rsplit_once('(')
        .map_or("?", |(_, python)| python.trim().trim_end_matches(')'));
    format!("{python}, pip {version}")
}

fn model() -> Result<String, String> {
    let folder = Path::new("crates/ddpo-pocket/assets/model");
    let index = shell::root().join(folder).join("model_index.json");
    if index.is_file() {
        Ok(format!("pocket, in {}", folder.display()))
    } else {
        Err(format!(
            "{} has no model_index.json: `cargo xtask pretrain pocket`",
            folder.display()
        ))
    }
}

fn memory_gb() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kb: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1e6)
}

fn disk() -> Result<String, String> {
    let free = shell::output(Command::new("df").args(["-Pk"]).arg(shell::root()))
        .ok()
        .and_then(|text| {
            text.lines()
                .nth(1)?
                .split_whitespace()
                .nth(3)?
                .parse::<f64>()
                .ok()
        });
    match free.map(|kb| kb / 1e6) {
        Some(gb) if gb < DISK_GB => Err(format!("{gb:.1} GB free, {DISK_GB} GB are needed")),
        Some(gb) => Ok(format!("{gb:.0} GB free")),
        None => Ok("unknown".into()),
    }
}

fn cuda() -> String {
    let query = [
        "--query-gpu=name,driver_version,memory.total",
        "--format=csv,noheader",
    ];
    match shell::output(Command::new("nvidia-smi").args(query)) {
        Ok(text) if !text.trim().is_empty() => {
            let gpus = text.trim().replace('\n', "; ");
            if libtorch::home().join("lib/libtorch_cuda.so").exists() {
                gpus
            } else {
                format!("{gpus}; libtorch here is for the CPU: `cargo xtask setup --cuda`")
            }
        }
        _ => "no NVIDIA driver; runs on the CPU".into(),
    }
}
