//! `ddpo reproduce`: every algorithm, every seed, one report, all claims.

use std::path::{Path, PathBuf};

use ddpo_eval::table::Table;
use ddpo_train::Outcome;

use crate::args::ReproduceArgs;
use crate::config::{Algorithm, Plan, Source};
use crate::failure::{Exit, Failure, Result};
use crate::run::finish;
use crate::suggest::nearest;
use crate::train::{Job, execute};
use crate::{report, stop};

/// Runs what is not done yet, then reports on all of it.
pub fn run(args: &ReproduceArgs) -> Result<Exit> {
    let source = args.config.source();
    let plan = Plan::load(&source)?;
    let algorithms = algorithms(args, &plan)?;
    let n_seeds = args.seeds.unwrap_or(plan.reproduce.seeds);
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(&plan.experiment));
    if let Some(paper) = &plan.stands_in_for {
        let reward = plan.reward.name();
        eprintln!(
            "{}: {reward} stands in for the paper's reward `{paper}`",
            plan.experiment
        );
    }
    // All plans are read before the first run starts: a bad key must not show up an hour later.
    let mut plans = Vec::new();
    for algorithm in &algorithms {
        for seed in plan.run.seed..plan.run.seed + n_seeds {
            plans.push(Plan::load(&Source {
                algorithm: Some((*algorithm).to_owned()),
                seed: Some(seed),
                ..source.clone()
            })?);
        }
    }
    let mut folders = Vec::new();
    for plan in &plans {
        let folder = out
            .join(plan.rl.algorithm.name())
            .join(format!("seed-{}", plan.run.seed));
        let job = Job {
            out: &folder,
            resume: true,
            preset: source.preset(),
            stop: &stop::flag()?,
        };
        let outcome = execute(plan, &job)?;
        finish(&folder)?;
        if outcome != Outcome::Done {
            eprintln!("interrupted; the same command goes on from here");
            return Ok(Exit::Interrupted);
        }
        folders.push(folder);
    }
    conclude(&folders, &out, &plan.experiment, args)
}

fn conclude(
    folders: &[PathBuf],
    out: &Path,
    experiment: &str,
    args: &ReproduceArgs,
) -> Result<Exit> {
    let records = report::read(folders)?;
    let file = out.join("report.html");
    let claims = report::write(&records, out, &file, &command(experiment, args))?;
    println!("{experiment}: {} runs", records.len());
    println!("{}", Table::of_verdicts(&claims.verdicts).for_terminal());
    println!("report: {}", file.display());
    Ok(if claims.all_met() {
        Exit::Done
    } else {
        Exit::Claim
    })
}

fn algorithms<'a>(args: &'a ReproduceArgs, plan: &'a Plan) -> Result<Vec<&'a str>> {
    let named = if args.algorithms.is_empty() {
        &plan.reproduce.algorithms
    } else {
        &args.algorithms
    };
    let known = Algorithm::NAMES.map(|(name, _)| name);
    for name in named {
        if !known.contains(&name.as_str()) {
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            return Err(Failure::config(format!(
                "algorithm `{name}` is not available: {hint}"
            )));
        }
    }
    Ok(named.iter().map(String::as_str).collect())
}

/// What to type to get this again.
fn command(experiment: &str, args: &ReproduceArgs) -> String {
    let mut command = format!("cargo xtask reproduce {experiment}");
    if let Some(preset) = &args.config.preset {
        command += &format!(" --preset {preset}");
    }
    if !args.algorithms.is_empty() {
        command += &format!(" --algorithms {}", args.algorithms.join(","));
    }
    if let Some(seeds) = args.seeds {
        command += &format!(" --seeds {seeds}");
    }
    for pair in &args.config.set {
        command += &format!(" --set {pair}");
    }
    command
}
