//! The state machine of an epoch: sample, score, update; what is left of it when it is interrupted is state.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::partial::PartialEpoch;
use crate::rollout::{EpochSamples, rollout};
use crate::{
    Error, Event, Meter, Metrics, Persist, Result, RolloutRequest, RolloutSink, ScoredSample,
    StateReader, StateWriter, TrainContext, UpdateIndex, moments,
};

/// A way of improving a policy by its rewards. The loop calls, epoch after epoch: [`request`](Self::request), the sink
/// while samples are drawn, [`prepare`](Self::prepare) once they are scored, [`update`](Self::update) as often as
/// [`n_updates`](Self::n_updates) says, and [`finish`](Self::finish).
///
/// What it takes of an epoch is its own state, from the first sample to `finish`: a run that is interrupted between
/// these calls goes on with the next one.
pub trait Algorithm: Persist {
    /// Which samples of an epoch this rank draws.
    ///
    /// # Errors
    /// What the context lacks, such as an encoder.
    fn request(&self, ctx: &TrainContext<'_>, epoch: u64) -> Result<RolloutRequest>;

    /// What takes samples while they are drawn; the unit type takes nothing.
    fn sink(&mut self) -> &mut dyn RolloutSink;

    /// All samples of all ranks are scored and come by id: sets their advantages, and makes of them and of the sink
    /// what updates need. Metrics of the epoch go to `stats`.
    ///
    /// # Errors
    /// What cannot be learned from.
    fn prepare(
        &mut self,
        ctx: &mut TrainContext<'_>,
        epoch: u64,
        samples: &mut [ScoredSample],
        stats: &mut Meter,
    ) -> Result<()>;

    /// Updates per epoch; 0 trains nothing.
    fn n_updates(&self) -> usize;

    /// One update of the policy: accumulates gradients and hands them to an [`Updater`](crate::Updater).
    ///
    /// # Errors
    /// [`Error::NonFinite`] if too many updates in a row were skipped.
    fn update(
        &mut self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
        stats: &mut Meter,
    ) -> Result<()>;

    /// Metrics of an epoch, none of them measured yet.
    fn stats(&self) -> Meter;

    /// The epoch is complete: forgets what was taken of it.
    fn finish(&mut self) {
        self.sink().clear();
    }
}

/// One whole epoch, without checkpoints: what [`train`](crate::train) does between two of them.
///
/// # Errors
/// What the algorithm, an observer or the reward reports. An epoch that was begun is lost then.
pub fn run_epoch(
    algorithm: &mut dyn Algorithm,
    ctx: &mut TrainContext<'_>,
    epoch: u64,
) -> Result<Metrics> {
    EpochState::default().run(algorithm, ctx, epoch)
}

/// What a rank must remember of an epoch that is not complete, beside the algorithm.
#[derive(Debug, Default)]
pub(crate) struct EpochState {
    partial: Option<PartialEpoch>,
    learning: Option<Learning>,
}

/// An epoch that is scored.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Learning {
    epoch: u64,
    next_update: usize,
    n_samples: u64,
    /// Mean and population deviation of the epoch's rewards, over all ranks.
    reward: (f64, f64),
    stats: Meter,
    sample_seconds: f64,
    wait_seconds: f64,
    update_seconds: f64,
}

impl EpochState {
    /// Takes the epoch to its end from wherever it stands.
    ///
    /// # Errors
    /// [`Error::Stopped`] on request; what is left of the epoch is then in here and in the algorithm.
    pub(crate) fn run(
        &mut self,
        algorithm: &mut dyn Algorithm,
        ctx: &mut TrainContext<'_>,
        epoch: u64,
    ) -> Result<Metrics> {
        let earlier = self.learning.take().filter(|it| it.epoch == epoch);
        let learning = match earlier {
            Some(earlier) => earlier,
            None => self.collect(algorithm, ctx, epoch)?,
        };
        let learning = self.learning.insert(learning);
        let n_updates = algorithm.n_updates();
        let begin = Instant::now();
        while learning.next_update < n_updates {
            let at = UpdateIndex {
                epoch,
                update: learning.next_update,
                n_updates,
            };
            algorithm.update(ctx, at, &mut learning.stats)?;
            learning.next_update += 1;
            if learning.next_update < n_updates && ctx.stop_midway() {
                learning.update_seconds += begin.elapsed().as_secs_f64();
                return Err(Error::Stopped);
            }
        }
        learning.update_seconds += begin.elapsed().as_secs_f64();
        let metrics = learning.metrics(ctx);
        self.learning = None;
        algorithm.finish();
        Ok(metrics)
    }

    /// Samples, scores and prepares.
    fn collect(
        &mut self,
        algorithm: &mut dyn Algorithm,
        ctx: &mut TrainContext<'_>,
        epoch: u64,
    ) -> Result<Learning> {
        let request = algorithm.request(ctx, epoch)?;
        let drawn = rollout(ctx, epoch, &request, algorithm.sink(), &mut self.partial)?;
        let EpochSamples {
            mut samples,
            sample_seconds,
            wait_seconds,
        } = drawn;
        let mut stats = algorithm.stats();
        algorithm.prepare(ctx, epoch, &mut samples, &mut stats)?;
        ctx.emit(&Event::Rewarded {
            epoch,
            samples: &samples,
        })?;
        Ok(Learning {
            epoch,
            n_samples: samples.len() as u64,
            reward: moments(samples.iter().map(|sample| f64::from(sample.reward))),
            stats,
            sample_seconds,
            wait_seconds,
            ..Learning::default()
        })
    }
}

impl Learning {
    fn metrics(&self, ctx: &TrainContext<'_>) -> Metrics {
        let mut metrics = Metrics {
            reward_queries: self.n_samples,
            ..Metrics::default()
        };
        metrics.push("reward/mean", self.reward.0);
        metrics.push("reward/std", self.reward.1);
        self.stats.report(&mut metrics);
        if let Some(scale) = ctx.policy.loss_scale() {
            metrics.push("policy/loss_scale", scale.get());
            metrics.push("policy/overflows", scale.overflows() as f64);
        }
        metrics.push("time/sample_s", self.sample_seconds);
        metrics.push("time/reward_wait_s", self.wait_seconds);
        metrics.push("time/update_s", self.update_seconds);
        metrics
    }
}

impl Persist for EpochState {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        if let Some(partial) = &self.partial {
            out.nested("partial", partial)?;
        }
        match &self.learning {
            Some(learning) => out.value("learning", learning),
            None => Ok(()),
        }
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        *self = Self::default();
        if from.contains("partial") {
            let partial = self.partial.insert(PartialEpoch::new(0));
            from.nested("partial", partial)?;
        }
        if from.contains("learning") {
            self.learning = Some(from.value("learning")?);
        }
        Ok(())
    }
}
