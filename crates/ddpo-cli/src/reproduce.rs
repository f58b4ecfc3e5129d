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
use crate::watch::Screen;
use crate::{parallel, report, stop};

/// An experiment with all its runs planned.
struct Experiment {
    name: String,
    out: PathBuf,
    runs: Vec<Plan>,
}

/// Runs what is not done yet, then reports on all of it; the first exit code that is not success is the end's.
pub fn run(args: &ReproduceArgs) -> Result<Exit> {
    // All plans are read before the first run starts: a bad key must not show up an hour later.
    let experiments = args
        .configs
        .iter()
        .map(|file| plan(file, args))
        .collect::<Result<Vec<_>>>()?;
    let mut exit = Exit::Done;
    for experiment in &experiments {
        let ended = reproduce(experiment, args)?;
        if ended == Exit::Interrupted {
            return Ok(ended);
        }
        if exit == Exit::Done {
            exit = ended;
        }
    }
    Ok(exit)
}

fn source(file: &Path, args: &ReproduceArgs) -> Source {
    Source {
        file: Some(file.to_owned()),
        preset: args.preset.clone(),
        set: args.set.clone(),
        ..Source::default()
    }
}

fn plan(file: &Path, args: &ReproduceArgs) -> Result<Experiment> {
    let source = source(file, args);
    let plan = Plan::load(&source)?;
    let n_seeds = args.seeds.unwrap_or(plan.reproduce.seeds);
    let mut runs = Vec::new();
    for algorithm in algorithms(args, &plan)? {
        for seed in plan.run.seed..plan.run.seed + n_seeds {
            runs.push(Plan::load(&Source {
                arm: Some(algorithm.to_owned()),
                seed: Some(seed),
                ..source.clone()
            })?);
        }
    }
    let out = match &args.out {
        Some(out) if args.configs.len() > 1 => out.join(&plan.experiment),
        Some(out) => out.clone(),
        None => Path::new("runs").join(&plan.experiment),
    };
    let name = plan.experiment;
    Ok(Experiment { name, out, runs })
}

fn reproduce(experiment: &Experiment, args: &ReproduceArgs) -> Result<Exit> {
    let plans = &experiment.runs;
    if let Some((plan, paper)) = plans
        .iter()
        .find_map(|p| Some((p, p.stands_in_for.as_ref()?)))
    {
        let (name, reward) = (&experiment.name, plan.reward.name());
        eprintln!("{name}: {reward} stands in for the paper's reward `{paper}`");
    }
    let folders: Vec<PathBuf> = plans
        .iter()
        .map(|plan| {
            let arm = experiment.out.join(plan.label());
            arm.join(format!("seed-{}", plan.run.seed))
        })
        .collect();
    let source = source(Path::new(""), args);
    let n_epochs = plans.iter().map(|plan| plan.run.epochs).sum();
    let screen = match plans.len() {
        1 => Screen::new(),
        n => Screen::of_several(&experiment.name, n, n_epochs),
    };
    let stop = stop::flag()?;
    let jobs = args
        .jobs
        .map_or_else(|| parallel::jobs(plans), |jobs| jobs as usize);
    let outcome = parallel::run(jobs, plans.len(), &stop, &|at| {
        let job = Job {
            out: &folders[at],
            resume: true,
            preset: source.preset(),
            stop: &stop,
            screen: &screen,
        };
        let outcome = execute(&plans[at], &job)?;
        if outcome == Outcome::Done {
            finish(&folders[at], &screen)?;
        }
        Ok(outcome)
    })?;
    if !outcome {
        eprintln!("interrupted; the same command goes on from here");
        return Ok(Exit::Interrupted);
    }
    conclude(&folders, experiment, args)
}

fn conclude(folders: &[PathBuf], experiment: &Experiment, args: &ReproduceArgs) -> Result<Exit> {
    let Experiment { name, out, .. } = experiment;
    let records = report::read(folders)?;
    let file = out.join("report.html");
    let claims = report::write(&records, out, &file, &command(name, args))?;
    println!("{name}: {} runs", records.len());
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
    let algorithms = Algorithm::NAMES.iter().map(|(name, _)| *name);
    let arms = plan.reproduce.arms.iter().map(String::as_str);
    let known: Vec<&str> = arms.chain(algorithms).collect();
    for name in named {
        if !known.contains(&name.as_str()) {
            let hint = match nearest(name, known.iter().copied()) {
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
    if let Some(preset) = &args.preset {
        command += &format!(" --preset {preset}");
    }
    if !args.algorithms.is_empty() {
        command += &format!(" --algorithms {}", args.algorithms.join(","));
    }
    if let Some(seeds) = args.seeds {
        command += &format!(" --seeds {seeds}");
    }
    for pair in &args.set {
        command += &format!(" --set {pair}");
    }
    command
}
