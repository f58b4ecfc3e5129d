//! `ddpo plan`: what would be run, and nothing else.

use crate::args::PlanArgs;
use crate::config::{Plan, Train};
use crate::failure::{Exit, Result};
use crate::folder;

/// Prints the resolved configuration and the counts that follow from it.
pub fn print(args: &PlanArgs) -> Result<Exit> {
    let plan = Plan::load(&args.config.source())?;
    print!("{}", folder::render(&plan.entries));
    println!();
    for line in derived(&plan) {
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
    ];
    if let Train::Lora { rank, alpha } = plan.policy.train {
        lines.push(format!("LoRA of rank {rank}, scaled by {alpha} / {rank}"));
    }
    if let Some(paper) = &plan.stands_in_for {
        lines.push(format!(
            "the reward stands in for the paper's reward `{paper}`"
        ));
    }
    lines
}
