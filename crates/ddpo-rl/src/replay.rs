//! The gradient of a rollout: each pair of sample and step is asked again, now with gradients.

use ddpo_sched::{Denoiser, Gaussian, Sampler};
use ddpo_train::{Error, Fault, Optimizer, Policy, Report, Result};
use tch::{Device, Kind, Tensor};

use crate::meter::Meter;
use crate::rollout::{Gathered, Item};
use crate::{DdpoConfig, Rollout};

/// Everything that the gradient of a minibatch is made of.
pub(crate) struct Replay<'a> {
    pub(crate) policy: &'a dyn Policy,
    /// The policy before training; asked only if the configuration weighs the divergence from it.
    pub(crate) reference: Option<&'a dyn Denoiser>,
    pub(crate) sampler: &'a dyn Sampler,
    pub(crate) rollout: &'a Rollout,
    /// One a row, clipped.
    pub(crate) advantages: &'a [f32],
    pub(crate) config: &'a DdpoConfig,
}

/// What accumulating found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) meter: Meter,
    /// Largest |ratio − 1| of each step.
    pub(crate) deviation: Vec<f64>,
    /// What was not finite and where.
    pub(crate) fault: Option<Fault>,
}

impl Replay<'_> {
    /// Adds the gradient of the mean loss over `items` to the parameters'.
    ///
    /// Pairs are taken in order, `micro_batch` at a time, samples and steps mixed as they come. Stops at the
    /// first loss that is not finite; the gradients are then incomplete.
    pub(crate) fn accumulate(
        &self,
        items: &[Item],
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Found> {
        let mut found = Found {
            deviation: vec![0.0; self.rollout.n_steps()],
            ..Found::default()
        };
        for chunk in items.chunks(self.config.micro_batch) {
            self.chunk(chunk, items.len(), &mut found)?;
            if found.fault.is_some() {
                break;
            }
            progress(chunk.len())?;
        }
        Ok(found)
    }

    fn chunk(&self, items: &[Item], n_total: usize, found: &mut Found) -> Result<()> {
        let pairs = self.rollout.gather(items, self.sampler)?;
        let device = pairs.x_t.device();
        let advantages: Vec<f32> = items.iter().map(|i| self.advantages[i.row]).collect();
        let advantages = Tensor::from_slice(&advantages).to_device(device);
        let old = pairs.log_probs.to_device(device);
        let (estimator, reduce) = (self.config.estimator, self.config.log_prob);
        let before = self.before(&pairs)?;
        let mut seen = None;
        let accumulated = self.policy.accumulate(pairs.input(), &mut |eps| {
            let step = pairs.steps(self.sampler, eps)?;
            let log_prob = step.log_prob(&pairs.x_prev, reduce)?;
            let surrogate = estimator.surrogate(&log_prob, &old, &advantages);
            let log_ratio = log_prob.detach() - &old;
            let mut rows = vec![surrogate.ratio, log_ratio];
            let loss = match &before {
                None => surrogate.loss,
                Some(before) => {
                    let kl = step.kl(before, reduce)?;
                    rows.push(kl.detach());
                    surrogate.loss + kl * self.config.kl_weight
                }
            };
            rows.insert(0, loss.detach());
            seen = Some(Tensor::stack(&rows, 0));
            Ok(loss.sum(Kind::Float) / n_total as f64)
        });
        match accumulated {
            Err(overflow @ Error::Overflow { .. }) => {
                found.fault = Some(Fault::Overflow(overflow.to_string()));
                return Ok(());
            }
            other => other?,
        }
        let Some(seen) = seen else {
            return Err(Error::model("the policy did not ask for its loss"));
        };
        self.note(items, &seen, found)
    }

    /// The steps of the policy before training, if the divergence from it is part of the loss.
    fn before(&self, pairs: &Gathered) -> Result<Option<Gaussian>> {
        if self.config.kl_weight == 0.0 {
            return Ok(None);
        }
        let Some(reference) = self.reference else {
            let expected = "needs the policy before training to compare with, and there is none";
            return Err(Error::config("kl_weight", self.config.kl_weight, expected));
        };
        let eps = tch::no_grad(|| reference.predict(pairs.input()))?;
        Ok(Some(pairs.steps(self.sampler, &eps)?))
    }

    /// Takes losses, ratios, log-ratios and, where measured, divergences, `[3 or 4, items]`, into account.
    fn note(&self, items: &[Item], seen: &Tensor, found: &mut Found) -> Result<()> {
        let seen = seen.to_device(Device::Cpu).to_kind(Kind::Double);
        let seen = Vec::<f64>::try_from(&seen.flatten(0, -1)).map_err(Error::model)?;
        let (losses, rest) = seen.split_at(items.len());
        let (ratios, rest) = rest.split_at(items.len());
        let (log_ratios, divergences) = rest.split_at(items.len());
        for (i, item) in items.iter().enumerate() {
            let (loss, ratio) = (losses[i], ratios[i]);
            if !(loss.is_finite() && ratio.is_finite()) {
                let id = self.rollout.sample_ids[item.row];
                let step = item.step;
                let text = format!("loss {loss}, ratio {ratio} at step {step} of sample {id}");
                found.fault = Some(Fault::NotFinite(text));
                return Ok(());
            }
            let clipped = self.config.estimator.clips(ratio);
            found.meter.add(loss, ratio, log_ratios[i], clipped);
            let deviation = &mut found.deviation[item.step];
            *deviation = deviation.max((ratio - 1.0).abs());
        }
        divergences.iter().for_each(|&kl| found.meter.add_kl(kl));
        Ok(())
    }
}

/// What one update from a stored rollout did.
#[derive(Debug)]
pub struct Replayed {
    /// The gradients before clipping, by parameter name, on the host.
    pub grads: Vec<(String, Tensor)>,
    /// Metrics, as of an epoch with this one update.
    pub report: Report,
    /// Largest |ratio − 1| of each step, noisiest first.
    pub ratio_deviation: Vec<f64>,
}

/// One step of the optimiser over a stored rollout, as the algorithm would take it: every step of every
/// sample, mean over both, clip, AdamW.
///
/// Advantages are clipped to the configuration's `advantage_clip`. Of the configuration's counts only
/// `micro_batch` is used.
///
/// # Shapes
/// - `advantages`: one per sample of the rollout
///
/// # Errors
/// [`Error::Config`] if advantages and samples differ in number or the sampler has another number of steps;
/// [`Error::NonFinite`], with nothing changed.
pub fn replay_update(
    policy: &dyn Policy,
    optimizer: &mut dyn Optimizer,
    sampler: &dyn Sampler,
    rollout: &Rollout,
    advantages: &[f32],
    config: &DdpoConfig,
) -> Result<Replayed> {
    replay_update_near(
        policy, None, optimizer, sampler, rollout, advantages, config,
    )
}

/// [`replay_update`] with the policy before training, from which `kl_weight` measures the divergence.
///
/// # Errors
/// As [`replay_update`].
pub fn replay_update_near(
    policy: &dyn Policy,
    reference: Option<&dyn Denoiser>,
    optimizer: &mut dyn Optimizer,
    sampler: &dyn Sampler,
    rollout: &Rollout,
    advantages: &[f32],
    config: &DdpoConfig,
) -> Result<Replayed> {
    sampler.require_stochastic()?;
    let (n, n_steps) = (rollout.n_samples(), rollout.n_steps());
    if advantages.len() != n {
        let expected = format!("must be one for each of {n} samples of the rollout");
        return Err(Error::config("advantages", advantages.len(), expected));
    }
    if sampler.steps().len() != n_steps {
        let expected = format!("must be {n_steps}, as many as the rollout has");
        return Err(Error::config("n_steps", sampler.steps().len(), expected));
    }
    let advantages: Vec<f32> = advantages
        .iter()
        .map(|&a| clip(f64::from(a), config.advantage_clip))
        .collect();
    let replay = Replay {
        policy,
        reference,
        sampler,
        rollout,
        advantages: &advantages,
        config,
    };
    let items: Vec<Item> = (0..n_steps)
        .flat_map(|step| (0..n).map(move |row| Item { row, step }))
        .collect();
    let params = policy.params();
    // Ends: a loss scale can be halved only so often.
    let mut found = loop {
        params.zero_grad();
        let found = replay.accumulate(&items, &mut |_| Ok(()))?;
        match found.fault {
            None => break found,
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
    found.meter.add_update(&norm);
    let mut report = Report::default();
    found.meter.report(config.kl_weight > 0.0, &mut report);
    Ok(Replayed {
        grads,
        report,
        ratio_deviation: found.deviation,
    })
}

/// `value` within ± `limit`, in the f32 that losses are computed in.
pub(crate) fn clip(value: f64, limit: f64) -> f32 {
    value.clamp(-limit, limit) as f32
}
