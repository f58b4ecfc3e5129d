//! One step of the optimiser: accumulate, check, average over ranks, step or leave out.

use ddpo_sched::Stream;
use ddpo_train::{Context, Error, Event, Phase, Place, Report, Result};
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
            reference: ctx.reference,
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

    /// Takes the step, unless a number is not finite, and takes it into account.
    fn apply(&mut self, ctx: &mut Context<'_>, batch: &mut Batch, mut found: Found) -> Result<()> {
        let (epoch, update) = (batch.epoch, batch.next_update);
        let at = Place { epoch, update };
        let Some(norm) = self.stepper.step(ctx, at, found.fault.take())? else {
            batch.meter.add_skipped();
            return Ok(());
        };
        found.meter.all_reduce(ctx.collective, ctx.device)?;
        found.meter.add_update(&norm);
        batch.meter.merge(&found.meter);
        let mut report = Report::default();
        found.meter.report(self.config.kl_weight > 0.0, &mut report);
        ctx.emit(&Event::UpdateDone {
            epoch,
            update,
            n_updates: self.config.updates_per_epoch,
            report: &report,
        })
    }
}
