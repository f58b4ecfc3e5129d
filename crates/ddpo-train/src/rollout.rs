//! Drawing and scoring an epoch's samples, the same for every algorithm.
//!
//! An algorithm says which samples this rank draws and takes what it needs of them through [`Keep`]: whole
//! trajectories, or what the images are made of. Denoising, decoding, rewards on their threads, stopping on
//! request and the exchange of rewards between ranks are done here.

use std::sync::Arc;
use std::time::Instant;

use ddpo_reward::{Images, Prompt, Score};
use ddpo_sched::{Denoiser, KeyedNoise, LatentBatch, LogProb, Sampler, StepRecord, Stream, sample};
use tch::{Device, Tensor};

use crate::ranks::agree;
use crate::{Context, Error, Event, Guide, Persist, Phase, Result, Ticket, Unscored};

/// Which samples of an epoch this rank draws.
#[derive(Clone, Copy)]
pub struct Share<'a> {
    /// Which epoch.
    pub epoch: u64,
    /// Their keys, in the order in which they are drawn.
    pub sample_ids: &'a [u64],
    /// How many are denoised together. Changes memory and speed only.
    pub batch: usize,
    /// How many samples of neighbouring ids get one and the same prompt; 1 draws a prompt for each.
    pub samples_per_prompt: usize,
    /// How they are drawn, where it is not by the policy's own sampler.
    pub guide: Option<&'a dyn Guide>,
}

/// What an algorithm takes from samples while they are drawn.
///
/// What it has taken is its state: an epoch whose reward fails is kept with it.
pub trait Keep: Persist {
    /// Whether steps come with log-probabilities, and which.
    fn log_prob(&self) -> Option<LogProb> {
        None
    }

    /// A denoising step of the batch that is being drawn.
    ///
    /// # Errors
    /// Ends the epoch.
    fn step(&mut self, record: &StepRecord<'_>) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// A batch is denoised: its keys, conditioning `[batch, …]` and x₀, f32 `[batch, …]`, on the device.
    ///
    /// # Errors
    /// Ends the epoch, before anything is scored.
    fn drawn(&mut self, sample_ids: &[u64], cond: &Tensor, x_0: &Tensor) -> Result<()>;

    /// The images of that batch.
    ///
    /// # Errors
    /// Ends the epoch, before these images are scored.
    fn decoded(&mut self, images: &Images) -> Result<()> {
        let _ = images;
        Ok(())
    }
}

/// A sample and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Its key, unique in the epoch.
    pub sample_id: u64,
    /// What it was asked to show.
    pub prompt: Prompt,
    /// What the reward said.
    pub reward: f32,
    /// What its parts said, if it has any.
    pub parts: Vec<f32>,
    /// What it was told about the image; empty if it asks nobody. Of samples of this rank only.
    pub answer: String,
}

/// An epoch's samples of all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollouts {
    /// By sample id, the same on every rank.
    pub samples: Vec<Scored>,
    /// Denoising and decoding on this rank.
    pub sample_seconds: f64,
    /// Waiting for rewards after that.
    pub wait_seconds: f64,
}

impl Rollouts {
    /// Mean and population deviation of the rewards.
    pub fn reward_moments(&self) -> (f64, f64) {
        moments(self.samples.iter().map(|sample| f64::from(sample.reward)))
    }
}

/// Draws, decodes and scores this rank's share, and exchanges the rewards with the other ranks.
///
/// Images go to the reward as they come, so that it works while the next batch is denoised.
///
/// When the reward fails, on any rank, all that was drawn and all that was scored is put into `unscored`, with the
/// state of `keep`; given back with the same epoch, the drawing is left out and only what has no score is asked for.
///
/// # Errors
/// [`Error::Stopped`] on request, midway only with one rank; what the model, the reward, an observer or `keep`
/// reports.
pub fn rollout(
    ctx: &mut Context<'_>,
    share: &Share<'_>,
    keep: &mut dyn Keep,
    unscored: &mut Option<Unscored>,
) -> Result<Rollouts> {
    if ctx.prompts.is_empty() {
        return Err(Error::config("prompts", 0, "must be at least 1"));
    }
    let begin = Instant::now();
    let kept = unscored.take().filter(|kept| kept.epoch == share.epoch);
    let (mut partial, tickets) = match kept {
        Some(kept) => {
            kept.check(share)?;
            kept.restore(keep)?;
            let tickets = kept.submit(ctx, share);
            (kept, tickets)
        }
        None => {
            let mut drawn = Unscored::new(share.epoch);
            let tickets = draw(ctx, share, keep, &mut drawn)?;
            (drawn, tickets)
        }
    };
    let sampled = Instant::now();
    let waited = wait(ctx, &mut partial, tickets);
    if let Err(error) = agree(ctx.collective, ctx.device, waited) {
        // Several ranks do not stop in the middle of an epoch on request, but all do when a reward fails.
        if ctx.collective.world() == 1 || error.is_of_reward() {
            partial.keep(keep)?;
            *unscored = Some(partial);
        }
        return Err(error);
    }
    Ok(Rollouts {
        wait_seconds: sampled.elapsed().as_secs_f64(),
        sample_seconds: (sampled - begin).as_secs_f64(),
        samples: exchange(ctx, share, partial.scores())?,
    })
}

/// Takes in the scores as they come. After the first error, waits for what is being scored and no more.
fn wait(
    ctx: &mut Context<'_>,
    partial: &mut Unscored,
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

/// What a sample of an epoch is asked to show: uniform and independent from one group of
/// `samples_per_prompt` neighbours to the next. With 1, as in both DDPO codebases, every sample draws its own.
pub fn prompt_of<'p>(ctx: &Context<'p>, share: &Share<'_>, sample_id: u64) -> &'p Prompt {
    let group = sample_id / share.samples_per_prompt.max(1) as u64;
    let key = ctx.seeds.derive(Stream::Prompts, share.epoch, group);
    &ctx.prompts[key.draws().below(ctx.prompts.len() as u64) as usize]
}

/// Mean and population standard deviation; zeros for nothing.
pub fn moments(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

fn draw(
    ctx: &mut Context<'_>,
    share: &Share<'_>,
    keep: &mut dyn Keep,
    partial: &mut Unscored,
) -> Result<Vec<(Vec<usize>, Ticket)>> {
    let mut tickets = Vec::new();
    for (at, chunk) in share.sample_ids.chunks(share.batch.max(1)).enumerate() {
        let prompts: Vec<Prompt> = chunk
            .iter()
            .map(|&id| prompt_of(ctx, share, id).clone())
            .collect();
        let cond = ctx.conditioner.embed(&prompts)?;
        let x_0 = denoise(ctx, share, keep, at * share.batch, (&prompts, &cond))?;
        keep.drawn(chunk, &cond, &x_0)?;
        let images = Arc::new(ctx.decoder.decode(&x_0)?);
        keep.decoded(&images)?;
        ctx.emit(&Event::BatchSampled {
            epoch: share.epoch,
            sample_ids: chunk,
            prompts: &prompts,
            images: &images,
        })?;
        let rows = partial.add(Arc::clone(&images));
        tickets.push((rows, ctx.rewards.submit(images, prompts)));
    }
    Ok(tickets)
}

/// Walks the denoising loop for the batch that begins at `first`, showing every step.
fn denoise(
    ctx: &mut Context<'_>,
    share: &Share<'_>,
    keep: &mut dyn Keep,
    first: usize,
    (prompts, cond): (&[Prompt], &Tensor),
) -> Result<Tensor> {
    let last = share.sample_ids.len().min(first + share.batch);
    let batch = LatentBatch {
        shape: &ctx.latent_shape,
        cond,
        sample_ids: &share.sample_ids[first..last],
        log_prob: keep.log_prob(),
    };
    let (net, sampler): (&dyn Denoiser, &dyn Sampler) = (&*ctx.policy, ctx.sampler);
    let noise = KeyedNoise::new(ctx.seeds, share.epoch);
    let n_steps = match share.guide {
        None => sampler.steps().len(),
        Some(guide) => guide.n_steps(),
    };
    let (may_stop, stop) = (ctx.collective.world() == 1, &ctx.stop);
    let observers = &mut ctx.observers;
    let mut refused = None;
    let mut observe = |record: StepRecord<'_>| {
        let event = Event::Progress {
            epoch: share.epoch,
            phase: Phase::Sample,
            done: (first * n_steps + (record.step + 1) * (last - first)) as u64,
            total: (share.sample_ids.len() * n_steps) as u64,
        };
        let mut told = || observers.iter_mut().try_for_each(|o| o.on(&event));
        refused = keep.step(&record).and_then(|()| told()).err();
        match refused.is_some() || (may_stop && stop.requested()) {
            true => Err(ddpo_sched::Error::Stopped),
            false => Ok(()),
        }
    };
    let drawn = match share.guide {
        None => sample(net, sampler, &batch, &noise, &mut observe).map_err(Error::from),
        Some(guide) => guide.sample(prompts, &batch, &noise, &mut observe),
    };
    match refused {
        Some(error) => Err(error),
        None => drawn,
    }
}

/// Rewards of all ranks, by sample id. Answers stay with the rank that asked.
fn exchange(ctx: &Context<'_>, share: &Share<'_>, scores: Vec<Score>) -> Result<Vec<Scored>> {
    let n_parts = ctx.rewards.parts().len();
    let gather = |values: Vec<f64>| -> Result<Vec<f64>> {
        let values = Tensor::from_slice(&values).to_device(ctx.device);
        let all = ctx.collective.all_gather(&values)?;
        Vec::<f64>::try_from(&all.to_device(Device::Cpu)).map_err(Error::model)
    };
    // Ids are below 2⁵³ and rewards f32: f64 carries both exactly.
    let ids = gather(share.sample_ids.iter().map(|&id| id as f64).collect())?;
    let rewards = gather(scores.iter().map(|s| f64::from(s.value)).collect())?;
    let parts = match n_parts {
        0 => Vec::new(),
        _ => gather(
            scores
                .iter()
                .flat_map(|s| s.parts.iter().map(|&p| f64::from(p)))
                .collect(),
        )?,
    };
    let mut scored: Vec<Scored> = ids
        .into_iter()
        .zip(rewards)
        .enumerate()
        .map(|(row, (id, reward))| Scored {
            sample_id: id as u64,
            prompt: prompt_of(ctx, share, id as u64).clone(),
            reward: reward as f32,
            parts: parts[row * n_parts..(row + 1) * n_parts]
                .iter()
                .map(|&p| p as f32)
                .collect(),
            answer: String::new(),
        })
        .collect();
    let first = ctx.collective.rank() * scores.len();
    for (sample, score) in scored[first..].iter_mut().zip(scores) {
        sample.answer = score.answer;
    }
    scored.sort_by_key(|sample| sample.sample_id);
    Ok(scored)
}
