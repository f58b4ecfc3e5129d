//! `ddpo run`: one algorithm, one seed.

use std::path::{Path, PathBuf};

use ddpo_eval::table::Table;
use ddpo_train::Outcome;

use crate::commands::args::RunArgs;
use crate::config::Plan;
use crate::failure::{Exit, Result};
use crate::report;
use crate::screen::Screen;
use crate::train::stop;
use crate::train::{Job, execute};

/// Trains, then checks the claims that the configuration states about this algorithm.
pub fn run(args: &RunArgs) -> Result<Exit> {
    let source = args.config.source();
    let plan = Plan::load(&source)?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&plan));
    let screen = Screen::new();
    let job = Job {
        out: &out,
        resume: args.resume,
        preset: source.preset(),
        stop: &stop::flag()?,
        screen: &screen,
    };
    let outcome = execute(&plan, &job)?;
    match outcome {
        Outcome::Done => {}
        Outcome::TimeUp { epochs_done } => {
            eprintln!(
                "run.max_time is over after epoch {epochs_done}; `--resume` with a longer one goes on"
            );
            return Ok(Exit::Interrupted);
        }
        Outcome::Interrupted { .. } => {
            eprintln!("interrupted; `--resume` goes on from here");
            return Ok(Exit::Interrupted);
        }
    }
    let claims_met = finish(&out, &screen)?;
    // Claims are about the configuration as it stands in its file: with `--set` they are shown, no more.
    let as_written = source.set.is_empty();
    Ok(match claims_met || !as_written {
        true => Exit::Done,
        false => Exit::Claim,
    })
}

/// Report, figures and claims of a finished run; whether every claim is met.
pub fn finish(out: &Path, screen: &Screen) -> Result<bool> {
    let records = report::read(&[out.to_owned()])?;
    let claims = report::write(&records, out, &out.join("report.html"), "")?.claims;
    if !claims.verdicts.is_empty() {
        screen.line(&Table::of_verdicts(&claims.verdicts).for_terminal());
    }
    screen.line(&format!("report: {}", out.join("report.html").display()));
    Ok(claims.all_met())
}

fn default_out(plan: &Plan) -> PathBuf {
    Path::new("runs")
        .join(&plan.experiment)
        .join(plan.label())
        .join(format!("seed-{}", plan.run.seed))
}
