//! One update of RWR, from top to bottom: which samples, which noise, the loss, the optimiser.

use std::collections::BTreeMap;
use std::ops::Range;

use ddpo_reward::Prompt;
use ddpo_sched::{Conditioning, Stream};
use ddpo_train::{Error, Event, Fault, Meter, Phase, Result, TrainContext, UpdateIndex};
use tch::Tensor;

use crate::{Moments, Noised, Order, Pool, Rwr};

/// Places within the key of a trained sample: each draw has a sequence of its own. (The JAX code takes noise and
/// timestep from the key of the posterior's sample, so that they are correlated.)
const TIMESTEP: u64 = 0;
const NOISE: u64 = 1;
const POSTERIOR: u64 = 2;

/// Conditioning of a round's prompts, each once.
#[derive(Debug)]
pub(crate) struct PromptConds {
    /// One row per prompt, on the policy's device.
    rows: Conditioning,
    /// The row of each sample of the pool.
    of: Vec<i64>,
}

impl Rwr {
    /// One update on the next samples of the round's sequence.
    pub(crate) fn one_update(
        &mut self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
        epoch_stats: &mut Meter,
    ) -> Result<()> {
        if at.update == 0 && self.config.moments == Moments::Fresh {
            ctx.optimizer.reset();
        }
        if self.conds.is_none() {
            self.conds = Some(self.embed(ctx, at.epoch)?);
        }
        ctx.policy.params().zero_grad();
        let (stats, fault) = self.accumulate(ctx, at)?;
        self.updater.apply(ctx, at, fault, stats, epoch_stats)
    }

    /// Conditioning of the prompts of the pool.
    fn embed(&self, ctx: &TrainContext<'_>, epoch: u64) -> Result<PromptConds> {
        let (mut row_of, mut prompts) = (BTreeMap::<&str, i64>::new(), Vec::<Prompt>::new());
        let mut of = Vec::with_capacity(self.pool.len());
        for &id in &self.pool.sample_ids {
            let prompt = ctx.prompt_of(epoch, self.config.samples_per_prompt, id);
            let row = *row_of.entry(&prompt.text).or_insert_with(|| {
                prompts.push(prompt.clone());
                prompts.len() as i64 - 1
            });
            of.push(row);
        }
        let parts = prompts.chunks(self.config.sample_batch);
        let parts = parts.map(|part| ctx.model.conditioner.embed(part));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let rows = Conditioning::cat(&parts.iter().collect::<Vec<_>>())?;
        Ok(PromptConds { rows, of })
    }

    /// Adds the gradient of this rank's part of the update; stops at the first loss that is not finite.
    fn accumulate(
        &self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
    ) -> Result<(Meter, Option<Fault>)> {
        let (n, world) = (self.config.batch, ctx.collective.world());
        let mine = self.config.batch_per_rank(world);
        let first = at.update * n + ctx.collective.rank() * mine;
        let total = (at.n_updates * mine) as u64;
        let mut done = (at.update * mine) as u64;
        let items = self.items(ctx, at.epoch, first..first + mine);
        let mut stats = Self::stats_of_updates();
        for micro_batch in items.chunks(self.config.micro_batch) {
            let noised = self.noised(ctx, at.epoch, micro_batch)?;
            let losses = match noised.accumulate(&*ctx.policy, mine) {
                Err(overflow @ Error::Overflow { .. }) => {
                    return Ok((stats, Some(Fault::Overflow(overflow.to_string()))));
                }
                other => other?,
            };
            for (item, loss) in micro_batch.iter().zip(losses) {
                if !loss.is_finite() {
                    let id = self.pool.sample_ids[item.row];
                    let text = format!("loss {loss} of sample {id}");
                    return Ok((stats, Some(Fault::NotFinite(text))));
                }
                stats.add("rwr/loss", loss);
            }
            done += micro_batch.len() as u64;
            ctx.emit(&Event::Progress {
                epoch: at.epoch,
                phase: Phase::Update,
                done,
                total,
            })?;
        }
        Ok((stats, None))
    }

    /// Rows of the pool at these places of the round's sequence of trained samples: pass after pass over the
    /// pool, without gaps between passes.
    fn items(&self, ctx: &TrainContext<'_>, epoch: u64, places: Range<usize>) -> Vec<Item> {
        let n = self.pool.len();
        let order = |pass: usize| match self.config.order {
            Order::Constant => (0..n).collect(),
            Order::Shuffled => {
                let key = ctx.seeds.derive(Stream::Shuffle, epoch, pass as u64);
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

    fn noised(&self, ctx: &TrainContext<'_>, epoch: u64, items: &[Item]) -> Result<Noised> {
        let Pool { means, stds, .. } = &self.pool;
        let conds = self.conds.as_ref();
        let conds = conds.ok_or_else(|| Error::config("pool", 0, "has not been embedded"))?;
        let rows: Vec<i64> = items.iter().map(|item| item.row as i64).collect();
        let rows = Tensor::from_slice(&rows);
        let mean = means.index_select(0, &rows);
        let key = |item: &Item| {
            let place = item.place as u64;
            ctx.seeds.derive(Stream::Diffusion, epoch, place)
        };
        let normal = |of: u64| {
            let mut values = vec![0.0_f32; mean.numel()];
            let each = mean.numel() / items.len().max(1);
            for (item, out) in items.iter().zip(values.chunks_exact_mut(each)) {
                key(item).sub(of).fill_normal(out);
            }
            Tensor::from_slice(&values).view_as(&mean)
        };
        let x_0 = match stds {
            None => mean.shallow_clone(),
            Some(stds) => &mean + stds.index_select(0, &rows) * normal(POSTERIOR),
        };
        let n_timesteps = self.schedule.len() as u64;
        let timesteps: Vec<usize> = items
            .iter()
            .map(|item| key(item).sub(TIMESTEP).below(n_timesteps) as usize)
            .collect();
        let weights = items.iter().map(|item| self.pool.weights[item.row]);
        let weights: Vec<f32> = weights.collect();
        let of: Vec<i64> = items.iter().map(|item| conds.of[item.row]).collect();
        let cond = conds.rows.select(&Tensor::from_slice(&of));
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
