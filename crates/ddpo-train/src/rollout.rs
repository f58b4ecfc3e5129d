//! Drawing and scoring an epoch's samples, the same for every algorithm.
//!
//! An algorithm says which samples this rank draws and takes what it needs of them through [`RolloutSink`]: whole
//! trajectories, or what the images are made of. Denoising, decoding, rewards on their threads, stopping on request
//! and the exchange of rewards between ranks are done here.

use std::sync::Arc;
use std::time::Instant;

use ddpo_reward::{Images, Prompt, Score};
use ddpo_sched::{Conditioning, Denoiser, KeyedNoise, LatentBatch, LogProb, StepRecord};
use tch::{Device, Tensor};

use crate::partial::PartialEpoch;
use crate::ranks::agree;
use crate::{Error, Event, Phase, Result, Ticket, TrainContext};

/// Which samples of an epoch this rank draws, and how.
#[derive(Debug, Clone)]
pub struct RolloutRequest {
    /// Their keys, in the order in which they are drawn.
    pub sample_ids: Vec<u64>,
    /// How many are denoised together. Changes memory and speed only.
    pub batch: usize,
    /// How many samples of neighbouring ids get one and the same prompt; 1 draws a prompt for each.
    pub samples_per_prompt: usize,
    /// Whether these neighbours start from one initial latent too.
    pub shared_noise: bool,
    /// Whether steps come with log-probabilities, and which.
    pub log_prob: Option<LogProb>,
}

impl RolloutRequest {
    /// These samples in batches of `batch`, a prompt for each, without log-probabilities.
    pub fn new(sample_ids: Vec<u64>, batch: usize) -> Self {
        Self {
            sample_ids,
            batch: batch.max(1),
            samples_per_prompt: 1,
            shared_noise: false,
            log_prob: None,
        }
    }
}

/// What an algorithm takes from samples while they are drawn. It is part of the algorithm's state.
pub trait RolloutSink {
    /// Forgets everything: an epoch is about to be drawn, or was stopped while it was.
    fn clear(&mut self);

    /// A denoising step of the batch that is being drawn.
    ///
    /// # Errors
    /// Ends the epoch.
    fn on_step(&mut self, record: &StepRecord<'_>) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// A batch is denoised: its keys, conditioning and x₀, f32 `[batch, …]`, on the device.
    ///
    /// # Errors
    /// Ends the epoch, before anything is scored.
    fn on_latents(&mut self, sample_ids: &[u64], cond: &Conditioning, x_0: &Tensor) -> Result<()> {
        let _ = (sample_ids, cond, x_0);
        Ok(())
    }

    /// The images of that batch.
    ///
    /// # Errors
    /// Ends the epoch, before these images are scored.
    fn on_images(&mut self, ctx: &TrainContext<'_>, images: &Images) -> Result<()> {
        let _ = (ctx, images);
        Ok(())
    }
}

/// For algorithms that take nothing.
impl RolloutSink for () {
    fn clear(&mut self) {}
}

/// A sample with its reward.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredSample {
    /// Its key, unique in the epoch.
    pub sample_id: u64,
    /// What was asked for.
    pub prompt: Prompt,
    /// The reward.
    pub reward: f32,
    /// The rewards of its parts, in the order of [`RewardWorker::parts`](crate::RewardWorker::parts).
    pub parts: Vec<f32>,
    /// What the reward was told about the image; empty if it asks nobody. Of samples of this rank only.
    pub answer: String,
    /// What the algorithm makes of the reward (after clipping); 0 until it has.
    pub advantage: f32,
}

/// An epoch's samples of all ranks.
pub(crate) struct EpochSamples {
    /// By sample id, the same on every rank.
    pub(crate) samples: Vec<ScoredSample>,
    /// Denoising and decoding on this rank.
    pub(crate) sample_seconds: f64,
    /// Waiting for rewards after that.
    pub(crate) wait_seconds: f64,
}

/// Draws, decodes and scores this rank's samples, and exchanges the rewards with the other ranks.
///
/// Images go to the reward as they come, so that it works while the next batch is denoised.
///
/// When the reward fails, on any rank, all that was drawn and all that was scored is put into `partial`; given back
/// with the same epoch, nothing is drawn and only what has no score is asked for.
///
/// # Errors
/// [`Error::Stopped`] on request, midway only with one rank; what the model, the reward, an observer or `sink`
/// reports.
pub(crate) fn rollout(
    ctx: &mut TrainContext<'_>,
    epoch: u64,
    request: &RolloutRequest,
    sink: &mut dyn RolloutSink,
    partial: &mut Option<PartialEpoch>,
) -> Result<EpochSamples> {
    if ctx.prompts.is_empty() {
        return Err(Error::config("prompts", 0, "must be at least 1"));
    }
    let begin = Instant::now();
    let earlier = partial.take().filter(|earlier| earlier.epoch == epoch);
    let (mut scored, tickets) = match earlier {
        Some(earlier) => {
            earlier.check(request)?;
            let tickets = earlier.submit(ctx, request);
            (earlier, tickets)
        }
        None => {
            sink.clear();
            let mut drawn = PartialEpoch::new(epoch);
            let tickets = draw(ctx, request, sink, &mut drawn);
            let tickets = tickets.inspect_err(|_| sink.clear())?;
            (drawn, tickets)
        }
    };
    let sampled = Instant::now();
    let waited = wait(ctx, &mut scored, tickets);
    if let Err(error) = agree(ctx.collective, ctx.device, waited) {
        // Several ranks do not stop in the middle of an epoch on request, but all do when a reward fails.
        match ctx.collective.world() == 1 || error.is_of_reward() {
            true => *partial = Some(scored),
            false => sink.clear(),
        }
        return Err(error);
    }
    Ok(EpochSamples {
        wait_seconds: sampled.elapsed().as_secs_f64(),
        sample_seconds: (sampled - begin).as_secs_f64(),
        samples: exchange(ctx, epoch, request, scored.scores())?,
    })
}

/// Takes in the scores as they come. After the first error, waits for what is being scored and no more.
fn wait(
    ctx: &mut TrainContext<'_>,
    partial: &mut PartialEpoch,
    tickets: Vec<(Vec<usize>, Ticket)>,
) -> Result<()> {
    let (total, mut first) = (tickets.len() as u64, None);
    for (done, (rows, ticket)) in (1..).zip(tickets) {
        let (may_stop, stop) = (ctx.collective.world() == 1, ctx.stop.clone());
        let answered = ticket.settle(&|| !(may_stop && stop.requested()));
        partial.take_in(&rows, answered.scores);
        if let (Some(error), None) = (answered.error, &first) {
            ctx.rewards.drop_queued();
            first = Some(error);
        }
        if first.is_none() {
            ctx.emit(&Event::Progress {
                epoch: partial.epoch,
                phase: Phase::Reward,
                done,
                total,
            })?;
        }
    }
    first.map_or(Ok(()), Err)
}

/// The prompts of some samples.
pub(crate) fn prompts_of(
    ctx: &TrainContext<'_>,
    epoch: u64,
    request: &RolloutRequest,
    ids: &[u64],
) -> Vec<Prompt> {
    let prompt = |&id: &u64| ctx.prompt_of(epoch, request.samples_per_prompt, id).clone();
    ids.iter().map(prompt).collect()
}

/// Mean and population standard deviation; zeros for nothing.
pub fn moments(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

fn draw(
    ctx: &mut TrainContext<'_>,
    request: &RolloutRequest,
    sink: &mut dyn RolloutSink,
    drawn: &mut PartialEpoch,
) -> Result<Vec<(Vec<usize>, Ticket)>> {
    let (epoch, mut first, mut tickets) = (drawn.epoch, 0, Vec::new());
    let batch = request.batch.min(ctx.strategy.max_batch()).max(1);
    for chunk in request.sample_ids.chunks(batch) {
        let prompts = prompts_of(ctx, epoch, request, chunk);
        let cond = ctx.model.conditioner.embed(&prompts)?;
        let rows = first..first + chunk.len();
        let x_0 = denoise(ctx, epoch, request, sink, rows, (&prompts, &cond))?;
        sink.on_latents(chunk, &cond, &x_0)?;
        let images = Arc::new(ctx.model.decoder.decode(&x_0)?);
        sink.on_images(ctx, &images)?;
        ctx.emit(&Event::BatchSampled {
            epoch,
            sample_ids: chunk,
            prompts: &prompts,
            images: &images,
        })?;
        let rows = drawn.add(Arc::clone(&images));
        tickets.push((rows, ctx.rewards.submit(images, prompts)));
        first += chunk.len();
    }
    Ok(tickets)
}

/// Walks the denoising loop for some rows of the request, showing every step.
fn denoise(
    ctx: &mut TrainContext<'_>,
    epoch: u64,
    request: &RolloutRequest,
    sink: &mut dyn RolloutSink,
    rows: std::ops::Range<usize>,
    (prompts, cond): (&[Prompt], &Conditioning),
) -> Result<Tensor> {
    let batch = LatentBatch {
        shape: &ctx.model.latent_shape,
        cond,
        sample_ids: &request.sample_ids[rows.clone()],
        log_prob: request.log_prob,
    };
    let shared = match request.shared_noise {
        true => request.samples_per_prompt,
        false => 1,
    };
    let noise = KeyedNoise::new(ctx.seeds, epoch).with_shared_initial(shared);
    let n_steps = ctx.strategy.n_steps(ctx.sampler);
    let (may_stop, stop) = (ctx.collective.world() == 1, &ctx.stop);
    let observers = &mut ctx.observers;
    let mut refused = None;
    let mut observe = |record: StepRecord<'_>| {
        let event = Event::Progress {
            epoch,
            phase: Phase::Sample,
            done: (rows.start * n_steps + (record.step + 1) * rows.len()) as u64,
            total: (request.sample_ids.len() * n_steps) as u64,
        };
        let mut told = || observers.iter_mut().try_for_each(|o| o.on(&event));
        refused = sink.on_step(&record).and_then(|()| told()).err();
        match refused.is_some() || (may_stop && stop.requested()) {
            true => Err(ddpo_sched::Error::Stopped),
            false => Ok(()),
        }
    };
    let (policy, sampler): (&dyn Denoiser, _) = (&*ctx.policy, ctx.sampler);
    let drawn = ctx
        .strategy
        .sample(policy, sampler, prompts, &batch, &noise, &mut observe);
    match refused {
        Some(error) => Err(error),
        None => drawn,
    }
}

/// Rewards of all ranks, by sample id. Answers stay with the rank that asked.
fn exchange(
    ctx: &TrainContext<'_>,
    epoch: u64,
    request: &RolloutRequest,
    scores: Vec<Score>,
) -> Result<Vec<ScoredSample>> {
    let n_parts = ctx.rewards.parts().len();
    let gather = |values: Vec<f64>| -> Result<Vec<f64>> {
        let values = Tensor::from_slice(&values).to_device(ctx.device);
        let all = ctx.collective.all_gather(&values)?;
        Vec::<f64>::try_from(&all.to_device(Device::Cpu)).map_err(Error::model)
    };
    // Ids are below 2⁵³ and rewards f32: f64 carries both exactly.
    let ids = gather(request.sample_ids.iter().map(|&id| id as f64).collect())?;
    let rewards = gather(scores.iter().map(|s| f64::from(s.value)).collect())?;
    let of_parts = scores.iter().flat_map(|s| &s.parts).map(|&p| f64::from(p));
    let parts = match n_parts {
        0 => Vec::new(),
        _ => gather(of_parts.collect())?,
    };
    let sample = |(row, (id, reward)): (usize, (f64, f64))| ScoredSample {
        sample_id: id as u64,
        prompt: ctx
            .prompt_of(epoch, request.samples_per_prompt, id as u64)
            .clone(),
        reward: reward as f32,
        parts: parts[row * n_parts..(row + 1) * n_parts]
            .iter()
            .map(|&p| p as f32)
            .collect(),
        answer: String::new(),
        advantage: 0.0,
    };
    let mut scored: Vec<ScoredSample> = ids
        .into_iter()
        .zip(rewards)
        .enumerate()
        .map(sample)
        .collect();
    let first = ctx.collective.rank() * scores.len();
    for (sample, score) in scored[first..].iter_mut().zip(scores) {
        sample.answer = score.answer;
    }
    scored.sort_by_key(|sample| sample.sample_id);
    Ok(scored)
}
