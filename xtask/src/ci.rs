//! `cargo xtask test`: everything that CI runs, fastest checks first.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{ddpo, setup, shell, tidy};

/// Name in `cargo xtask bench` of the example that measures an iteration of the preset `lora`.
const ITERATION: &str = "lora-iteration";

/// Runs all checks up to the first that fails.
pub fn run() -> Result<ExitCode> {
    let started = Instant::now();
    step("fmt", &mut cargo(&["fmt", "--all", "--check"]))?;
    let problems = tidy::problems()?;
    if !problems.is_empty() {
        return tidy::run();
    }
    println!("tidy: clean");
    setup::ensure(setup::Kind::Cpu)?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step("clippy", &mut cargo(&clippy))?;
    for args in alone()? {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        step(&words.join(" "), &mut cargo(&words))?;
    }
    step(
        "doc",
        &mut cargo(&["doc", "--workspace", "--no-deps", "--quiet"]),
    )?;
    // One thread per test: the tests themselves run in parallel, and sums are the same on every machine.
    let mut test = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        test.env("OMP_NUM_THREADS", "1");
    }
    step("test", &mut test)?;
    outside()?;
    println!(
        "all checks passed in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// The programs in `tests/outside`: formatted, without warnings, and each does what it promises.
fn outside() -> Result<()> {
    const MANIFEST: &str = "tests/outside/Cargo.toml";
    let target = ddpo::target_folder()?;
    let cargo = |args: &[&str]| {
        let mut command = cargo(args);
        // Beside what the workspace has built: the two share their dependencies.
        command
            .args(["--manifest-path", MANIFEST])
            .env("CARGO_TARGET_DIR", &target);
        command
    };
    step("outside: fmt", cargo(&["fmt"]).args(["--", "--check"]))?;
    step(
        "outside: clippy",
        cargo(&["clippy", "--locked"]).args(["--", "-D", "warnings"]),
    )?;
    let programs = std::fs::read_dir(shell::root().join("tests/outside/src/bin"))?;
    let mut programs = programs
        .map(|entry| {
            Ok(entry?
                .path()
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned())
        })
        .collect::<Result<Vec<String>>>()?;
    programs.sort();
    for program in programs {
        let mut run = cargo(&["run", "--locked", "--quiet", "--bin", &program]);
        step(
            &format!("outside: {program}"),
            run.env("OMP_NUM_THREADS", "1"),
        )?;
    }
    Ok(())
}

/// `cargo bench` of the package that has the benchmarks, or the one measurement that needs a model of full size.
pub fn bench(args: &[String]) -> Result<ExitCode> {
    setup::ensure(setup::Kind::Cpu)?;
    if let Some((ITERATION, rest)) = args.split_first().map(|(a, b)| (a.as_str(), b)) {
        let example = ["--package", "ddpo-tests", "--example", "lora_iteration"];
        let mut command = cargo(&["run", "--release", "--quiet"]);
        return shell::become_command(command.args(example).arg("--").args(rest));
    }
    let mut command = cargo(&["bench", "--package", "ddpo-benches", "--"]);
    shell::become_command(command.args(args))
}

/// Each crate by itself, since a workspace build hides missing features that another crate enables.
fn alone() -> Result<Vec<Vec<String>>> {
    let metadata = ddpo::metadata()?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let mut steps = Vec::new();
    for package in packages {
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        let features = package["features"].as_object().context("no features")?;
        let mut variants = vec![None];
        if features.contains_key("default") {
            variants.push(Some("--no-default-features"));
        }
        if features.keys().any(|feature| feature != "default") {
            variants.push(Some("--all-features"));
        }
        for variant in variants {
            let words = ["check", "--quiet", "--package", name]
                .into_iter()
                .chain(variant);
            steps.push(words.map(str::to_owned).collect());
        }
    }
    Ok(steps)
}

fn cargo(args: &[&str]) -> Command {
    let mut command = shell::cargo();
    command.args(args);
    command
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    shell::check(command)?;
    println!("== {name}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
