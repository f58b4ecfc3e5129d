//! `ddpo replay`: one update from a stored rollout, so that an outsider can check a gradient.

use std::fs;
use std::path::Path;

use ddpo_rl::{Replayed, Trajectories, replay_update};
use ddpo_sched::Sampler;
use ddpo_torch::weights;
use ddpo_train::{AdamW, Policy};
use tch::{Device, Kind, Tensor};

use crate::commands::args::ReplayArgs;
use crate::config::{Method, Plan, Source};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::models;
use crate::train::{adamw, ddpo_config};

/// A trace with advantages, as far as an update needs it.
struct Stored {
    trajectories: Trajectories,
    timesteps: Vec<f64>,
    uncond: Tensor,
    advantages: Vec<f32>,
}

/// Takes the update; writes the gradients before clipping, the weights after it, and its metrics.
pub fn run(args: &ReplayArgs) -> Result<Exit> {
    let plan = Plan::load(&Source::replay(&args.model, &args.set))?;
    let Method::Ddpo(ddpo) = &plan.method else {
        return Err(Failure::config(format!(
            "`rl.algorithm` is \"{}\": a rollout is replayed by ddpo-is or ddpo-sf",
            plan.rl.algorithm.name()
        )));
    };
    let stored = read(&args.rollout, plan.model.device)?;
    let model = models::of_plan(&plan, Some(stored.uncond))?;
    let n_steps = stored.timesteps.len();
    let sampler = models::sampler(&model.schedule, n_steps, (&plan.sampler).into())?;
    same_timesteps(&*sampler, &stored.timesteps, &args.rollout)?;
    let policy = model.policy.as_ref();
    let mut optimizer = AdamW::new(adamw(&plan), policy.params())?;
    let replayed = replay_update(
        policy,
        None,
        &mut optimizer,
        &*sampler,
        &stored.trajectories,
        &stored.advantages,
        &ddpo_config(&plan, ddpo),
    )?;
    write(&args.out, policy, &replayed)?;
    println!(
        "one update, gradients and weights in {}",
        args.out.display()
    );
    Ok(Exit::Done)
}

fn read(path: &Path, device: Device) -> Result<Stored> {
    let shown = path.display();
    let mut tensors =
        weights::read_all(path).or_exit(Exit::Data, format!("cannot read {shown}"))?;
    let mut take = |name: &str, rank: usize| {
        let tensor = tensors
            .remove(name)
            .ok_or_else(|| Failure::new(Exit::Data, format!("{shown} has no tensor `{name}`")))?;
        if tensor.dim() != rank {
            let message = format!(
                "{shown}: `{name}` has shape {:?}, expected {rank} dimensions",
                tensor.size()
            );
            return Err(Failure::new(Exit::Data, message));
        }
        Ok(tensor)
    };
    let doing = || format!("{shown} is no rollout");
    let timesteps = Vec::<f64>::try_from(&take("timesteps", 1)?.to_kind(Kind::Double))
        .or_exit(Exit::Data, doing())?;
    let advantages = Vec::<f32>::try_from(&take("advantages", 1)?.to_kind(Kind::Float))
        .or_exit(Exit::Data, doing())?;
    let cond = take("prompt_embeds", 3)?.to_device(device);
    let uncond = take("negative_embeds", 3)?
        .narrow(0, 0, 1)
        .to_device(device);
    let sample_ids = (0..cond.size()[0] as u64).collect();
    let trajectories =
        Trajectories::new(sample_ids, take("latents", 5)?, take("log_probs", 2)?, cond).map_err(
            |error| Failure {
                exit: Exit::Data,
                ..Failure::from(error)
            },
        )?;
    Ok(Stored {
        trajectories,
        timesteps,
        uncond,
        advantages,
    })
}

fn same_timesteps(sampler: &dyn Sampler, stored: &[f64], path: &Path) -> Result<()> {
    let ours: Vec<f64> = (0..sampler.n_steps())
        .map(|step| sampler.timestep(step))
        .collect();
    match ours.iter().zip(stored).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(step) => Err(Failure::new(
            Exit::Data,
            format!(
                "{}: step {step} is at timestep {}, the model's schedule has {}",
                path.display(),
                stored[step],
                ours[step]
            ),
        )),
    }
}

fn write(folder: &Path, policy: &dyn Policy, replayed: &Replayed) -> Result<()> {
    let doing = || {
        format!(
            "cannot write to {}: choose another folder with --out",
            folder.display()
        )
    };
    fs::create_dir_all(folder).or_exit(Exit::Config, doing())?;
    let grads = replayed
        .grads
        .iter()
        .map(|(name, grad)| (name.as_str(), grad));
    weights::save(&folder.join("grads.safetensors"), grads).or_exit(Exit::Other, doing())?;
    let host: Vec<(&str, Tensor)> = policy
        .params()
        .iter()
        .map(|(name, tensor)| (name, tensor.detach().to_device(Device::Cpu)))
        .collect();
    let tensors = host.iter().map(|(name, tensor)| (*name, tensor));
    weights::save(&folder.join("weights.safetensors"), tensors).or_exit(Exit::Other, doing())?;
    let deviation = replayed.ratio_deviation.iter().copied().fold(0.0, f64::max);
    let mut table = csv::Writer::from_writer(Vec::new());
    let metrics = replayed
        .report
        .metrics
        .iter()
        .map(|(name, v)| (name.as_str(), *v));
    let metrics: Vec<(&str, f64)> = metrics
        .chain([("policy/ratio_deviation", deviation)])
        .collect();
    table
        .write_record(metrics.iter().map(|(name, _)| *name))
        .or_exit(Exit::Other, doing())?;
    table
        .write_record(metrics.iter().map(|(_, value)| value.to_string()))
        .or_exit(Exit::Other, doing())?;
    let bytes = table
        .into_inner()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    crate::output::write(
        &folder.join("metrics.csv"),
        &String::from_utf8_lossy(&bytes),
    )
}
