//! `ddpo run`: one algorithm, one seed.

use std::path::{Path, PathBuf};

use ddpo_eval::table::Table;
use ddpo_train::Outcome;

use crate::args::RunArgs;
use crate::config::Plan;
use crate::failure::{Exit, Result};
use crate::train::{Job, execute};
use crate::{report, stop};

/// Trains, then checks the claims that the configuration states about this algorithm.
pub fn run(args: &RunArgs) -> Result<Exit> {
    let source = args.config.source();
    let plan = Plan::load(&source)?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&plan));
    let job = Job {
        out: &out,
        resume: args.resume,
        preset: source.preset(),
        stop: &stop::flag()?,
    };
    let outcome = execute(&plan, &job)?;
    let claims_met = finish(&out)?;
    Ok(match outcome {
        Outcome::Done if claims_met || !source.set.is_empty() => Exit::Done,
        // Claims are about the configuration as it stands in its file: with `--set` they are shown, no more.
        Outcome::Done => Exit::Claim,
        _ => Exit::Interrupted,
    })
}

/// Report, figures and claims of a run, as far as it went; whether every claim is met.
pub fn finish(out: &Path) -> Result<bool> {
    // A run that was stopped in its first epoch has nothing to show yet.
    if !out.join("metrics.csv").exists() {
        return Ok(false);
    }
    let records = report::read(&[out.to_owned()])?;
    let claims = report::write(&records, out, &out.join("report.html"), "")?;
    if !claims.verdicts.is_empty() {
        eprintln!("{}", Table::of_verdicts(&claims.verdicts).for_terminal());
    }
    eprintln!("report: {}", out.join("report.html").display());
    Ok(claims.all_met())
}

fn default_out(plan: &Plan) -> PathBuf {
    Path::new("runs")
        .join(&plan.experiment)
        .join(plan.rl.algorithm.name())
        .join(format!("seed-{}", plan.run.seed))
}
