//! The only outer training loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ddpo_reward::Prompt;
use ddpo_sched::{Denoiser, Sampler, Seeds};
use tch::{Device, Tensor};

use crate::{
    Boundary, Checkpoint, Checkpoints, Collective, Conditioner, Decoder, Encoder, Error, Event,
    Guide, Observer, Optimizer, Persist, Policy, Report, Result, RewardWorker, StateReader,
    StateWriter, ranks,
};

/// A way of improving a policy by its rewards: two verbs.
pub trait Algorithm: Persist {
    /// What an epoch learns from.
    type Batch;

    /// Samples from the policy and has the samples scored.
    ///
    /// # Errors
    /// [`Error::Stopped`] on request, with the state as it was before the epoch; [`Error::Reward`].
    fn collect(&mut self, ctx: &mut Context<'_>, epoch: u64) -> Result<Self::Batch>;

    /// Changes the policy.
    ///
    /// # Errors
    /// [`Error::Stopped`] on request, between two steps of the optimiser: what is left of the epoch is then
    /// part of the algorithm's state, and the next [`collect`](Algorithm::collect) of that epoch takes it up.
    /// [`Error::NonFinite`] if too many updates in a row had to be left out.
    fn update(&mut self, ctx: &mut Context<'_>, batch: Self::Batch) -> Result<Report>;

    /// How images are drawn from the first epoch on, where the algorithm changes that and not the policy.
    fn guide(&self) -> Option<&dyn Guide> {
        None
    }
}

/// All that an algorithm works with.
pub struct Context<'a> {
    /// What is trained.
    pub policy: &'a mut dyn Policy,
    /// How it is changed.
    pub optimizer: &'a mut dyn Optimizer,
    /// How latents are drawn.
    pub sampler: &'a dyn Sampler,
    /// What images are worth.
    pub rewards: &'a RewardWorker,
    /// What can be asked for; each sample draws one of these, uniformly.
    pub prompts: &'a [Prompt],
    /// Prompts to conditioning.
    pub conditioner: &'a dyn Conditioner,
    /// Latents to images.
    pub decoder: &'a dyn Decoder,
    /// Images to latents, for algorithms that train on images.
    pub encoder: &'a dyn Encoder,
    /// The policy before training, for algorithms that stay near to it.
    pub reference: Option<&'a dyn Denoiser>,
    /// The ranks that train together.
    pub collective: &'a dyn Collective,
    /// Where random numbers come from.
    pub seeds: Seeds,
    /// Shape of one latent, `[channels, height, width]`.
    pub latent_shape: Vec<i64>,
    /// Where the policy computes.
    pub device: Device,
    /// Set by whoever wants the run to stop.
    pub stop: StopFlag,
    /// Who is told.
    pub observers: Vec<&'a mut dyn Observer>,
}

impl Context<'_> {
    /// Tells all observers.
    ///
    /// # Errors
    /// The first that an observer reports.
    pub fn emit(&mut self, event: &Event<'_>) -> Result<()> {
        let mut observers = self.observers.iter_mut();
        observers.try_for_each(|observer| observer.on(event))
    }

    /// Whether the run may stop in the middle of an epoch, and is asked to. Several ranks stop between epochs.
    pub fn stop_midway(&self) -> bool {
        self.collective.world() == 1 && self.stop.requested()
    }

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// [`Error::Collective`].
    pub fn any_rank(&self, yes: bool) -> Result<bool> {
        let votes = Tensor::from_slice(&[f32::from(u8::from(yes))]).to_device(self.device);
        self.collective
            .all_reduce_mean(std::slice::from_ref(&votes))?;
        Ok(votes.double_value(&[0]) > 0.0)
    }

    /// `guide` draws once an epoch is complete.
    fn at_boundary(
        &mut self,
        progress: &Progress,
        last: bool,
        guide: Option<&dyn Guide>,
    ) -> Result<()> {
        let boundary = Boundary {
            epochs_done: progress.epochs_done,
            reward_queries: progress.reward_queries,
            last,
            policy: &*self.policy,
            sampler: self.sampler,
            conditioner: self.conditioner,
            decoder: self.decoder,
            latent_shape: &self.latent_shape,
            guide: guide.filter(|_| progress.epochs_done > 0),
            // Several ranks look at the policy together.
            stop: (self.collective.world() == 1).then_some(&self.stop),
        };
        let mut observers = self.observers.iter_mut();
        let looked = observers.try_for_each(|observer| observer.at_boundary(&boundary));
        ranks::agree(self.collective, self.device, looked)
    }
}

/// A request to stop, shared with signal handlers and threads.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// No request yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to finish its optimiser step, write a checkpoint and end.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// How long to train and what to keep.
#[derive(Debug, Default)]
pub struct Plan {
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
#[derive(Debug, Default)]
struct Progress {
    epochs_done: u64,
    reward_queries: u64,
    seconds: f64,
    /// A reward failed after the last epoch, while observers looked at the policy, or the run was stopped then.
    boundary_due: bool,
}

impl Persist for Progress {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("epochs_done", &self.epochs_done)?;
        out.value("reward_queries", &self.reward_queries)?;
        out.value("seconds", &self.seconds)?;
        out.value("boundary_due", &self.boundary_due)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.epochs_done = from.value("epochs_done")?;
        self.reward_queries = from.value("reward_queries")?;
        self.seconds = from.value("seconds")?;
        self.boundary_due = from.value("boundary_due")?;
        Ok(())
    }
}

/// Trains: collect and update, epoch after epoch, with checkpoints between.
///
/// A run that goes on from any of its checkpoints ends with the same bytes as one that was never interrupted.
///
/// # Errors
/// What the algorithm, an observer or the disk reports. The last checkpoint stays whole. When the reward fails, a
/// checkpoint with the sampled part of the epoch is written first.
pub fn train<A: Algorithm + ?Sized>(
    algorithm: &mut A,
    ctx: &mut Context<'_>,
    plan: &Plan,
) -> Result<Outcome> {
    let mut progress = Progress::default();
    match &plan.resume {
        Some(checkpoint) => {
            restore(algorithm, ctx, &mut progress, &checkpoint.state)?;
            ctx.emit(&Event::Resumed {
                epochs_done: progress.epochs_done,
                reward_queries: progress.reward_queries,
            })?;
            if std::mem::take(&mut progress.boundary_due) {
                let last = progress.epochs_done >= plan.epochs;
                match ctx.at_boundary(&progress, last, algorithm.guide()) {
                    // The checkpoint that this run goes on from is still the newest.
                    Err(Error::Stopped) => return Ok(Outcome::Interrupted { checkpoint: None }),
                    other => other?,
                }
            }
        }
        None => ctx.at_boundary(&progress, plan.epochs == 0, algorithm.guide())?,
    }
    let mut outcome = None;
    while outcome.is_none() && progress.epochs_done < plan.epochs {
        let begin = Instant::now();
        match epoch(algorithm, ctx, plan, &mut progress) {
            Err(Error::Stopped) => {
                let name = format!("epoch-{:06}-partial", progress.epochs_done);
                let checkpoint = write(algorithm, ctx, plan, &progress, &name, &[])?;
                return Ok(Outcome::Interrupted { checkpoint });
            }
            Err(error) if error.is_of_reward() => {
                // What was sampled and scored is state, on every rank: a resumed run asks for the rest.
                let others = ranks::others(ctx.collective, ctx.device, algorithm)?;
                let name = format!("epoch-{:06}-partial", progress.epochs_done);
                write(algorithm, ctx, plan, &progress, &name, &others)?;
                return Err(error);
            }
            other => other?,
        }
        let epoch_seconds = begin.elapsed().as_secs_f64();
        progress.seconds += epoch_seconds;
        let epochs_done = progress.epochs_done;
        outcome = ending(ctx, plan, &progress, epoch_seconds)?;
        if let Err(error) = ctx.at_boundary(&progress, outcome.is_some(), algorithm.guide()) {
            let stopped = matches!(error, Error::Stopped);
            if stopped || error.is_of_reward() {
                progress.boundary_due = true;
                let name = format!("epoch-{epochs_done:06}");
                let checkpoint = write(algorithm, ctx, plan, &progress, &name, &[])?;
                if stopped {
                    return Ok(Outcome::Interrupted { checkpoint });
                }
            }
            return Err(error);
        }
        let due = plan.checkpoint_every > 0 && epochs_done % plan.checkpoint_every == 0;
        if due || outcome.is_some() {
            let name = format!("epoch-{epochs_done:06}");
            let written = write(algorithm, ctx, plan, &progress, &name, &[])?;
            if let Some(Outcome::Interrupted { checkpoint }) = &mut outcome {
                *checkpoint = written;
            }
        }
    }
    Ok(outcome.unwrap_or(Outcome::Done))
}

fn epoch<A: Algorithm + ?Sized>(
    algorithm: &mut A,
    ctx: &mut Context<'_>,
    plan: &Plan,
    progress: &mut Progress,
) -> Result<()> {
    let epoch = progress.epochs_done;
    ctx.emit(&Event::EpochStarted {
        epoch,
        n_epochs: plan.epochs,
    })?;
    let begin = Instant::now();
    let batch = algorithm.collect(ctx, epoch)?;
    let mut report = algorithm.update(ctx, batch)?;
    let seconds = begin.elapsed().as_secs_f64();
    report.push("time/epoch_s", seconds);
    report.push("time/samples_per_s", report.reward_queries as f64 / seconds);
    progress.epochs_done += 1;
    progress.reward_queries += report.reward_queries;
    ctx.emit(&Event::EpochDone {
        epoch,
        reward_queries: progress.reward_queries,
        report: &report,
    })
}

/// Why the run ends here, if it does; the same on every rank.
fn ending(
    ctx: &Context<'_>,
    plan: &Plan,
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

/// Rank 0 writes; `others` are the states of an algorithm that is not the same on every rank.
fn write<A: Algorithm + ?Sized>(
    algorithm: &A,
    ctx: &mut Context<'_>,
    plan: &Plan,
    progress: &Progress,
    name: &str,
    others: &[StateReader],
) -> Result<Option<PathBuf>> {
    let Some(checkpoints) = &plan.checkpoints else {
        return Ok(None);
    };
    if ctx.collective.rank() != 0 {
        return Ok(None);
    }
    let mut state = StateWriter::new();
    state.nested("run", progress)?;
    state.nested("policy", &*ctx.policy)?;
    state.nested("optimizer", &*ctx.optimizer)?;
    state.nested("algorithm", algorithm)?;
    ranks::save(others, &mut state)?;
    let epochs_done = progress.epochs_done;
    let path = checkpoints.write(name, epochs_done, &state)?;
    ctx.emit(&Event::CheckpointWritten {
        epochs_done,
        path: &path,
    })?;
    Ok(Some(path))
}

fn restore<A: Algorithm + ?Sized>(
    algorithm: &mut A,
    ctx: &mut Context<'_>,
    progress: &mut Progress,
    state: &StateReader,
) -> Result<()> {
    state.nested("run", progress)?;
    state.nested("policy", &mut *ctx.policy)?;
    state.nested("optimizer", &mut *ctx.optimizer)?;
    ranks::restore(ctx.collective, state, algorithm)
}
