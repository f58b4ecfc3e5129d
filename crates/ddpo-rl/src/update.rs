//! One update of DDPO, from top to bottom: which transitions, what the policy says of them now, the loss, the check
//! before the first update, and the optimiser.

use std::ops::Range;

use ddpo_sched::{Denoiser, Gaussian, Sampler, Stream};
use ddpo_train::{Error, Event, Fault, Meter, Phase, Policy, Result, TrainContext, UpdateIndex};
use tch::{Device, Kind, Tensor};

use crate::trajectories::TransitionBatch;
use crate::{Ddpo, DdpoConfig, Trajectories, TransitionIndex};

impl Ddpo {
    /// One update on the next minibatch of the epoch.
    pub(crate) fn one_update(
        &mut self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
        epoch_stats: &mut Meter,
    ) -> Result<()> {
        let trajectories = self.trajectories.all()?;
        let mine = self.config.minibatch_per_rank(ctx.collective.world());
        let rows = at.update * mine..(at.update + 1) * mine;
        let transitions = shuffled_transitions(ctx, trajectories, at.epoch, rows);

        // Told of progress while the context is lent to the gradient.
        let mut observers = std::mem::take(&mut ctx.observers);
        let gradient = PolicyGradient::new(ctx, trajectories, &self.advantages, &self.config);
        let total = (trajectories.n_samples() * trajectories.n_steps()) as u64;
        let mut done = (at.update * transitions.len()) as u64;
        gradient.policy.params().zero_grad();
        let accumulated = gradient.accumulate(&transitions, &mut |n| {
            done += n as u64;
            let event = Event::Progress {
                epoch: at.epoch,
                phase: Phase::Update,
                done,
                total,
            };
            observers.iter_mut().try_for_each(|o| o.on(&event))
        });
        ctx.observers = observers;
        let mut stats = accumulated?;

        if !self.ratio_checked && at.update == 0 && !ctx.any_rank(stats.fault.is_some())? {
            self.ratio_checked = true;
            check_ratio(ctx, &stats.ratio_deviation, self.config.ratio_bound)?;
        }
        let fault = stats.fault.take();
        self.updater.apply(ctx, at, fault, stats.meter, epoch_stats)
    }
}

/// All transitions of some rows: each sample has its own order of steps, and samples take turns.
fn shuffled_transitions(
    ctx: &TrainContext<'_>,
    trajectories: &Trajectories,
    epoch: u64,
    rows: Range<usize>,
) -> Vec<TransitionIndex> {
    let n_steps = trajectories.n_steps();
    let order = |row: usize| {
        let id = trajectories.sample_ids[row];
        let key = ctx.seeds.derive(Stream::Timesteps, epoch, id);
        (row, key.permutation(n_steps))
    };
    let orders: Vec<(usize, Vec<usize>)> = rows.map(order).collect();
    let at = |place: usize| {
        orders.iter().map(move |(row, order)| TransitionIndex {
            row: *row,
            step: order[place],
        })
    };
    (0..n_steps).flat_map(at).collect()
}

/// Everything that the gradient of a minibatch is made of.
pub struct PolicyGradient<'a> {
    /// What is trained.
    pub policy: &'a dyn Policy,
    /// The reference policy; asked only if the configuration weighs the KL divergence to it.
    pub reference: Option<&'a dyn Denoiser>,
    /// The sampler that drew the trajectories.
    pub sampler: &'a dyn Sampler,
    /// What was sampled.
    pub trajectories: &'a Trajectories,
    /// One per row of the trajectories, clipped.
    pub advantages: &'a [f32],
    /// Estimator, reduction of log-probabilities, KL weight and size of micro-batches.
    pub config: &'a DdpoConfig,
}

/// What was seen while the gradient of an update was accumulated.
#[derive(Debug)]
pub struct UpdateStats {
    /// Means over the transitions.
    pub meter: Meter,
    /// Largest |ratio − 1| of each denoising step, noisiest first.
    pub ratio_deviation: Vec<f64>,
    /// What was not finite and where; the gradients are then incomplete.
    pub fault: Option<Fault>,
}

impl<'a> PolicyGradient<'a> {
    /// With policy, reference and sampler of a run.
    pub fn new(
        ctx: &'a TrainContext<'_>,
        trajectories: &'a Trajectories,
        advantages: &'a [f32],
        config: &'a DdpoConfig,
    ) -> Self {
        Self {
            policy: &*ctx.policy,
            reference: ctx.reference,
            sampler: ctx.sampler,
            trajectories,
            advantages,
            config,
        }
    }

    /// Adds the gradient of the mean loss over `transitions` to the parameters'.
    ///
    /// Transitions are taken in order, `micro_batch` at a time. Stops at the first loss that is not finite.
    ///
    /// # Errors
    /// What policy or `progress` report.
    pub fn accumulate(
        &self,
        transitions: &[TransitionIndex],
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<UpdateStats> {
        let mut stats = UpdateStats {
            meter: self.config.stats(),
            ratio_deviation: vec![0.0; self.trajectories.n_steps()],
            fault: None,
        };
        for micro_batch in transitions.chunks(self.config.micro_batch) {
            self.micro_batch(micro_batch, transitions.len(), &mut stats)?;
            if stats.fault.is_some() {
                break;
            }
            progress(micro_batch.len())?;
        }
        Ok(stats)
    }

    /// One forward and backward pass. The loss is a sum over `n_total`, so that micro-batches add up to the mean.
    fn micro_batch(
        &self,
        transitions: &[TransitionIndex],
        n_total: usize,
        stats: &mut UpdateStats,
    ) -> Result<()> {
        let device = self.policy.params().tensors().first();
        let device = device.map_or(Device::Cpu, Tensor::device);
        let batch = self
            .trajectories
            .gather(transitions, self.sampler, device)?;
        let advantages: Vec<f32> = transitions
            .iter()
            .map(|it| self.advantages[it.row])
            .collect();
        let advantages = Tensor::from_slice(&advantages).to_device(device);
        let log_prob_old = batch.log_probs.to_device(device);
        let (estimator, reduce) = (self.config.estimator, self.config.log_prob);
        let reference = self.reference_steps(&batch)?;

        let mut seen = None;
        let accumulated = self.policy.accumulate(batch.input(), &mut |model_output| {
            let step = batch.steps(self.sampler, model_output)?;
            let log_prob = step.log_prob(&batch.x_prev, reduce)?;
            let surrogate = estimator.surrogate(&log_prob, &log_prob_old, &advantages);
            let log_ratio = log_prob.detach() - &log_prob_old;
            let mut rows = vec![surrogate.ratio, log_ratio];
            let loss = match &reference {
                None => surrogate.loss,
                Some(reference) => {
                    let kl = step.kl(reference, reduce)?;
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
                stats.fault = Some(Fault::Overflow(overflow.to_string()));
                return Ok(());
            }
            other => other?,
        }
        let seen = seen.ok_or_else(|| Error::model("the policy did not ask for its loss"))?;
        self.take_in(transitions, &seen, stats)
    }

    /// The steps of the reference policy, if the KL divergence to it is part of the loss.
    fn reference_steps(&self, batch: &TransitionBatch) -> Result<Option<Gaussian>> {
        if self.config.kl_weight == 0.0 {
            return Ok(None);
        }
        let Some(reference) = self.reference else {
            let expected =
                "needs a reference policy to measure the KL divergence to, and there is none";
            return Err(Error::config("kl_weight", self.config.kl_weight, expected));
        };
        let model_output = tch::no_grad(|| reference.predict(batch.input()))?;
        Ok(Some(batch.steps(self.sampler, &model_output)?))
    }

    /// Takes in losses, ratios, log-ratios and, where measured, KL divergences, `[3 or 4, transitions]`.
    fn take_in(
        &self,
        transitions: &[TransitionIndex],
        seen: &Tensor,
        stats: &mut UpdateStats,
    ) -> Result<()> {
        let seen = seen.to_device(Device::Cpu).to_kind(Kind::Double);
        let seen = Vec::<f64>::try_from(&seen.flatten(0, -1)).map_err(Error::model)?;
        let rows: Vec<&[f64]> = seen.chunks_exact(transitions.len()).collect();
        for (i, at) in transitions.iter().enumerate() {
            let (loss, ratio, log_ratio) = (rows[0][i], rows[1][i], rows[2][i]);
            if !(loss.is_finite() && ratio.is_finite()) {
                let (id, step) = (self.trajectories.sample_ids[at.row], at.step);
                let text = format!("loss {loss}, ratio {ratio} at step {step} of sample {id}");
                stats.fault = Some(Fault::NotFinite(text));
                return Ok(());
            }
            let clipped = f64::from(u8::from(self.config.estimator.clips(ratio)));
            if let Some(kl) = rows.get(3) {
                stats.meter.add("policy/kl_pretrained", kl[i]);
            }
            stats.meter.add("policy/ratio_mean", ratio);
            stats.meter.add("policy/clip_fraction", clipped);
            let approx_kl = 0.5 * log_ratio * log_ratio;
            stats.meter.add("policy/approx_kl", approx_kl);
            stats.meter.add("policy/loss", loss);
            let deviation = &mut stats.ratio_deviation[at.step];
            *deviation = deviation.max((ratio - 1.0).abs());
        }
        Ok(())
    }
}

/// Before the first update of a run the policy is the one that sampled: the ratio of every step is 1, or training
/// and sampling do not compute the same thing.
fn check_ratio(ctx: &mut TrainContext<'_>, deviation: &[f64], bound: Option<f64>) -> Result<()> {
    let n_steps = deviation.len() as i64;
    let mine = Tensor::from_slice(deviation).to_device(ctx.device);
    let all = ctx.collective.all_gather(&mine)?.view([-1, n_steps]);
    let worst = all.amax(&[0_i64][..], false).to_device(Device::Cpu);
    let by_step = Vec::<f64>::try_from(&worst).map_err(Error::model)?;
    let largest = by_step.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let (step, deviation) = largest.map_or((0, 0.0), |(step, &value)| (step, value));
    let timestep = ctx.sampler.timestep(step);
    let bound = bound.unwrap_or(f64::INFINITY);
    ctx.emit(&Event::RatioChecked {
        deviation,
        bound,
        step,
        timestep,
        by_step: &by_step,
    })?;
    if deviation <= bound {
        return Ok(());
    }
    ctx.policy.params().zero_grad();
    Err(Error::Ratio {
        deviation,
        bound,
        step,
        timestep,
    })
}
