//! DDPO: sample with the policy, score, and raise the probability of the denoising steps that led to what
//! scored better than usual.
//!
//! Which rank draws which sample follows from the shuffle, which is known beforehand: every update trains on
//! the same samples on any number of ranks.

use ddpo_reward::Prompt;
use ddpo_sched::{Sampler, Stream};
use ddpo_train::{
    Algorithm, Error, Meter, Persist, Result, RolloutRequest, RolloutSink, ScoredSample,
    StateReader, StateWriter, TrainContext, UpdateIndex, Updater,
};

use crate::replay::clip;
use crate::{DdpoConfig, PromptStats, TrajectoryStore};

/// DDPO-SF and DDPO-IS as one algorithm: they differ in the loss and in the number of updates.
#[derive(Debug)]
pub struct Ddpo {
    pub(crate) config: DdpoConfig,
    pub(crate) stats: PromptStats,
    /// What each part of a composite reward counts, and its own rewards so far; empty for the reward as it is.
    pub(crate) parts: Vec<(f64, PromptStats)>,
    /// What was sampled in this epoch.
    pub(crate) trajectories: TrajectoryStore,
    /// One per row of the trajectories, clipped; empty until they are scored.
    pub(crate) advantages: Vec<f32>,
    pub(crate) ratio_checked: bool,
    pub(crate) updater: Updater,
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
            trajectories: TrajectoryStore::default(),
            advantages: Vec::new(),
            ratio_checked: false,
            updater: Updater::new(config.max_grad_norm, config.max_skipped),
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
    fn ids(&self, ctx: &TrainContext<'_>, epoch: u64) -> Vec<u64> {
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

    fn advantages_of_parts(
        &mut self,
        prompts: &[Prompt],
        samples: &[ScoredSample],
    ) -> Result<Vec<f64>> {
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
    fn request(&self, ctx: &TrainContext<'_>, epoch: u64) -> Result<RolloutRequest> {
        Ok(RolloutRequest {
            samples_per_prompt: self.config.samples_per_prompt,
            shared_noise: self.config.shared_noise,
            log_prob: Some(self.config.log_prob),
            ..RolloutRequest::new(self.ids(ctx, epoch), self.config.sample_batch)
        })
    }

    fn sink(&mut self) -> &mut dyn RolloutSink {
        &mut self.trajectories
    }

    fn prepare(
        &mut self,
        _ctx: &mut TrainContext<'_>,
        _epoch: u64,
        samples: &mut [ScoredSample],
        _stats: &mut Meter,
    ) -> Result<()> {
        let prompts: Vec<Prompt> = samples.iter().map(|s| s.prompt.clone()).collect();
        let rewards: Vec<f32> = samples.iter().map(|s| s.reward).collect();
        let mut advantages = self.stats.update(&prompts, &rewards)?;
        if !self.parts.is_empty() {
            advantages = self.advantages_of_parts(&prompts, samples)?;
        }
        for (sample, advantage) in samples.iter_mut().zip(advantages) {
            sample.advantage = clip(advantage, self.config.advantage_clip);
        }
        // Samples come by id, and ids are 0..samples_per_epoch.
        let ids = &self.trajectories.all()?.sample_ids;
        self.advantages = ids
            .iter()
            .map(|&id| samples[id as usize].advantage)
            .collect();
        Ok(())
    }

    fn n_updates(&self) -> usize {
        self.config.updates_per_epoch
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
        self.config.stats()
    }

    fn finish(&mut self) {
        self.trajectories.clear();
        self.advantages.clear();
    }
}

impl Persist for Ddpo {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("prompts", &self.stats)?;
        out.nested("updates", &self.updater)?;
        for (k, (_, stats)) in self.parts.iter().enumerate() {
            out.nested(&format!("parts.{k}"), stats)?;
        }
        out.nested("trajectories", &self.trajectories)?;
        out.value("advantages", &self.advantages)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("prompts", &mut self.stats)?;
        from.nested("updates", &mut self.updater)?;
        for (k, (_, stats)) in self.parts.iter_mut().enumerate() {
            from.nested(&format!("parts.{k}"), stats)?;
        }
        from.nested("trajectories", &mut self.trajectories)?;
        self.advantages = from.value("advantages")?;
        Ok(())
    }
}
