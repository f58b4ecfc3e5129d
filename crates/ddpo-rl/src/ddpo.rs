//! DDPO: sample with the policy, score, and raise the probability of the denoising steps that led to what
//! scored better than usual.
//!
//! Which rank draws which sample follows from the shuffle, which is known beforehand: every update trains on
//! the same samples on any number of ranks.

use std::sync::Arc;
use std::time::Instant;

use ddpo_reward::Prompt;
use ddpo_sched::{KeyedNoise, LatentBatch, Sampler, Stream};
use ddpo_train::{
    Algorithm, Context, Error, Event, Persist, Phase, Report, Result, SampleRow, StateReader,
    StateWriter, Ticket,
};
use tch::Tensor;

use crate::advantage::moments;
use crate::meter::Meter;
use crate::replay::clip;
use crate::{Batch, DdpoConfig, PromptStats, Rollout};

/// DDPO-SF and DDPO-IS as one algorithm: they differ in the loss and in the number of updates.
#[derive(Debug)]
pub struct Ddpo {
    pub(crate) config: DdpoConfig,
    pub(crate) stats: PromptStats,
    /// What is left of an epoch that was stopped between two updates.
    pub(crate) pending: Option<Batch>,
    pub(crate) ratio_checked: bool,
    pub(crate) skipped_in_a_row: u32,
}

impl Ddpo {
    /// Checks the configuration against the sampler and the number of ranks.
    ///
    /// # Errors
    /// As [`DdpoConfig::check`].
    pub fn new(config: DdpoConfig, sampler: &dyn Sampler, world: usize) -> Result<Self> {
        config.check(sampler, world)?;
        Ok(Self {
            config,
            stats: PromptStats::new(config.baseline),
            pending: None,
            ratio_checked: false,
            skipped_in_a_row: 0,
        })
    }

    /// The numbers it runs with.
    pub fn config(&self) -> &DdpoConfig {
        &self.config
    }

    /// Rewards of each prompt so far.
    pub fn stats(&self) -> &PromptStats {
        &self.stats
    }

    /// Ids of this rank's samples, minibatch after minibatch.
    fn share(&self, ctx: &Context<'_>, epoch: u64) -> Vec<u64> {
        let key = ctx.seeds.derive(Stream::Shuffle, epoch, 0);
        let order = key.permutation(self.config.samples_per_epoch);
        let (rank, world) = (ctx.collective.rank(), ctx.collective.world());
        let mine = self.config.minibatch_per_rank(world);
        order
            .chunks(self.config.minibatch())
            .flat_map(|minibatch| &minibatch[rank * mine..(rank + 1) * mine])
            .map(|&id| id as u64)
            .collect()
    }

    /// Draws and decodes this rank's samples; pictures go to the reward as they come.
    fn sample(
        &self,
        ctx: &mut Context<'_>,
        epoch: u64,
        ids: &[u64],
    ) -> Result<(Rollout, Vec<Ticket>)> {
        let noise = KeyedNoise::new(ctx.seeds, epoch);
        let n_steps = ctx.sampler.steps().len();
        let total = (ids.len() * n_steps) as u64;
        let (mut parts, mut tickets, mut done) = (Vec::new(), Vec::new(), 0);
        for chunk in ids.chunks(self.config.sample_batch) {
            let prompts: Vec<Prompt> = chunk
                .iter()
                .map(|&id| ctx.prompts[prompt_of(ctx, epoch, id)].clone())
                .collect();
            let cond = ctx.conditioner.embed(&prompts)?;
            let batch = LatentBatch {
                shape: &ctx.latent_shape.clone(),
                cond: &cond,
                sample_ids: chunk,
                log_prob: Some(self.config.log_prob),
            };
            let (net, sampler) = (&*ctx.policy, ctx.sampler);
            let (stop, world) = (ctx.stop.clone(), ctx.collective.world());
            let observers = &mut ctx.observers;
            let mut refused = None;
            let drawn = Rollout::draw(net, sampler, &batch, &noise, &mut || {
                done += chunk.len() as u64;
                let event = Event::Progress {
                    epoch,
                    phase: Phase::Sample,
                    done,
                    total,
                };
                refused = observers.iter_mut().try_for_each(|o| o.on(&event)).err();
                match refused.is_some() || (world == 1 && stop.requested()) {
                    true => Err(ddpo_sched::Error::Stopped),
                    false => Ok(()),
                }
            });
            if let Some(error) = refused {
                return Err(error);
            }
            let (rollout, x_0) = drawn?;
            let images = Arc::new(ctx.decoder.decode(&x_0)?);
            ctx.emit(&Event::BatchSampled {
                epoch,
                sample_ids: chunk,
                prompts: &prompts,
                images: &images,
            })?;
            tickets.push(ctx.rewards.submit(images, prompts));
            parts.push(rollout);
        }
        Ok((Rollout::concat(&parts)?, tickets))
    }

    /// Rewards of all ranks to advantages, by sample id.
    fn score(
        &mut self,
        ctx: &mut Context<'_>,
        epoch: u64,
        ids: &[u64],
        rewards: &[f32],
    ) -> Result<Vec<SampleRow>> {
        let device = ctx.device;
        let gather = |values: Vec<f64>| -> Result<Vec<f64>> {
            let values = Tensor::from_slice(&values).to_device(device);
            let all = ctx.collective.all_gather(&values)?;
            Vec::<f64>::try_from(&all.to_device(tch::Device::Cpu)).map_err(Error::model)
        };
        // Ids are below 2⁵³ and rewards f32: f64 carries both exactly.
        let all_ids = gather(ids.iter().map(|&id| id as f64).collect())?;
        let all_rewards = gather(rewards.iter().map(|&r| f64::from(r)).collect())?;
        let mut pairs: Vec<(u64, f32)> = all_ids
            .into_iter()
            .zip(all_rewards)
            .map(|(id, reward)| (id as u64, reward as f32))
            .collect();
        pairs.sort_by_key(|&(id, _)| id);
        let prompts: Vec<Prompt> = pairs
            .iter()
            .map(|&(id, _)| ctx.prompts[prompt_of(ctx, epoch, id)].clone())
            .collect();
        let rewards: Vec<f32> = pairs.iter().map(|&(_, reward)| reward).collect();
        let advantages = self.stats.update(&prompts, &rewards)?;
        let rows = pairs.into_iter().zip(prompts).zip(advantages);
        Ok(rows
            .map(|(((sample_id, reward), prompt), advantage)| SampleRow {
                sample_id,
                prompt,
                reward,
                advantage: clip(advantage, self.config.advantage_clip),
            })
            .collect())
    }
}

impl Algorithm for Ddpo {
    type Batch = Batch;

    fn collect(&mut self, ctx: &mut Context<'_>, epoch: u64) -> Result<Batch> {
        if let Some(mut batch) = self.pending.take_if(|batch| batch.epoch == epoch) {
            batch.rollout.cond = batch.rollout.cond.to_device(ctx.device);
            return Ok(batch);
        }
        if ctx.prompts.is_empty() {
            return Err(Error::config("prompts", 0, "must be at least 1"));
        }
        let begin = Instant::now();
        let ids = self.share(ctx, epoch);
        let (rollout, tickets) = self.sample(ctx, epoch, &ids)?;
        let sampled = Instant::now();
        let total = tickets.len() as u64;
        let mut rewards = Vec::with_capacity(ids.len());
        for (done, ticket) in (1..).zip(tickets) {
            rewards.extend(ticket.wait()?);
            ctx.emit(&Event::Progress {
                epoch,
                phase: Phase::Reward,
                done,
                total,
            })?;
        }
        let wait_seconds = sampled.elapsed().as_secs_f64();
        let samples = self.score(ctx, epoch, &ids, &rewards)?;
        ctx.emit(&Event::Rewarded {
            epoch,
            samples: &samples,
        })?;
        let reward = moments(samples.iter().map(|row| f64::from(row.reward)));
        // Rows are sorted by id, and ids are 0..samples_per_epoch.
        let advantages = ids.iter().map(|&id| samples[id as usize].advantage);
        Ok(Batch {
            epoch,
            rollout,
            advantages: advantages.collect(),
            reward,
            next_update: 0,
            meter: Meter::default(),
            sample_seconds: (sampled - begin).as_secs_f64(),
            wait_seconds,
            update_seconds: 0.0,
        })
    }

    fn update(&mut self, ctx: &mut Context<'_>, mut batch: Batch) -> Result<Report> {
        let begin = Instant::now();
        while batch.next_update < self.config.updates_per_epoch {
            self.step(ctx, &mut batch)?;
            batch.next_update += 1;
            if batch.next_update < self.config.updates_per_epoch && ctx.stop_midway() {
                batch.update_seconds += begin.elapsed().as_secs_f64();
                self.pending = Some(batch);
                return Err(Error::Stopped);
            }
        }
        batch.update_seconds += begin.elapsed().as_secs_f64();
        let mut report = Report {
            reward_queries: self.config.samples_per_epoch as u64,
            ..Report::default()
        };
        report.push("reward/mean", batch.reward.0);
        report.push("reward/std", batch.reward.1);
        batch.meter.report(&mut report);
        report.push("time/sample_s", batch.sample_seconds);
        report.push("time/reward_wait_s", batch.wait_seconds);
        report.push("time/update_s", batch.update_seconds);
        Ok(report)
    }
}

impl Persist for Ddpo {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("prompts", &self.stats)?;
        out.value("skipped_in_a_row", &self.skipped_in_a_row)?;
        match &self.pending {
            Some(batch) => out.nested("pending", batch),
            None => Ok(()),
        }
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("prompts", &mut self.stats)?;
        self.skipped_in_a_row = from.value("skipped_in_a_row")?;
        self.pending = None;
        if from.contains("pending") {
            let mut batch = Batch::empty()?;
            from.nested("pending", &mut batch)?;
            self.pending = Some(batch);
        }
        Ok(())
    }
}

/// Which prompt a sample gets: uniform and independent, as in both reference codebases.
fn prompt_of(ctx: &Context<'_>, epoch: u64, sample_id: u64) -> usize {
    let key = ctx.seeds.derive(Stream::Prompts, epoch, sample_id);
    key.draws().below(ctx.prompts.len() as u64) as usize
}
