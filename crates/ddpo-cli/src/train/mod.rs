//! One training run, from a plan to a folder.

mod algorithm;
pub mod finished;
mod folder;
mod guidance;
mod manifest;
pub mod stop;
mod watch;

use std::path::Path;
use std::time::Instant;

use ddpo_sched::{Denoiser, Seeds};
use ddpo_train::{
    AdamW, Checkpoint, Checkpoints, ImageModel, Outcome, RewardWorker, StopFlag, TrainContext,
    TrainPlan,
};

use crate::config::{Method, Plan};
use crate::evaluate::{Evaluation, Panel};
use crate::failure::{Exit, Failure, Result};
use crate::models;
use crate::rewards;
use crate::screen::Screen;

pub use algorithm::{adamw, ddpo_config};
pub use watch::read_sheet;

use folder::RunFolder;
use manifest::Manifest;
use watch::{Console, ProgressImages, Tables, TensorBoard};

/// What somebody whose reward failed wants to know.
fn kept(resume: bool) -> &'static str {
    match resume {
        true => "the reward failed; what was sampled and scored is kept, the same command goes on",
        false => {
            "the reward failed; what was sampled and scored is kept, the same command with --resume goes on"
        }
    }
}

/// Where a run goes and how it was asked for.
#[derive(Debug)]
pub struct Job<'a> {
    /// Output folder.
    pub out: &'a Path,
    /// Go on from the last checkpoint, if there is one.
    pub resume: bool,
    /// Name of the preset.
    pub preset: &'a str,
    /// Asks the run to stop.
    pub stop: &'a StopFlag,
    /// Where it shows itself.
    pub screen: &'a Screen,
}

/// Trains until the plan is fulfilled or someone asks to stop.
///
/// Everything that can be wrong with configuration, weights and checkpoint is found before anything is written.
pub fn execute(plan: &Plan, job: &Job<'_>) -> Result<Outcome> {
    plan.use_threads();
    let mut model = models::of_plan(plan, None)?;
    let sampler = models::sampler(
        &model.schedule,
        plan.sampler.n_steps,
        (&plan.sampler).into(),
    )?;
    let guide = match &plan.method {
        Method::Guidance(numbers) => Some(guidance::of_plan(plan, numbers)?),
        _ => None,
    };
    let mut algorithm = algorithm::of_plan(plan, &*sampler, &model.schedule, guide.as_ref())?;
    let reference = reference(plan)?;
    let mut optimizer = AdamW::new(adamw(plan), model.policy.params())?;
    let copies = rewards::copies(&plan.reward, plan.sampler.batch)?;
    let reward_version = copies.first().map(|reward| reward.version());
    let rewards = RewardWorker::new(copies, plan.reward.retry())?;
    let panel = Panel::new(&plan.eval)?;

    let folder = RunFolder::open(job.out, plan, job.resume)?;
    let checkpoints =
        Checkpoints::open(folder.path.join("checkpoints"), plan.run.keep_checkpoints)?;
    let resume = if job.resume {
        latest(&checkpoints)?
    } else {
        None
    };
    let n_params = model.policy.params().numel();
    let mut manifest = Manifest::new(plan, job.preset, n_params, reward_version);
    manifest.write(&folder.path, "running")?;

    let seeds = Seeds::new(plan.run.seed);
    let title = format!(
        "{} {} seed {}",
        plan.experiment,
        plan.label(),
        plan.run.seed
    );
    let mut tables = Tables::new(
        &folder.path,
        rewards.parts(),
        plan.reward.kind.has_answers(),
    );
    let mut events = TensorBoard::new(&folder.path);
    let mut images = ProgressImages::new(&folder.path, &plan.progress, seeds);
    let mut console = Console::new(job.screen, title.clone(), plan.run.epochs);
    let batch = plan.sampler.batch;
    let progress = (title.as_str(), job.screen, console.bar());
    let mut evaluation = Evaluation::new(
        &folder.path,
        &plan.eval,
        panel,
        &rewards,
        seeds,
        batch,
        progress,
    );
    let prompts = plan.prompts.prompts();
    let images_of = ImageModel::new(&model.prompts, &model.images, &model.latent_shape)
        .with_encoder(&model.images);
    let mut context = TrainContext::new(
        model.policy.as_mut(),
        &mut optimizer,
        &*sampler,
        &rewards,
        prompts,
        images_of,
    )
    .with_seed(plan.run.seed)
    .with_device(plan.model.device)
    .with_reference(reference.as_deref())
    .with_stop(job.stop.clone())
    .with_observer(&mut tables)
    .with_observer(&mut events)
    .with_observer(&mut evaluation)
    .with_observer(&mut images)
    .with_observer(&mut console);
    if let Some(guide) = &guide {
        context = context.with_strategy(guide);
    }
    let length = TrainPlan {
        epochs: plan.run.epochs,
        checkpoint_every: plan.run.checkpoint_every,
        max_time: plan.run.max_time,
        checkpoints: Some(checkpoints),
        resume,
    };
    let begin = Instant::now();
    let outcome = ddpo_train::train(&mut *algorithm, &mut context, &length).map_err(|error| {
        let mut failed = Failure::from(error);
        if failed.exit == Exit::Reward {
            failed.error = failed.error.context(kept(job.resume));
        }
        failed
    });
    manifest.seconds += begin.elapsed().as_secs_f64();
    let status = match &outcome {
        Ok(Outcome::Done) => "done",
        Ok(Outcome::TimeUp { .. }) => "time up",
        Ok(Outcome::Interrupted { .. }) => "interrupted",
        Err(_) => "failed",
    };
    manifest.write(&folder.path, status)?;
    outcome
}

/// The reference policy, where the plan compares with it: the same weights once more.
fn reference(plan: &Plan) -> Result<Option<Box<dyn Denoiser>>> {
    let Method::Ddpo(ddpo) = &plan.method else {
        return Ok(None);
    };
    if ddpo.kl_weight == 0.0 {
        return Ok(None);
    }
    let model = models::untrained(plan)?;
    Ok(Some(model.policy))
}

/// The newest whole checkpoint; says which were passed over.
fn latest(checkpoints: &Checkpoints) -> Result<Option<Checkpoint>> {
    let found = checkpoints.latest()?;
    for damage in found.iter().flat_map(|checkpoint| &checkpoint.passed_over) {
        eprintln!("warning: {damage}; going on from an older one");
    }
    Ok(found)
}
