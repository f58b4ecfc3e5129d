//! Reward-weighted regression: sample a pool, weigh it, train on it as on data.

use std::time::Instant;

use ddpo_sched::NoiseSchedule;
use ddpo_train::{
    Algorithm, Context, Event, Persist, Report, Result, SampleRow, Share, StateReader, StateWriter,
    Stepper, Unscored, rollout,
};

use crate::pool::Harvest;
use crate::{Batch, Pool, RwrConfig, effective_samples};

/// RWR and sparse RWR as one algorithm: they differ in the weights.
#[derive(Debug)]
pub struct Rwr {
    pub(crate) config: RwrConfig,
    pub(crate) schedule: NoiseSchedule,
    pub(crate) stepper: Stepper,
    /// A round whose reward failed.
    pub(crate) unscored: Option<Unscored>,
    /// What is left of a round that was stopped between two updates.
    pub(crate) pending: Option<Batch>,
}

impl Rwr {
    /// Trains with the noise of `schedule`, which is that of the model.
    ///
    /// # Errors
    /// As [`RwrConfig::check`].
    pub fn new(config: RwrConfig, schedule: NoiseSchedule, world: usize) -> Result<Self> {
        config.check(world)?;
        Ok(Self {
            config,
            schedule,
            stepper: Stepper::new(config.max_grad_norm, config.max_skipped),
            unscored: None,
            pending: None,
        })
    }

    /// The numbers it runs with.
    pub fn config(&self) -> &RwrConfig {
        &self.config
    }

    /// Which samples of a round a rank draws: the rank's part of 0, 1, …
    pub(crate) fn share<'i>(&self, epoch: u64, sample_ids: &'i [u64]) -> Share<'i> {
        Share {
            epoch,
            sample_ids,
            batch: self.config.sample_batch,
            samples_per_prompt: self.config.samples_per_prompt,
            guide: None,
        }
    }
}

impl Algorithm for Rwr {
    type Batch = Batch;

    fn collect(&mut self, ctx: &mut Context<'_>, epoch: u64) -> Result<Batch> {
        if let Some(batch) = self.pending.take_if(|batch| batch.epoch == epoch) {
            return Ok(batch);
        }
        let mine = self.config.samples_per_rank(ctx.collective.world()) as u64;
        let first = ctx.collective.rank() as u64 * mine;
        let ids: Vec<u64> = (first..first + mine).collect();
        let mut harvest = Harvest::new(self.config.latents, ctx.encoder);
        let share = self.share(epoch, &ids);
        let mut unscored = self.unscored.take();
        let drawn = rollout(ctx, &share, &mut harvest, &mut unscored);
        self.unscored = unscored;
        let drawn = drawn?;
        let prompts: Vec<&str> = drawn
            .samples
            .iter()
            .map(|s| s.prompt.text.as_str())
            .collect();
        let rewards: Vec<f64> = drawn.samples.iter().map(|s| f64::from(s.reward)).collect();
        let weighting = self.config.weighting;
        let weights = weighting.weigh(self.config.scope, &prompts, &rewards)?;
        let reward = drawn.reward_moments();
        let rows = drawn.samples.into_iter().zip(&weights);
        let rows: Vec<SampleRow> = rows
            .map(|(sample, &weight)| SampleRow {
                sample_id: sample.sample_id,
                prompt: sample.prompt,
                reward: sample.reward,
                advantage: weight as f32,
                parts: sample.parts,
                answer: sample.answer,
            })
            .collect();
        ctx.emit(&Event::Rewarded {
            epoch,
            samples: &rows,
        })?;
        let pool = Pool::gather(ctx, harvest, &weights)?;
        let seconds = (drawn.sample_seconds, drawn.wait_seconds);
        Ok(Batch::new(epoch, pool, reward, seconds))
    }

    fn update(&mut self, ctx: &mut Context<'_>, mut batch: Batch) -> Result<Report> {
        let begin = Instant::now();
        let conds = self.conds(ctx, &batch)?;
        while batch.next_update < self.config.updates_per_round {
            self.step(ctx, &mut batch, &conds)?;
            batch.next_update += 1;
            if batch.next_update < self.config.updates_per_round && ctx.stop_midway() {
                batch.update_seconds += begin.elapsed().as_secs_f64();
                self.pending = Some(batch);
                return Err(ddpo_train::Error::Stopped);
            }
        }
        batch.update_seconds += begin.elapsed().as_secs_f64();
        let mut report = Report {
            reward_queries: self.config.samples_per_round as u64,
            ..Report::default()
        };
        report.push("reward/mean", batch.reward.0);
        report.push("reward/std", batch.reward.1);
        let weights: Vec<f64> = batch.pool.weights.iter().map(|&w| f64::from(w)).collect();
        report.push("rwr/kept", weights.len() as f64);
        report.push("rwr/effective_samples", effective_samples(&weights));
        report.push(
            "rwr/weight_max",
            weights.iter().copied().fold(0.0, f64::max),
        );
        batch.meter.report(&mut report);
        report.push("time/sample_s", batch.sample_seconds);
        report.push("time/reward_wait_s", batch.wait_seconds);
        report.push("time/update_s", batch.update_seconds);
        Ok(report)
    }
}

impl Persist for Rwr {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("updates", &self.stepper)?;
        if let Some(unscored) = &self.unscored {
            out.nested("unscored", unscored)?;
        }
        match &self.pending {
            Some(batch) => out.nested("pending", batch),
            None => Ok(()),
        }
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("updates", &mut self.stepper)?;
        self.unscored = None;
        if from.contains("unscored") {
            let mut unscored = Unscored::new(0);
            from.nested("unscored", &mut unscored)?;
            self.unscored = Some(unscored);
        }
        self.pending = None;
        if from.contains("pending") {
            let mut batch = Batch::new(0, Pool::empty(), (0.0, 0.0), (0.0, 0.0));
            from.nested("pending", &mut batch)?;
            self.pending = Some(batch);
        }
        Ok(())
    }
}
