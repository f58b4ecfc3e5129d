//! `ddpo eval`: a trained policy beside the one it began as, on the same prompts from the same noise.

use std::path::Path;

use ddpo_reward::prompts::PromptSet;
use ddpo_sched::Seeds;
use ddpo_train::{Boundary, ImageModel, Observer, PolicySampling, RewardWorker};

use crate::commands::args::EvalArgs;
use crate::config::{Method, Plan};
use crate::evaluate::{Evaluation, Panel, compare};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::models;
use crate::rewards;
use crate::screen::Screen;
use crate::suggest::nearest;
use crate::train::finished;

/// Draws, scores, writes `eval.csv` into a folder of its own, and prints both sides with an interval of the
/// difference.
pub fn run(args: &EvalArgs) -> Result<Exit> {
    let plan = finished::plan(&args.run, &overrides(args)?)?;
    if let Method::Guidance(_) = plan.method {
        return Err(Failure::config(format!(
            "{} trained nothing: both sides of universal guidance are in its own eval.csv",
            args.run.display()
        )));
    }
    let checkpoint = finished::checkpoint(&args.run, args.epoch)?;
    plan.use_threads();
    let mut model = models::of_plan(&plan, None)?;
    let sampler = models::sampler(
        &model.schedule,
        plan.sampler.n_steps,
        (&plan.sampler).into(),
    )?;
    let copies = rewards::copies(&plan.reward, plan.sampler.batch)?;
    let rewards = RewardWorker::new(copies, plan.reward.retry())?;
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
            state.nested("policy", model.policy.as_mut())?;
        }
        let boundary = Boundary {
            epochs_done: if tuned { checkpoint.epochs_done } else { 0 },
            reward_queries: match tuned {
                true => checkpoint.epochs_done * plan.method.samples_per_epoch() as u64,
                false => 0,
            },
            last: true,
            policy: model.policy.as_ref(),
            sampler: &*sampler,
            strategy: &PolicySampling,
            model: &ImageModel::new(&model.prompts, &model.images, &model.latent_shape),
            stop: None,
        };
        evaluation.at_boundary(&boundary)?;
    }
    drop(evaluation);
    compare(&out, &plan, checkpoint.epochs_done)?;
    Ok(Exit::Done)
}

/// `eval.sets` or `eval.file`, whichever was named; neither is refused by the name of the option that was typed.
fn prompts(named: &str) -> Result<String> {
    if PromptSet::by_name(named).is_some() {
        return Ok(format!("eval.sets=[\"{named}\"]"));
    }
    if Path::new(named).is_file() {
        return Ok(format!("eval.file={}", toml::Value::from(named)));
    }
    let known = PromptSet::ALL.map(PromptSet::name);
    let hint = match nearest(named, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("there are {}", known.join(", ")),
    };
    Err(Failure::config(format!(
        "--prompts {named}: no such prompt set, and no such file: {hint}"
    )))
}

/// What the command line changes of the run's own evaluation.
fn overrides(args: &EvalArgs) -> Result<Vec<String>> {
    let mut set = Vec::new();
    if let Some(prompts) = &args.prompts {
        set.push(self::prompts(prompts)?);
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
    Ok(set)
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.eval.sets.iter().map(|set| set.name()).collect()
}
