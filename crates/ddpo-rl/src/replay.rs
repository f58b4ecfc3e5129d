//! One update from stored trajectories, as the algorithm would make it.

use ddpo_sched::{Denoiser, Sampler};
use ddpo_train::{Error, Fault, Metrics, Optimizer, Policy, Result};
use tch::{Device, Tensor};

use crate::{DdpoConfig, PolicyGradient, Trajectories, TransitionIndex};

/// What one update from a stored trajectories did.
#[derive(Debug)]
pub struct Replayed {
    /// The gradients before clipping, by parameter name, on the host.
    pub grads: Vec<(String, Tensor)>,
    /// Metrics, as of an epoch with this one update.
    pub report: Metrics,
    /// Largest |ratio − 1| of each step, noisiest first.
    pub ratio_deviation: Vec<f64>,
}

/// One update from stored trajectories, as the algorithm would make it: every step of every sample, mean over both,
/// clip, AdamW.
///
/// Advantages are clipped to the configuration's `advantage_clip`. Of the configuration's counts only
/// `micro_batch` is used. `reference` is needed where `kl_weight` is not 0.
///
/// # Shapes
/// - `advantages`: one per sample
///
/// # Errors
/// [`Error::Config`] if advantages and samples differ in number or the sampler has another number of steps;
/// [`Error::NonFinite`], with nothing changed.
pub fn replay_update(
    policy: &dyn Policy,
    reference: Option<&dyn Denoiser>,
    optimizer: &mut dyn Optimizer,
    sampler: &dyn Sampler,
    trajectories: &Trajectories,
    advantages: &[f32],
    config: &DdpoConfig,
) -> Result<Replayed> {
    sampler.require_stochastic()?;
    let (n, n_steps) = (trajectories.n_samples(), trajectories.n_steps());
    if advantages.len() != n {
        let expected = format!("must be one for each of {n} samples of the rollout");
        return Err(Error::config("advantages", advantages.len(), expected));
    }
    if sampler.n_steps() != n_steps {
        let expected = format!("must be {n_steps}, as many as the rollout has");
        return Err(Error::config("n_steps", sampler.n_steps(), expected));
    }
    let advantages: Vec<f32> = advantages
        .iter()
        .map(|&a| clip(f64::from(a), config.advantage_clip))
        .collect();
    let params = policy.params();
    let gradient = PolicyGradient {
        policy,
        reference,
        sampler,
        trajectories,
        advantages: &advantages,
        config,
    };
    let transitions: Vec<TransitionIndex> = (0..n_steps)
        .flat_map(|step| (0..n).map(move |row| TransitionIndex { row, step }))
        .collect();
    // Ends: a loss scale can be halved only so often.
    let mut stats = loop {
        params.zero_grad();
        let stats = gradient.accumulate(&transitions, &mut |_| Ok(()))?;
        match stats.fault {
            None => break stats,
            Some(Fault::Overflow(_)) => {}
            Some(Fault::NotFinite(detail)) => {
                params.zero_grad();
                let what = "loss";
                return Err(Error::NonFinite { what, detail });
            }
        }
    };
    let host = |t: Tensor| t.to_device(Device::Cpu).copy();
    let grads = params.names().iter().cloned();
    let grads = grads.zip(params.grads()?.into_iter().map(host)).collect();
    let norm = optimizer.step(params, config.max_grad_norm)?;
    if let Some(scale) = policy.loss_scale() {
        scale.stepped();
    }
    stats.meter.add("policy/grad_norm", norm.norm);
    stats.meter.add("policy/updates", 1.0);
    let mut report = Metrics::default();
    stats.meter.report(&mut report);
    Ok(Replayed {
        grads,
        report,
        ratio_deviation: stats.ratio_deviation,
    })
}

/// `value` within ± `limit`, in the f32 that losses are computed in.
pub(crate) fn clip(value: f64, limit: f64) -> f32 {
    value.clamp(-limit, limit) as f32
}
