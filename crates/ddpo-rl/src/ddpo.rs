//! DDPO: sample with the policy, score, and raise the probability of the denoising steps that led to what
//! scored better than usual.
//!
//! Which rank draws which sample follows from the shuffle, which is known beforehand: every update trains on
//! the same samples on any number of ranks.

use std::time::Instant;

use ddpo_reward::Prompt;
use ddpo_sched::{Sampler, Stream};
use ddpo_train::{
    Algorithm, Context, Error, Event, Persist, Report, Result, SampleRow, Scored, Share,
    StateReader, StateWriter, Stepper, Unscored, rollout,
};

use crate::meter::Meter;
use crate::replay::clip;
use crate::rollout::Trajectories;
use crate::{Batch, DdpoConfig, PromptStats};

/// DDPO-SF and DDPO-IS as one algorithm: they differ in the loss and in the number of updates.
#[derive(Debug)]
pub struct Ddpo {
    pub(crate) config: DdpoConfig,
    pub(crate) stats: PromptStats,
    /// What each part of a composite reward counts, and its own rewards so far; empty for the reward as it is.
    pub(crate) parts: Vec<(f64, PromptStats)>,
    /// An epoch whose reward failed.
    pub(crate) unscored: Option<Unscored>,
    /// What is left of an epoch that was stopped between two updates.
    pub(crate) pending: Option<Batch>,
    pub(crate) ratio_checked: bool,
    pub(crate) stepper: Stepper,
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
            parts: Vec::new(),
            unscored: None,
            pending: None,
            ratio_checked: false,
            stepper: Stepper::new(config.max_grad_norm, config.max_skipped),
        })
    }

    /// Normalises the parts of a composite reward each by its own statistics, and adds up what comes out.
    ///
    /// With part k's reward `r_k` of a sample, and mean `μ_k` and deviation `σ_k` as [`PromptStats`] has them of
    /// that part alone, the advantage is `Σ_k w_k · (r_k − μ_k) / (σ_k + 1e-6)`, clipped like any other. So a part
    /// counts as its weight says, whatever its unit and spread; without this the part of the widest spread rules.
    #[must_use]
    pub fn normalise_parts(mut self, weights: &[f64]) -> Self {
        let stats = || PromptStats::new(self.config.baseline);
        self.parts = weights.iter().map(|&weight| (weight, stats())).collect();
        self
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

    /// Rewards of all ranks to advantages, by sample id.
    fn rows(&mut self, samples: Vec<Scored>) -> Result<Vec<SampleRow>> {
        let prompts: Vec<Prompt> = samples.iter().map(|s| s.prompt.clone()).collect();
        let rewards: Vec<f32> = samples.iter().map(|s| s.reward).collect();
        let mut advantages = self.stats.update(&prompts, &rewards)?;
        if !self.parts.is_empty() {
            advantages = self.advantages_of_parts(&prompts, &samples)?;
        }
        let rows = samples.into_iter().zip(advantages);
        Ok(rows
            .map(|(sample, advantage)| SampleRow {
                sample_id: sample.sample_id,
                prompt: sample.prompt,
                reward: sample.reward,
                advantage: clip(advantage, self.config.advantage_clip),
                parts: sample.parts,
                answer: sample.answer,
            })
            .collect())
    }

    fn advantages_of_parts(&mut self, prompts: &[Prompt], samples: &[Scored]) -> Result<Vec<f64>> {
        let n_parts = self.parts.len();
        if let Some(sample) = samples.iter().find(|s| s.parts.len() != n_parts) {
            let expected = format!(
                "must be {}, as many as the reward has parts",
                sample.parts.len()
            );
            return Err(Error::config("weights of parts", n_parts, expected));
        }
        let mut sum = vec![0.0; samples.len()];
        for (k, (weight, stats)) in self.parts.iter_mut().enumerate() {
            let rewards: Vec<f32> = samples.iter().map(|s| s.parts[k]).collect();
            let advantages = stats.update(prompts, &rewards)?;
            sum.iter_mut()
                .zip(advantages)
                .for_each(|(sum, a)| *sum += *weight * a);
        }
        Ok(sum)
    }
}

impl Algorithm for Ddpo {
    type Batch = Batch;

    fn collect(&mut self, ctx: &mut Context<'_>, epoch: u64) -> Result<Batch> {
        if let Some(mut batch) = self.pending.take_if(|batch| batch.epoch == epoch) {
            batch.rollout.cond = batch.rollout.cond.to_device(ctx.device);
            return Ok(batch);
        }
        let ids = self.share(ctx, epoch);
        let share = Share {
            epoch,
            sample_ids: &ids,
            batch: self.config.sample_batch,
            samples_per_prompt: 1,
            guide: None,
        };
        let mut kept = Trajectories::new(self.config.log_prob);
        let drawn = rollout(ctx, &share, &mut kept, &mut self.unscored)?;
        let reward = drawn.reward_moments();
        let (sample_seconds, wait_seconds) = (drawn.sample_seconds, drawn.wait_seconds);
        let samples = self.rows(drawn.samples)?;
        ctx.emit(&Event::Rewarded {
            epoch,
            samples: &samples,
        })?;
        let mut rollout = kept.into_rollout()?;
        // What comes from a checkpoint is on the host.
        rollout.cond = rollout.cond.to_device(ctx.device);
        // Rows are sorted by id, and ids are 0..samples_per_epoch.
        let advantages = ids.iter().map(|&id| samples[id as usize].advantage);
        Ok(Batch {
            epoch,
            rollout,
            advantages: advantages.collect(),
            reward,
            next_update: 0,
            meter: Meter::default(),
            sample_seconds,
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
        batch.meter.report(self.config.kl_weight > 0.0, &mut report);
        if let Some(scale) = ctx.policy.loss_scale() {
            report.push("policy/loss_scale", scale.get());
            report.push("policy/overflows", scale.overflows() as f64);
        }
        report.push("time/sample_s", batch.sample_seconds);
        report.push("time/reward_wait_s", batch.wait_seconds);
        report.push("time/update_s", batch.update_seconds);
        Ok(report)
    }
}

impl Persist for Ddpo {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("prompts", &self.stats)?;
        out.nested("updates", &self.stepper)?;
        for (k, (_, stats)) in self.parts.iter().enumerate() {
            out.nested(&format!("parts.{k}"), stats)?;
        }
        if let Some(unscored) = &self.unscored {
            out.nested("unscored", unscored)?;
        }
        match &self.pending {
            Some(batch) => out.nested("pending", batch),
            None => Ok(()),
        }
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("prompts", &mut self.stats)?;
        from.nested("updates", &mut self.stepper)?;
        for (k, (_, stats)) in self.parts.iter_mut().enumerate() {
            from.nested(&format!("parts.{k}"), stats)?;
        }
        self.unscored = None;
        if from.contains("unscored") {
            let mut unscored = Unscored::new(0);
            from.nested("unscored", &mut unscored)?;
            self.unscored = Some(unscored);
        }
        self.pending = None;
        if from.contains("pending") {
            let mut batch = Batch::empty()?;
            from.nested("pending", &mut batch)?;
            self.pending = Some(batch);
        }
        Ok(())
    }
}
