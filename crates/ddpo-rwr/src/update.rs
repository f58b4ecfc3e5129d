//! One step of the optimiser: which samples, which noise, and what comes of it.

use std::collections::BTreeMap;
use std::ops::Range;

use ddpo_reward::Prompt;
use ddpo_sched::Stream;
use ddpo_train::{Context, Error, Event, Fault, Phase, Place, Report, Result, prompt_of};
use tch::Tensor;

use crate::meter::Meter;
use crate::{Batch, Moments, Noised, Order, Rwr};

/// Places within the key of a trained sample: each draw has a sequence of its own. (The JAX code takes noise and
/// timestep from the key of the posterior's sample, so that they are correlated.)
const TIMESTEP: u64 = 0;
const NOISE: u64 = 1;
const POSTERIOR: u64 = 2;

/// Conditioning of a round's prompts, each once.
pub(crate) struct Conds {
    /// `[prompts, tokens, dim]`, on the policy's device.
    rows: Tensor,
    /// The row of each sample of the pool.
    of: Vec<i64>,
}

impl Rwr {
    /// Embeds the prompts of the pool.
    pub(crate) fn conds(&self, ctx: &Context<'_>, batch: &Batch) -> Result<Conds> {
        let share = self.share(batch.epoch, &[]);
        let (mut row_of, mut prompts) = (BTreeMap::<&str, i64>::new(), Vec::<Prompt>::new());
        let mut of = Vec::with_capacity(batch.pool.len());
        for &id in &batch.pool.sample_ids {
            let prompt = prompt_of(ctx, &share, id);
            let row = *row_of.entry(&prompt.text).or_insert_with(|| {
                prompts.push(prompt.clone());
                prompts.len() as i64 - 1
            });
            of.push(row);
        }
        let parts = prompts.chunks(self.config.sample_batch);
        let parts = parts.map(|part| ctx.conditioner.embed(part));
        let rows = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0);
        Ok(Conds { rows, of })
    }

    /// One step of the optimiser.
    pub(crate) fn step(
        &mut self,
        ctx: &mut Context<'_>,
        batch: &mut Batch,
        conds: &Conds,
    ) -> Result<()> {
        let (epoch, update) = (batch.epoch, batch.next_update);
        if update == 0 && self.config.moments == Moments::Fresh {
            ctx.optimizer.reset();
        }
        ctx.policy.params().zero_grad();
        let (mut meter, fault) = self.accumulate(ctx, batch, conds)?;
        let at = Place { epoch, update };
        let Some(norm) = self.stepper.step(ctx, at, fault)? else {
            batch.meter.add_skipped();
            return Ok(());
        };
        meter.all_reduce(ctx.collective, ctx.device)?;
        meter.add_update(&norm);
        batch.meter.merge(&meter);
        let mut report = Report::default();
        meter.report(&mut report);
        ctx.emit(&Event::UpdateDone {
            epoch,
            update,
            n_updates: self.config.updates_per_round,
            report: &report,
        })
    }

    /// Adds the gradient of this rank's part of the update; stops at the first loss that is not finite.
    fn accumulate(
        &self,
        ctx: &mut Context<'_>,
        batch: &Batch,
        conds: &Conds,
    ) -> Result<(Meter, Option<Fault>)> {
        let (n, world) = (self.config.batch, ctx.collective.world());
        let mine = self.config.batch_per_rank(world);
        let first = batch.next_update * n + ctx.collective.rank() * mine;
        let total = (self.config.updates_per_round * mine) as u64;
        let mut done = (batch.next_update * mine) as u64;
        let items = self.items(ctx, batch, first..first + mine);
        let mut meter = Meter::default();
        for chunk in items.chunks(self.config.micro_batch) {
            let noised = self.noised(ctx, batch, conds, chunk)?;
            let losses = match noised.accumulate(&*ctx.policy, mine) {
                Err(overflow @ Error::Overflow { .. }) => {
                    return Ok((meter, Some(Fault::Overflow(overflow.to_string()))));
                }
                other => other?,
            };
            for (item, loss) in chunk.iter().zip(losses) {
                if !loss.is_finite() {
                    let id = batch.pool.sample_ids[item.row];
                    let text = format!("loss {loss} of sample {id}");
                    return Ok((meter, Some(Fault::NotFinite(text))));
                }
                meter.add(loss);
            }
            done += chunk.len() as u64;
            ctx.emit(&Event::Progress {
                epoch: batch.epoch,
                phase: Phase::Update,
                done,
                total,
            })?;
        }
        Ok((meter, None))
    }

    /// Rows of the pool at these places of the round's sequence of trained samples: pass after pass over the
    /// pool, without gaps between passes.
    fn items(&self, ctx: &Context<'_>, batch: &Batch, places: Range<usize>) -> Vec<Item> {
        let n = batch.pool.len();
        let order = |pass: usize| match self.config.order {
            Order::Constant => (0..n).collect(),
            Order::Shuffled => {
                let key = ctx.seeds.derive(Stream::Shuffle, batch.epoch, pass as u64);
                key.permutation(n)
            }
        };
        let mut orders: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let row = |place: usize| {
            let pass = place / n;
            orders.entry(pass).or_insert_with(|| order(pass))[place % n]
        };
        let places = places.clone().zip(places.map(row));
        places.map(|(place, row)| Item { place, row }).collect()
    }

    fn noised(
        &self,
        ctx: &Context<'_>,
        batch: &Batch,
        conds: &Conds,
        items: &[Item],
    ) -> Result<Noised> {
        let pool = &batch.pool;
        let rows: Vec<i64> = items.iter().map(|item| item.row as i64).collect();
        let rows = Tensor::from_slice(&rows);
        let mean = pool.means.index_select(0, &rows);
        let key = |item: &Item| {
            let place = item.place as u64;
            ctx.seeds.derive(Stream::Diffusion, batch.epoch, place)
        };
        let normal = |of: u64| {
            let mut values = vec![0.0_f32; mean.numel()];
            let each = mean.numel() / items.len().max(1);
            for (item, out) in items.iter().zip(values.chunks_exact_mut(each)) {
                key(item).sub(of).fill_normal(out);
            }
            Tensor::from_slice(&values).view_as(&mean)
        };
        let x_0 = match &pool.stds {
            None => mean.shallow_clone(),
            Some(stds) => &mean + stds.index_select(0, &rows) * normal(POSTERIOR),
        };
        let n_timesteps = self.schedule.len() as u64;
        let timesteps: Vec<usize> = items
            .iter()
            .map(|item| key(item).sub(TIMESTEP).below(n_timesteps) as usize)
            .collect();
        let weights: Vec<f32> = items.iter().map(|item| pool.weights[item.row]).collect();
        let of: Vec<i64> = items.iter().map(|item| conds.of[item.row]).collect();
        let of = Tensor::from_slice(&of).to_device(conds.rows.device());
        let cond = conds.rows.index_select(0, &of);
        Noised::new(
            &self.schedule,
            &x_0,
            &normal(NOISE),
            &timesteps,
            cond,
            &weights,
        )
    }
}

/// A sample to train on.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Place in the round's sequence, which keys its draws.
    place: usize,
    /// Row of the pool.
    row: usize,
}
