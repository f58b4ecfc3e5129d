//! `ddpo reproduce`: every algorithm, every seed, one report, all claims.

use std::path::{Path, PathBuf};

use ddpo_train::Outcome;

use crate::commands::args::ReproduceArgs;
use crate::commands::run::finish;
use crate::config::resolved::refuse_another;
use crate::config::{Algorithm, Plan, Source};
use crate::failure::{Exit, Failure, Result};
use crate::screen::Screen;
use crate::suggest::instead;
use crate::train::stop;
use crate::train::{Job, execute};

mod ledger;
mod parallel;

use ledger::Ledger;

/// An experiment with all its runs planned.
struct Experiment {
    name: String,
    out: PathBuf,
    runs: Vec<Plan>,
    folders: Vec<PathBuf>,
}

/// Runs what is not done yet, then reports on all of it; the first exit code that is not success is the end's.
///
/// Runs of several experiments are one queue, so that no core waits for the last run of an experiment.
pub fn run(args: &ReproduceArgs) -> Result<Exit> {
    // All plans are read before the first run starts: a bad key must not show up an hour later.
    let experiments = args
        .configs
        .iter()
        .map(|file| plan(file, args))
        .collect::<Result<Vec<_>>>()?;
    refuse_others(&experiments)?;
    experiments.iter().for_each(Experiment::name_stand_ins);
    let queue: Vec<(usize, usize)> = (0..)
        .zip(&experiments)
        .flat_map(|(at, it)| (0..it.runs.len()).map(move |run| (at, run)))
        .collect();
    let plans: Vec<&Plan> = experiments.iter().flat_map(|it| &it.runs).collect();
    let n_epochs = plans.iter().map(|plan| plan.run.epochs).sum();
    let screen = match (&experiments[..], plans.len()) {
        (_, 1) => Screen::new(),
        ([one], n) => Screen::of_several(&one.name, n, n_epochs),
        (all, n) => Screen::of_several(&format!("{} experiments", all.len()), n, n_epochs),
    };
    let stop = stop::flag()?;
    let jobs = args
        .jobs
        .map_or_else(|| parallel::jobs(&plans), |jobs| jobs as usize);
    let preset = source(Path::new(""), args);
    let ledger = Ledger::new(&experiments, args);
    let all_done = parallel::run(jobs, queue.len(), &stop, &|at| {
        let (experiment, run) = queue[at];
        let Experiment { runs, folders, .. } = &experiments[experiment];
        let job = Job {
            out: &folders[run],
            resume: true,
            preset: preset.preset(),
            stop: &stop,
            screen: &screen,
        };
        let outcome = execute(&runs[run], &job)?;
        if outcome == Outcome::Done {
            finish(&folders[run], &screen)?;
            ledger.run_done(experiment, &screen)?;
        }
        Ok(outcome)
    })?;
    drop(screen);
    if !all_done {
        eprintln!("interrupted; the same command goes on from here");
        return Ok(Exit::Interrupted);
    }
    Ok(ledger.summary())
}

/// Refuses the folders that have other runs, all at once: one of them would stop the queue when its turn comes.
fn refuse_others(experiments: &[Experiment]) -> Result<()> {
    let folders = experiments
        .iter()
        .flat_map(|it| it.folders.iter().zip(&it.runs));
    let refused: Vec<Failure> = folders
        .filter_map(|(folder, plan)| refuse_another(folder, plan).err())
        .collect();
    let Some(exit) = refused.first().map(|failure| failure.exit) else {
        return Ok(());
    };
    let lines = refused.iter().map(Failure::to_string);
    Err(Failure::new(exit, lines.collect::<Vec<_>>().join("\n")))
}

impl Experiment {
    fn name_stand_ins(&self) {
        let mut named = Vec::new();
        for plan in &self.runs {
            let Some(paper) = &plan.stands_in_for else {
                continue;
            };
            let (name, reward) = (&self.name, plan.reward.name());
            let line = format!("{name}: {reward} stands in for the paper's reward `{paper}`");
            if !named.contains(&line) {
                eprintln!("{line}");
                named.push(line);
            }
        }
    }
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
                variant: Some(algorithm.to_owned()),
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
    let folder = |plan: &Plan| {
        let variant = out.join(plan.label());
        variant.join(format!("seed-{}", plan.run.seed))
    };
    Ok(Experiment {
        folders: runs.iter().map(folder).collect(),
        name: plan.experiment,
        out,
        runs,
    })
}

fn algorithms<'a>(args: &'a ReproduceArgs, plan: &'a Plan) -> Result<Vec<&'a str>> {
    let named = if args.algorithms.is_empty() {
        &plan.reproduce.algorithms
    } else {
        &args.algorithms
    };
    let algorithms = Algorithm::NAMES.iter().map(|(name, _)| *name);
    let variants = plan.reproduce.variants.iter().map(String::as_str);
    let known: Vec<&str> = variants.chain(algorithms).collect();
    for name in named {
        if !known.contains(&name.as_str()) {
            let hint = instead(name, &known);
            return Err(Failure::config(format!(
                "algorithm `{name}` is not available: {hint}"
            )));
        }
    }
    Ok(named.iter().map(String::as_str).collect())
}
