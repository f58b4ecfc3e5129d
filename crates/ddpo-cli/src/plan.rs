//! `ddpo plan`: what would be run, and nothing else.

use crate::args::PlanArgs;
use crate::config::{Plan, Train};
use crate::failure::{Exit, Result};
use crate::{folder, probe};

/// Prints the resolved configuration and the counts that follow from it.
pub fn print(args: &PlanArgs) -> Result<Exit> {
    let mut source = args.config.source();
    source.on_paper = !args.probe;
    let plan = Plan::load(&source)?;
    print!("{}", folder::render(&plan.entries));
    println!();
    let found = match args.probe {
        true => probe::run(&plan)?,
        false => probe::without_model(),
    };
    for line in derived(&plan).into_iter().chain(found) {
        println!("# {line}");
    }
    Ok(Exit::Done)
}

/// The arithmetic, in words.
fn derived(plan: &Plan) -> Vec<String> {
    let (rl, sampler) = (&plan.rl, &plan.sampler);
    let minibatch = rl.samples_per_epoch / rl.updates_per_epoch;
    let guided = if sampler.guidance_scale == 1.0 { 1 } else { 2 };
    let mut lines = vec![
        format!(
            "{} samples an epoch × {} epochs = {} reward queries",
            rl.samples_per_epoch,
            plan.run.epochs,
            rl.samples_per_epoch as u64 * plan.run.epochs
        ),
        format!(
            "{} samples an epoch / {} updates = minibatches of {minibatch}",
            rl.samples_per_epoch, rl.updates_per_epoch
        ),
        format!(
            "{} samples × {} steps × {guided} = {} forward passes of one picture an epoch in sampling",
            rl.samples_per_epoch,
            sampler.n_steps,
            rl.samples_per_epoch * sampler.n_steps * guided
        ),
        format!(
            "{} updates an epoch × {} epochs = {} steps of the optimiser",
            rl.updates_per_epoch,
            plan.run.epochs,
            rl.updates_per_epoch as u64 * plan.run.epochs
        ),
        format!(
            "{} samples × {} steps = {} pairs to train on an epoch, {} at a time",
            rl.samples_per_epoch,
            sampler.n_steps,
            rl.samples_per_epoch * sampler.n_steps,
            rl.micro_batch
        ),
    ];
    if let Train::Lora {
        rank,
        alpha,
        targets,
    } = &plan.policy.train
    {
        let targets = targets.join(", ");
        lines.push(format!(
            "LoRA of rank {rank}, scaled by {alpha} / {rank}, beside {targets}"
        ));
    }
    if let Some(paper) = &plan.stands_in_for {
        lines.push(format!(
            "the reward stands in for the paper's reward `{paper}`"
        ));
    }
    lines
}
