//! Reward-weighted regression: sample a pool, weigh it, train on it as on data.

use ddpo_sched::NoiseSchedule;
use ddpo_train::{
    Algorithm, Meter, Persist, Result, RolloutRequest, RolloutSink, ScoredSample, StateReader,
    StateWriter, TrainContext, UpdateIndex, Updater,
};

use crate::pool::{SampleCollector, no_encoder};
use crate::update::PromptConds;
use crate::{Latents, Pool, RwrConfig, effective_samples};

/// RWR and sparse RWR as one algorithm: they differ in the weights.
#[derive(Debug)]
pub struct Rwr {
    pub(crate) config: RwrConfig,
    pub(crate) schedule: NoiseSchedule,
    pub(crate) updater: Updater,
    /// What this rank drew of a round.
    collected: SampleCollector,
    /// What all ranks train on; empty until the round is scored.
    pub(crate) pool: Pool,
    /// Conditioning of the pool, made when it is first needed.
    pub(crate) conds: Option<PromptConds>,
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
            updater: Updater::new(config.max_grad_norm, config.max_skipped),
            collected: SampleCollector::new(config.latents),
            pool: Pool::empty(),
            conds: None,
        })
    }

    /// The numbers it runs with.
    pub fn config(&self) -> &RwrConfig {
        &self.config
    }

    /// The metrics of an update, none of them measured yet.
    pub(crate) fn stats_of_updates() -> Meter {
        Meter::of_updates(&["rwr/loss"])
    }
}

impl Algorithm for Rwr {
    fn request(&self, ctx: &TrainContext<'_>, _epoch: u64) -> Result<RolloutRequest> {
        if self.config.latents == Latents::Reencoded && ctx.model.encoder.is_none() {
            return Err(no_encoder());
        }
        let ids = ctx.ids_of_rank(self.config.samples_per_round);
        Ok(RolloutRequest {
            samples_per_prompt: self.config.samples_per_prompt,
            ..RolloutRequest::new(ids, self.config.sample_batch)
        })
    }

    fn sink(&mut self) -> &mut dyn RolloutSink {
        &mut self.collected
    }

    fn prepare(
        &mut self,
        ctx: &mut TrainContext<'_>,
        _epoch: u64,
        samples: &mut [ScoredSample],
        stats: &mut Meter,
    ) -> Result<()> {
        let prompts: Vec<&str> = samples.iter().map(|s| s.prompt.text.as_str()).collect();
        let rewards: Vec<f64> = samples.iter().map(|s| f64::from(s.reward)).collect();
        let weighting = self.config.weighting;
        let weights = weighting.weigh(self.config.scope, &prompts, &rewards)?;
        for (sample, &weight) in samples.iter_mut().zip(&weights) {
            sample.advantage = weight as f32;
        }
        self.pool = Pool::gather(ctx, &self.collected, &weights)?;
        self.collected.clear();
        self.conds = None;
        let weights: Vec<f64> = self.pool.weights.iter().map(|&w| f64::from(w)).collect();
        stats.add("rwr/kept", weights.len() as f64);
        stats.add("rwr/effective_samples", effective_samples(&weights));
        let largest = weights.iter().copied().fold(0.0, f64::max);
        stats.add("rwr/weight_max", largest);
        Ok(())
    }

    fn n_updates(&self) -> usize {
        self.config.updates_per_round
    }

    fn update(
        &mut self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
        stats: &mut Meter,
    ) -> Result<()> {
        self.one_update(ctx, at, stats)
    }

    fn stats(&self) -> Meter {
        let mut stats = Meter::of_means(&["rwr/kept", "rwr/effective_samples", "rwr/weight_max"]);
        stats.merge(&Self::stats_of_updates());
        stats
    }

    fn finish(&mut self) {
        self.pool = Pool::empty();
        self.conds = None;
    }
}

impl Persist for Rwr {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("updates", &self.updater)?;
        out.nested("collected", &self.collected)?;
        match self.pool.is_empty() {
            true => Ok(()),
            false => out.nested("pool", &self.pool),
        }
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("updates", &mut self.updater)?;
        from.nested("collected", &mut self.collected)?;
        self.finish();
        match from.contains("pool") {
            true => from.nested("pool", &mut self.pool),
            false => Ok(()),
        }
    }
}
