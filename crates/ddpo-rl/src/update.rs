//! One step of the optimiser: accumulate, check, average over ranks, step or leave out.

use ddpo_sched::Stream;
use ddpo_train::{Context, Error, Event, Phase, Report, Result};
use tch::Tensor;

use crate::replay::{Found, Replay};
use crate::rollout::Item;
use crate::{Batch, Ddpo};

impl Ddpo {
    /// One step of the optimiser.
    pub(crate) fn step(&mut self, ctx: &mut Context<'_>, batch: &mut Batch) -> Result<()> {
        let (epoch, update) = (batch.epoch, batch.next_update);
        let mine = self.config.minibatch_per_rank(ctx.collective.world());
        let items = self.items(ctx, batch, update * mine..(update + 1) * mine);
        let total = (batch.rollout.n_samples() * batch.rollout.n_steps()) as u64;
        let mut done = (update * items.len()) as u64;
        let replay = Replay {
            policy: &*ctx.policy,
            sampler: ctx.sampler,
            rollout: &batch.rollout,
            advantages: &batch.advantages,
            config: &self.config,
        };
        let observers = &mut ctx.observers;
        replay.policy.params().zero_grad();
        let found = replay.accumulate(&items, &mut |n| {
            done += n as u64;
            let event = Event::Progress {
                epoch,
                phase: Phase::Update,
                done,
                total,
            };
            observers.iter_mut().try_for_each(|o| o.on(&event))
        })?;
        self.check_ratio(ctx, &found, update)?;
        self.apply(ctx, batch, found)
    }

    /// Pairs of sample and step for some rows: every sample has its own order of steps.
    fn items(&self, ctx: &Context<'_>, batch: &Batch, rows: std::ops::Range<usize>) -> Vec<Item> {
        let n_steps = batch.rollout.n_steps();
        let orders: Vec<(usize, Vec<usize>)> = rows
            .map(|row| {
                let id = batch.rollout.sample_ids[row];
                let key = ctx.seeds.derive(Stream::Timesteps, batch.epoch, id);
                (row, key.permutation(n_steps))
            })
            .collect();
        let at = |place: usize| {
            let of = move |(row, order): &(usize, Vec<usize>)| Item {
                row: *row,
                step: order[place],
            };
            orders.iter().map(of)
        };
        (0..n_steps).flat_map(at).collect()
    }

    /// Before the first update of a run the replayed policy is the one that was sampled from.
    fn check_ratio(&mut self, ctx: &mut Context<'_>, found: &Found, update: usize) -> Result<()> {
        if self.ratio_checked || update != 0 || ctx.any_rank(found.fault.is_some())? {
            return Ok(());
        }
        self.ratio_checked = true;
        let n_steps = found.deviation.len() as i64;
        let mine = Tensor::from_slice(&found.deviation).to_device(ctx.device);
        let all = ctx.collective.all_gather(&mine)?.view([-1, n_steps]);
        let worst = all.amax(&[0_i64][..], false).to_device(tch::Device::Cpu);
        let by_step = Vec::<f64>::try_from(&worst).map_err(Error::model)?;
        let largest = by_step.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        let (step, deviation) = largest.map_or((0, 0.0), |(step, &value)| (step, value));
        let timestep = ctx.sampler.steps()[step].timestep;
        let bound = self.config.ratio_bound.unwrap_or(f64::INFINITY);
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

    /// Averages the gradients over ranks and takes the step, unless a number is not finite.
    fn apply(&mut self, ctx: &mut Context<'_>, batch: &mut Batch, mut found: Found) -> Result<()> {
        let mut fault = found.fault.take();
        if ctx.any_rank(fault.is_some())? {
            ctx.policy.params().zero_grad();
            fault = fault.or(Some("on another rank".to_owned()));
        } else {
            let grads = ctx.policy.params().grads()?;
            ctx.collective.all_reduce_mean(&grads)?;
            found.meter.all_reduce(ctx.collective, ctx.device)?;
            let params = ctx.policy.params();
            match ctx.optimizer.step(params, self.config.max_grad_norm) {
                Ok(norm) => found.meter.add_update(&norm),
                Err(Error::NonFinite { what, detail }) => fault = Some(format!("{what} {detail}")),
                Err(other) => return Err(other),
            }
        }
        let (epoch, update) = (batch.epoch, batch.next_update);
        let Some(reason) = fault else {
            self.skipped_in_a_row = 0;
            batch.meter.merge(&found.meter);
            let mut report = Report::default();
            found.meter.report(&mut report);
            return ctx.emit(&Event::UpdateDone {
                epoch,
                update,
                n_updates: self.config.updates_per_epoch,
                report: &report,
            });
        };
        self.skipped_in_a_row += 1;
        batch.meter.add_skipped();
        ctx.emit(&Event::UpdateSkipped {
            epoch,
            update,
            reason: &reason,
            in_a_row: self.skipped_in_a_row,
        })?;
        if self.skipped_in_a_row < self.config.max_skipped {
            return Ok(());
        }
        let detail = format!(
            "epoch {epoch}, update {update}: {reason}; {} updates in a row left out",
            self.skipped_in_a_row
        );
        Err(Error::NonFinite {
            what: "training",
            detail,
        })
    }
}
