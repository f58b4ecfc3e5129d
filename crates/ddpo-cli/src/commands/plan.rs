//! `ddpo plan`: what would be run, and nothing else.

use std::io::{ErrorKind, Write};

use crate::commands::args::PlanArgs;
use crate::config::{DdpoPlan, Entry, Method, Plan, Train};
use crate::config::{keys, resolved};
use crate::failure::{Exit, OrExit, Result};

use super::probe;

/// Prints the resolved configuration and the counts that follow from it.
pub fn print(args: &PlanArgs) -> Result<Exit> {
    let mut source = args.config.source();
    source.on_paper = !args.probe;
    let plan = Plan::load(&source)?;
    if args.keys {
        return print_all(&explained(&plan.entries));
    }
    let found = match args.probe {
        true => probe::run(&plan)?,
        false => probe::without_model(),
    };
    let mut text = resolved::render(&plan.entries) + "\n";
    for line in derived(&plan).into_iter().chain(found) {
        text += &format!("# {line}\n");
    }
    print_all(&text)
}

/// Prints a text; whoever reads it may have read enough.
fn print_all(text: &str) -> Result<Exit> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).or_exit(Exit::Other, "cannot print")
        }
        _ => Ok(Exit::Done),
    }
}

/// Every key with its value, what it is for, and what it may be.
fn explained(entries: &[Entry]) -> String {
    let one = |entry: &Entry| {
        let Entry { key, value, from } = entry;
        let about = keys::by_name(key).map_or_else(String::new, |key| {
            format!("    {}\n    {}\n", key.doc, key.kind.expected())
        });
        format!("{key} = {value}  # {from}\n{about}")
    };
    entries.iter().map(one).collect()
}

/// The arithmetic, in words.
fn derived(plan: &Plan) -> Vec<String> {
    let (samples, updates) = (
        plan.method.samples_per_epoch(),
        plan.method.updates_per_epoch(),
    );
    let (n_steps, scale) = match &plan.method {
        Method::Guidance(guidance) => (guidance.steps * guidance.repeats, guidance.guidance_scale),
        _ => (plan.sampler.n_steps, plan.sampler.guidance_scale),
    };
    let guided = |is: bool| {
        if is && scale != 1.0 { 2 } else { 1 }
    };
    let sampled = samples * n_steps * guided(true);
    let mut lines = vec![
        format!(
            "{samples} samples an epoch × {} epochs = {} reward queries",
            plan.run.epochs,
            samples as u64 * plan.run.epochs
        ),
        format!(
            "{samples} samples × {n_steps} steps × {} = {sampled} forward passes of one image an epoch in sampling",
            guided(true)
        ),
    ];
    if updates > 0 {
        lines.push(format!(
            "{updates} updates per epoch × {} epochs = {} updates",
            plan.run.epochs,
            updates as u64 * plan.run.epochs
        ));
    }
    let passes = guided(plan.method.train_guidance());
    let at_a_time = plan.rl.micro_batch;
    lines.push(match &plan.method {
        Method::Ddpo(_) => format!(
            "{samples} samples × {n_steps} steps = {} pairs to train on an epoch, {at_a_time} at a time, {passes} passes each",
            samples * n_steps
        ),
        Method::Rwr(rwr) => format!(
            "{updates} updates × {} samples = {} timesteps to train on an epoch, {at_a_time} at a time, {passes} passes each",
            rwr.batch,
            updates * rwr.batch
        ),
        Method::Guidance(guidance) => format!(
            "{} steps × {} repeats = {} gradients of the reward an image, {} at a time; nothing is trained",
            guidance.steps,
            guidance.repeats,
            guidance.steps * guidance.repeats,
            guidance.batch
        ),
    });
    if let Method::Ddpo(ddpo) = &plan.method {
        lines.extend(groups(ddpo));
    }
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

/// How samples of an epoch belong together, where they do.
fn groups(ddpo: &DdpoPlan) -> Option<String> {
    let (samples, together) = (ddpo.samples_per_epoch, ddpo.samples_per_prompt);
    let noise = match ddpo.shared_noise {
        true => "the same initial latent",
        false => "initial latents of their own",
    };
    (together > 1).then(|| {
        format!(
            "{samples} samples / {together} a prompt = {} prompts an epoch, from {noise}; baseline: {}",
            samples.div_ceil(together),
            ddpo.baseline.name()
        )
    })
}
