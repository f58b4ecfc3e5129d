//! The only outer training loop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::epoch::EpochState;
use crate::{
    Algorithm, Boundary, Checkpoint, Checkpoints, Error, Event, Persist, PolicySampling, Result,
    StateReader, StateWriter, TrainContext, ranks,
};

/// How long to train and what to keep.
#[derive(Debug, Default)]
pub struct TrainPlan {
    /// Epochs in all, with those before a restart.
    pub epochs: u64,
    /// Epochs between checkpoints; 0 writes one at the end only. The last epoch always has one.
    pub checkpoint_every: u64,
    /// No epoch begins that would, at the length of the last one, end later than this. Counts the time
    /// before a restart.
    pub max_time: Option<Duration>,
    /// Where checkpoints go; without it there are none.
    pub checkpoints: Option<Checkpoints>,
    /// Where to go on from.
    pub resume: Option<Checkpoint>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Done,
    /// `max_time` ended it after this many epochs.
    TimeUp {
        /// Epochs that are complete.
        epochs_done: u64,
    },
    /// It was asked to stop.
    Interrupted {
        /// The checkpoint to go on from, if checkpoints are kept.
        checkpoint: Option<PathBuf>,
    },
}

/// What the loop itself must remember.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    epochs_done: u64,
    reward_queries: u64,
    seconds: f64,
    /// A reward failed after the last epoch, while observers looked at the policy, or the run was stopped then.
    boundary_due: bool,
}

impl TrainPlan {
    /// This many epochs, without checkpoints.
    pub fn epochs(epochs: u64) -> Self {
        Self {
            epochs,
            ..Self::default()
        }
    }
}

/// Trains, epoch after epoch, with checkpoints between.
///
/// A run that goes on from any of its checkpoints ends with the same bytes as one that was never interrupted.
///
/// # Errors
/// What the algorithm, an observer or the disk reports. The last checkpoint stays whole. When the reward fails, a
/// checkpoint with the sampled part of the epoch is written first.
pub fn train(
    algorithm: &mut dyn Algorithm,
    ctx: &mut TrainContext<'_>,
    plan: &TrainPlan,
) -> Result<Outcome> {
    let mut run = Run {
        algorithm,
        epoch: EpochState::default(),
        progress: Progress::default(),
    };
    if let Some(outcome) = run.begin(ctx, plan)? {
        return Ok(outcome);
    }
    let mut outcome = None;
    while outcome.is_none() && run.progress.epochs_done < plan.epochs {
        let begin = Instant::now();
        match run.one_epoch(ctx, plan) {
            Err(Error::Stopped) => {
                let checkpoint = run.write(ctx, plan, "-partial", &[])?;
                return Ok(Outcome::Interrupted { checkpoint });
            }
            Err(error) if error.is_of_reward() => {
                // What was sampled and scored is state, on every rank: a resumed run asks for the rest.
                let others = ranks::others(ctx.collective, ctx.device, &run)?;
                run.write(ctx, plan, "-partial", &others)?;
                return Err(error);
            }
            other => other?,
        }
        let epoch_seconds = begin.elapsed().as_secs_f64();
        run.progress.seconds += epoch_seconds;
        outcome = ending(ctx, plan, &run.progress, epoch_seconds)?;
        if let Some(interrupted) = run.at_boundary(ctx, plan, outcome.is_some())? {
            return Ok(interrupted);
        }
        let every = plan.checkpoint_every;
        let due = every > 0 && run.progress.epochs_done.is_multiple_of(every);
        if due || outcome.is_some() {
            let written = run.write(ctx, plan, "", &[])?;
            if let Some(Outcome::Interrupted { checkpoint }) = &mut outcome {
                *checkpoint = written;
            }
        }
    }
    Ok(outcome.unwrap_or(Outcome::Done))
}

/// What a run consists of, beside the context.
struct Run<'a> {
    algorithm: &'a mut dyn Algorithm,
    epoch: EpochState,
    progress: Progress,
}

/// What differs from rank to rank in the middle of an epoch: the rest of a run is the same everywhere.
impl Persist for Run<'_> {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.algorithm.save(out)?;
        out.nested("epoch", &self.epoch)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.algorithm.load(from)?;
        from.nested("epoch", &mut self.epoch)
    }
}

impl Run<'_> {
    /// Goes on from a checkpoint if there is one, and lets observers look at the policy before the first epoch, or
    /// where they were kept from it. An outcome if that is where it ends.
    fn begin(&mut self, ctx: &mut TrainContext<'_>, plan: &TrainPlan) -> Result<Option<Outcome>> {
        let Some(checkpoint) = &plan.resume else {
            return self.at_boundary(ctx, plan, plan.epochs == 0);
        };
        let state = &checkpoint.state;
        self.progress = state.value("run.progress")?;
        state.nested("policy", &mut *ctx.policy)?;
        state.nested("optimizer", &mut *ctx.optimizer)?;
        ranks::restore(ctx.collective, state, self)?;
        ctx.emit(&Event::Resumed {
            epochs_done: self.progress.epochs_done,
            reward_queries: self.progress.reward_queries,
        })?;
        if !std::mem::take(&mut self.progress.boundary_due) {
            return Ok(None);
        }
        match self.look(ctx, self.progress.epochs_done >= plan.epochs) {
            // The checkpoint that this run goes on from is still the newest.
            Err(Error::Stopped) => Ok(Some(Outcome::Interrupted { checkpoint: None })),
            looked => looked.map(|()| None),
        }
    }

    fn one_epoch(&mut self, ctx: &mut TrainContext<'_>, plan: &TrainPlan) -> Result<()> {
        let epoch = self.progress.epochs_done;
        ctx.emit(&Event::EpochStarted {
            epoch,
            n_epochs: plan.epochs,
        })?;
        let begin = Instant::now();
        let mut report = self.epoch.run(&mut *self.algorithm, ctx, epoch)?;
        let seconds = begin.elapsed().as_secs_f64();
        report.push("time/epoch_s", seconds);
        report.push("time/samples_per_s", report.reward_queries as f64 / seconds);
        self.progress.epochs_done += 1;
        self.progress.reward_queries += report.reward_queries;
        ctx.emit(&Event::EpochDone {
            epoch,
            reward_queries: self.progress.reward_queries,
            report: &report,
        })
    }

    /// Observers look at the policy.
    fn look(&self, ctx: &mut TrainContext<'_>, last: bool) -> Result<()> {
        let Progress {
            epochs_done,
            reward_queries,
            ..
        } = self.progress;
        let boundary = Boundary {
            epochs_done,
            reward_queries,
            last,
            policy: &*ctx.policy,
            sampler: ctx.sampler,
            // What is measured before the first epoch is the policy that the run begins with, however it draws.
            strategy: match epochs_done {
                0 => &PolicySampling,
                _ => ctx.strategy,
            },
            model: &ctx.model,
            // Several ranks look at the policy together.
            stop: (ctx.collective.world() == 1).then_some(&ctx.stop),
        };
        let mut observers = ctx.observers.iter_mut();
        let looked = observers.try_for_each(|observer| observer.at_boundary(&boundary));
        ranks::agree(ctx.collective, ctx.device, looked)
    }

    /// [`look`](Self::look); if observers are stopped, or a reward fails them, a checkpoint makes a resumed run begin
    /// with it.
    fn at_boundary(
        &mut self,
        ctx: &mut TrainContext<'_>,
        plan: &TrainPlan,
        last: bool,
    ) -> Result<Option<Outcome>> {
        let Err(error) = self.look(ctx, last) else {
            return Ok(None);
        };
        let stopped = matches!(error, Error::Stopped);
        if stopped || error.is_of_reward() {
            self.progress.boundary_due = true;
            let checkpoint = self.write(ctx, plan, "", &[])?;
            if stopped {
                return Ok(Some(Outcome::Interrupted { checkpoint }));
            }
        }
        Err(error)
    }

    /// Rank 0 writes; `others` are the states of ranks that are not in the state of this one.
    fn write(
        &mut self,
        ctx: &mut TrainContext<'_>,
        plan: &TrainPlan,
        suffix: &str,
        others: &[StateReader],
    ) -> Result<Option<PathBuf>> {
        let Some(checkpoints) = &plan.checkpoints else {
            return Ok(None);
        };
        if ctx.collective.rank() != 0 {
            return Ok(None);
        }
        let mut state = StateWriter::new();
        state.value("run.progress", &self.progress)?;
        state.nested("policy", &*ctx.policy)?;
        state.nested("optimizer", &*ctx.optimizer)?;
        state.nested("algorithm", self)?;
        ranks::save(others, &mut state)?;
        let epochs_done = self.progress.epochs_done;
        let name = format!("epoch-{epochs_done:06}{suffix}");
        let path = checkpoints.write(&name, epochs_done, &state)?;
        ctx.emit(&Event::CheckpointWritten {
            epochs_done,
            path: &path,
        })?;
        Ok(Some(path))
    }
}

/// Why the run ends here, if it does; the same on every rank.
fn ending(
    ctx: &TrainContext<'_>,
    plan: &TrainPlan,
    progress: &Progress,
    epoch_seconds: f64,
) -> Result<Option<Outcome>> {
    if progress.epochs_done >= plan.epochs {
        return Ok(Some(Outcome::Done));
    }
    if ctx.any_rank(ctx.stop.requested())? {
        return Ok(Some(Outcome::Interrupted { checkpoint: None }));
    }
    let late = |limit: Duration| progress.seconds + epoch_seconds > limit.as_secs_f64();
    if ctx.any_rank(plan.max_time.is_some_and(late))? {
        let epochs_done = progress.epochs_done;
        return Ok(Some(Outcome::TimeUp { epochs_done }));
    }
    Ok(None)
}
