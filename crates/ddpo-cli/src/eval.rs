//! `ddpo eval`: a trained policy beside the one it began as, on the same prompts from the same noise.

use std::path::Path;

use ddpo_eval::evals::{EvalRow, Evaluation as Drawn, evaluations, measures, paired};
use ddpo_eval::stats::{Summary, bootstrap_mean, paired_difference};
use ddpo_eval::table::Table;
use ddpo_reward::prompts::PromptSet;
use ddpo_sched::{Ddim, Seeds};
use ddpo_train::{Boundary, Observer, RewardWorker};

use crate::args::EvalArgs;
use crate::config::{Method, Plan};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::suggest::nearest;
use crate::train::failure;
use crate::watch::{Evaluation, Panel, Screen};
use crate::{finished, model, rewards};

/// Draws, scores, writes `eval.csv` into a folder of its own, and prints both sides with an interval of the
/// difference.
pub fn run(args: &EvalArgs) -> Result<Exit> {
    check_prompts(args)?;
    let plan = finished::plan(&args.run, &overrides(args))?;
    if let Method::Guidance(_) = plan.method {
        return Err(Failure::config(format!(
            "{} trained nothing: both sides of universal guidance are in its own eval.csv",
            args.run.display()
        )));
    }
    let checkpoint = finished::checkpoint(&args.run, args.epoch)?;
    plan.use_threads();
    let mut model = model::of_plan(&plan, None)?;
    let sampler = Ddim::new(&model.schedule, plan.sampler.n_steps, plan.sampler.eta)
        .or_exit(Exit::Config, "the sampler cannot be made")?;
    let copies = rewards::copies(&plan.reward, plan.sampler.batch)?;
    let rewards = RewardWorker::new(copies, plan.reward.retry()).map_err(failure)?;
    let panel = Panel::new(&plan.eval)?;

    let name = names(&plan).join("+");
    let out = args.out.clone().unwrap_or_else(|| {
        let folder = format!("{name}-seed-{}", plan.run.seed);
        args.run.join("evaluations").join(folder)
    });
    std::fs::create_dir_all(&out)
        .or_exit(Exit::Config, format!("cannot write to {}", out.display()))?;
    let screen = Screen::new();
    let mut evaluation = Evaluation::new(
        &out,
        &plan.eval,
        panel,
        &rewards,
        Seeds::new(plan.run.seed),
        plan.sampler.batch,
        (plan.label(), &screen, screen.bar()),
    );
    for tuned in [false, true] {
        if tuned {
            let state = &checkpoint.state;
            state
                .nested("policy", model.policy.as_mut())
                .map_err(failure)?;
        }
        let boundary = Boundary {
            epochs_done: if tuned { checkpoint.epochs_done } else { 0 },
            reward_queries: match tuned {
                true => checkpoint.epochs_done * plan.method.samples_per_epoch() as u64,
                false => 0,
            },
            last: true,
            policy: model.policy.as_ref(),
            sampler: &sampler,
            conditioner: &model.prompts,
            decoder: &model.images,
            guide: None,
            stop: None,
            latent_shape: &model.latent_shape,
        };
        evaluation.at_boundary(&boundary).map_err(failure)?;
    }
    drop(evaluation);
    print(&out, &plan, checkpoint.epochs_done)?;
    Ok(Exit::Done)
}

/// A set that there is not is refused by the name of the option that was typed.
fn check_prompts(args: &EvalArgs) -> Result<()> {
    let Some(name) = &args.prompts else {
        return Ok(());
    };
    if PromptSet::by_name(name).is_some() {
        return Ok(());
    }
    let known = PromptSet::ALL.map(PromptSet::name);
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("there are {}", known.join(", ")),
    };
    Err(Failure::config(format!(
        "--prompts {name}: no such prompt set: {hint}"
    )))
}

/// What the command line changes of the run's own evaluation.
fn overrides(args: &EvalArgs) -> Vec<String> {
    let mut set = Vec::new();
    if let Some(prompts) = &args.prompts {
        set.push(format!("eval.sets=[\"{prompts}\"]"));
    }
    if let Some(samples) = args.samples {
        set.push(format!("eval.samples={samples}"));
    }
    if let Some(seed) = args.seed {
        set.push(format!("run.seed={seed}"));
    }
    if let Some(device) = &args.device {
        set.push(format!("model.device={device}"));
    }
    set
}

fn names(plan: &Plan) -> Vec<&'static str> {
    plan.eval.sets.iter().map(|set| set.name()).collect()
}

fn print(out: &Path, plan: &Plan, epochs: u64) -> Result<()> {
    let file = out.join("eval.csv");
    let rows =
        ddpo_eval::evals::read(&file).or_exit(Exit::Data, "the evaluation cannot be read")?;
    for name in names(plan) {
        let all = evaluations(&rows, name);
        let [before, .., after] = all.as_slice() else {
            continue;
        };
        println!(
            "{}, {name}: {} images before training and after epoch {epochs}, same prompts, same noise",
            plan.label(),
            before.rows.len()
        );
        println!(
            "{}",
            table(plan.reward.name(), &rows, before, after)?.for_terminal()
        );
    }
    println!("rows: {}", file.display());
    Ok(())
}

/// Means ± standard error, and the mean of the paired differences with a bootstrap interval.
fn table(reward: &str, rows: &[EvalRow], before: &Drawn<'_>, after: &Drawn<'_>) -> Result<Table> {
    let mut table = Table::new(["", "before", "after", "difference", "95 % interval"]);
    let panel = measures(rows).into_iter().map(|name| (name, Some(name)));
    for (label, measure) in std::iter::once((reward, None)).chain(panel) {
        let doing = format!("`{label}` cannot be compared");
        let (a, b) = paired(before, after, measure)
            .map_err(anyhow::Error::msg)
            .or_exit(Exit::Numerical, &doing)?;
        let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
        let of = |values: &[f64]| Summary::of(values).or_exit(Exit::Numerical, &doing);
        let between = paired_difference(&a, &b).or_exit(Exit::Numerical, &doing)?;
        let interval =
            bootstrap_mean(&differences, 0.95, RESAMPLES, 0).or_exit(Exit::Numerical, &doing)?;
        let shown = |s: &Summary| format!("{:.3} ± {:.3}", s.mean, s.standard_error);
        table = table.row([
            label.to_owned(),
            shown(&of(&a)?),
            shown(&of(&b)?),
            format!("{:+.3}", between.mean),
            format!("{:+.3} to {:+.3}", interval.low, interval.high),
        ]);
    }
    Ok(table)
}

/// Of the bootstrap: the ends of a 95 % interval are then steady to about a hundredth of its width.
const RESAMPLES: usize = 10_000;
