//! What a run tells those who watch it.

use std::path::Path;

use ddpo_reward::{Images, Prompt};
use ddpo_sched::{Denoiser, LatentBatch, NoiseSource, Sampler, StepRecord};

use crate::{ImageModel, Policy, Result, SamplingStrategy, ScoredSample, StopFlag, UpdateIndex};

/// Watches a run: progress bars, tables, images, event files.
pub trait Observer {
    /// Something happened.
    ///
    /// # Errors
    /// Ends the run.
    fn on(&mut self, event: &Event<'_>) -> Result<()>;

    /// The run is between epochs: before the first, and after each. The time to draw images.
    ///
    /// # Errors
    /// Ends the run.
    fn at_boundary(&mut self, boundary: &Boundary<'_>) -> Result<()> {
        let _ = boundary;
        Ok(())
    }
}

/// What can be looked at between epochs.
#[derive(Clone, Copy)]
pub struct Boundary<'a> {
    /// Epochs that are complete.
    pub epochs_done: u64,
    /// Reward queries so far.
    pub reward_queries: u64,
    /// Whether the run ends here.
    pub last: bool,
    /// The policy as it is now.
    pub policy: &'a dyn Policy,
    /// The sampler of the run.
    pub sampler: &'a dyn Sampler,
    /// How images are drawn.
    pub strategy: &'a dyn SamplingStrategy,
    /// Prompts to conditioning, latents to images.
    pub model: &'a ImageModel<'a>,
    /// Whether the run is asked to stop; none where it cannot stop here.
    pub stop: Option<&'a StopFlag>,
}

impl Boundary<'_> {
    /// Denoising steps of an image.
    pub fn n_steps(&self) -> usize {
        self.strategy.n_steps(self.sampler)
    }

    /// Draws one batch of images with the policy as it is now.
    ///
    /// What a sample looks like depends on its prompt, its id and `noise`, not on the batch.
    /// `progress` is told of every denoising step, with how many images took it.
    ///
    /// # Errors
    /// What conditioner, network, noise or decoder report. [`Error::Stopped`](crate::Error::Stopped) on request: the
    /// run goes on with this boundary when it is resumed.
    pub fn draw(
        &self,
        prompts: &[Prompt],
        sample_ids: &[u64],
        noise: &dyn NoiseSource,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Images> {
        let together = self.strategy.max_batch().min(prompts.len()).max(1);
        let parts = prompts.chunks(together).zip(sample_ids.chunks(together));
        let parts = parts
            .map(|(prompts, ids)| self.draw_together(prompts, ids, noise, progress))
            .collect::<Result<Vec<_>>>()?;
        Ok(Images::concat(&parts)?)
    }

    fn draw_together(
        &self,
        prompts: &[Prompt],
        sample_ids: &[u64],
        noise: &dyn NoiseSource,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Images> {
        let cond = self.model.conditioner.embed(prompts)?;
        let batch = LatentBatch {
            shape: &self.model.latent_shape,
            cond: &cond,
            sample_ids,
            log_prob: None,
        };
        let mut observe = |_: StepRecord<'_>| {
            progress(sample_ids.len());
            match self.stop.is_some_and(StopFlag::requested) {
                true => Err(ddpo_sched::Error::Stopped),
                false => Ok(()),
            }
        };
        let (policy, sampler): (&dyn Denoiser, _) = (self.policy, self.sampler);
        let latents =
            self.strategy
                .sample(policy, sampler, prompts, &batch, noise, &mut observe)?;
        self.model.decoder.decode(&latents)
    }
}

/// Part of an epoch, for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Denoising; counted in samples × steps of this rank.
    Sample,
    /// Waiting for rewards; counted in batches.
    Reward,
    /// Forward and backward passes; counted in samples × steps of this rank.
    Update,
}

/// Something happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An epoch begins.
    EpochStarted {
        /// Which, from 0.
        epoch: u64,
        /// How many the run has.
        n_epochs: u64,
    },
    /// Work went on.
    Progress {
        /// Which epoch.
        epoch: u64,
        /// Which part of it.
        phase: Phase,
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// Images were made and are on their way to the reward.
    BatchSampled {
        /// Which epoch.
        epoch: u64,
        /// Ids of the samples.
        sample_ids: &'a [u64],
        /// What each was asked to show.
        prompts: &'a [Prompt],
        /// The images.
        images: &'a Images,
    },
    /// All rewards of an epoch, from all ranks, by sample id.
    Rewarded {
        /// Which epoch.
        epoch: u64,
        /// One per sample.
        samples: &'a [ScoredSample],
    },
    /// The check before the first update of a run: replayed over sampled probability, at every step.
    RatioChecked {
        /// Largest |ratio − 1|.
        deviation: f64,
        /// What is allowed; infinite if the check is off.
        bound: f64,
        /// The step where it is largest, noisiest first.
        step: usize,
        /// Its model time.
        timestep: f64,
        /// Largest |ratio − 1| of each step, noisiest first.
        by_step: &'a [f64],
    },
    /// The optimiser made an update.
    UpdateDone {
        /// Which.
        at: UpdateIndex,
        /// Metrics of this update.
        report: &'a Metrics,
    },
    /// An update was skipped because a number was not finite.
    UpdateSkipped {
        /// Which.
        at: UpdateIndex,
        /// What was not finite and where.
        reason: &'a str,
        /// How many updates in a row were skipped, with this one.
        in_a_row: u32,
    },
    /// An epoch is complete.
    EpochDone {
        /// Which.
        epoch: u64,
        /// Reward queries so far, with this epoch's.
        reward_queries: u64,
        /// Its metrics.
        report: &'a Metrics,
    },
    /// A checkpoint is whole on disk.
    CheckpointWritten {
        /// Epochs that it has complete.
        epochs_done: u64,
        /// Its folder.
        path: &'a Path,
    },
    /// The run goes on from a checkpoint.
    Resumed {
        /// Epochs that are complete.
        epochs_done: u64,
        /// Reward queries so far.
        reward_queries: u64,
    },
}

/// Named numbers, in the order in which they are to be shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// How many rewards were asked for.
    pub reward_queries: u64,
    /// `group/name` and value.
    pub metrics: Vec<(String, f64)>,
}

impl Metrics {
    /// Adds a number.
    pub fn push(&mut self, name: &str, value: f64) {
        self.metrics.push((name.to_owned(), value));
    }

    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.metrics.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| *value)
    }
}
