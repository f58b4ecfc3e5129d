//! For tests (feature `dev`): a world so small that training in it takes seconds, and a suite that every
//! `Collective` passes.
//!
//! Images are 2 × 2 pixels, a latent is the image itself, and the policy starts as the exact denoiser of
//! standard normal latents plus a small network. Prompts ask for red or blue.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ddpo_reward::{Images, Prompt, Reward, RewardError, Score};
use ddpo_sched::{Ddim, DenoiseInput, Denoiser, NoiseSchedule, ScheduleConfig, Seeds, Stream};
use tch::{Device, Kind, Tensor};

use crate::{
    AdamW, AdamWConfig, Collective, Conditioner, Context, Decoder, Encoder, Error, Event, Observer,
    ParamSet, Persist, Policy, Posterior, Report, Result, Retry, RewardWorker, Solo, StateReader,
    StateWriter, StopFlag,
};

/// Shape of a latent of [`World`].
pub const LATENT: [i64; 3] = [3, 2, 2];
const PIXELS: i64 = 12;
const DIM: i64 = 4;
const HIDDEN: i64 = 32;

/// `ε = √(1 − ᾱ) x_t + mlp(x_t, t, cond)`.
#[derive(Debug)]
pub struct TinyPolicy {
    params: ParamSet,
    sqrt_one_minus_abar: Tensor,
    overflows: Cell<u32>,
}

impl TinyPolicy {
    /// Random weights.
    ///
    /// # Errors
    /// Never, but the constructor of [`ParamSet`] has a result.
    pub fn new(seed: u64) -> Result<Self> {
        let inputs = PIXELS + 2 + DIM;
        let shapes: [(&str, &[i64], f64); 4] = [
            ("in.weight", &[HIDDEN, inputs], (inputs as f64).powf(-0.5)),
            ("in.bias", &[HIDDEN], 0.0),
            ("out.weight", &[PIXELS, HIDDEN], 0.02),
            ("out.bias", &[PIXELS], 0.0),
        ];
        let named = shapes.into_iter().zip(0..).map(|((name, shape, std), i)| {
            let mut values = vec![0.0_f32; shape.iter().product::<i64>() as usize];
            let key = Seeds::new(seed).derive(Stream::Weights, 0, i);
            key.draws().fill_normal(&mut values);
            let tensor = Tensor::from_slice(&values).view(shape) * std;
            (name.to_owned(), tensor.set_requires_grad(true))
        });
        let params = ParamSet::new(named.collect())?;
        let abar = NoiseSchedule::new(&ScheduleConfig::sd_v1_4())?;
        let table: Vec<f64> = abar.abar().iter().map(|a| (1.0 - a).sqrt()).collect();
        Ok(Self {
            params,
            sqrt_one_minus_abar: Tensor::from_slice(&table).to_kind(Kind::Float),
            overflows: Cell::new(0),
        })
    }

    /// As if gradients overflowed the next `n` times that they are computed.
    #[must_use]
    pub fn with_overflows(self, n: u32) -> Self {
        self.overflows.set(n);
        self
    }

    fn forward(&self, input: DenoiseInput<'_>) -> Tensor {
        let [in_bias, in_weight, out_bias, out_weight] = self.params.tensors() else {
            unreachable!("four parameters, sorted by name");
        };
        let t = input.t.to_kind(Kind::Float).unsqueeze(1) / 1000.0;
        let time = [&t, &(&t * std::f64::consts::PI).cos()];
        let flat = input.x_t.flatten(1, -1);
        let all = [&flat, time[0], time[1], &input.cond.flatten(1, -1)];
        let hidden = Tensor::cat(&all, 1).linear(in_weight, Some(in_bias)).tanh();
        let scale = self.sqrt_one_minus_abar.index_select(0, input.t);
        let eps = flat * scale.unsqueeze(1) + hidden.linear(out_weight, Some(out_bias));
        eps.view_as(input.x_t)
    }
}

impl Denoiser for TinyPolicy {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        Ok(tch::no_grad(|| self.forward(input)))
    }
}

impl Policy for TinyPolicy {
    fn params(&self) -> &ParamSet {
        &self.params
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        loss(&self.forward(input))?.backward();
        match self.overflows.get() {
            0 => Ok(()),
            n => {
                self.overflows.set(n - 1);
                let (scale, next) = (2.0, 1.0);
                Err(Error::Overflow { scale, next })
            }
        }
    }
}

impl Persist for TinyPolicy {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.params.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.params.load(from)
    }
}

/// One-hot conditioning by prompt number, and images that are their latents: `128 + 40 x`.
#[derive(Debug, Clone, Copy)]
pub struct Pixels;

impl Conditioner for Pixels {
    fn embed(&self, prompts: &[Prompt]) -> Result<Tensor> {
        let ids: Vec<i64> = prompts.iter().map(|p| p.id as i64).collect();
        let one_hot = Tensor::from_slice(&ids).one_hot(DIM);
        Ok(one_hot.to_kind(Kind::Float).unsqueeze(1))
    }
}

impl Decoder for Pixels {
    fn decode(&self, latents: &Tensor) -> Result<Images> {
        let bytes = (latents * 40.0 + 128.0).round().clamp(0.0, 255.0);
        let last = bytes.permute([0, 2, 3, 1]).contiguous().flatten(0, -1);
        let bytes: Vec<u8> = Vec::<f32>::try_from(last)
            .map_err(crate::Error::model)?
            .into_iter()
            .map(|byte| byte as u8)
            .collect();
        Ok(Images::from_bytes(latents.size()[0] as usize, 2, 2, bytes)?)
    }
}

/// As if the image were a latent that was rounded: the standard deviation is 0.05, about ten times that of
/// rounding, so that what is drawn from it shows.
impl Encoder for Pixels {
    fn encode(&self, images: &Images) -> Result<Posterior> {
        let bytes = Tensor::from_slice(images.bytes()).to_kind(Kind::Float);
        let nhwc = bytes.view([images.len() as i64, 2, 2, 3]);
        let mean = ((nhwc - 128.0) / 40.0).permute([0, 3, 1, 2]).contiguous();
        let std = mean.full_like(0.05);
        Ok(Posterior { mean, std })
    }
}

/// How much of the colour that the prompt asks for: mean of red for `red`, of blue for `blue`, 0-255.
#[derive(Debug, Clone, Copy)]
pub struct AskedColour;

impl Reward for AskedColour {
    fn name(&self) -> &str {
        "asked-colour"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        ddpo_reward::check_batch(images, prompts)?;
        let pairs = images.iter_bytes().zip(prompts);
        Ok(pairs
            .map(|(rgb, prompt)| {
                let skip = if prompt.text == "red" { 0 } else { 2 };
                let sum: u32 = rgb
                    .iter()
                    .skip(skip)
                    .step_by(3)
                    .map(|&b| u32::from(b))
                    .sum();
                sum as f32 / 4.0
            })
            .collect())
    }
}

/// [`AskedColour`] behind a service that is gone after so many images.
#[derive(Debug, Clone)]
pub struct Service {
    /// How many images it still scores.
    pub left: usize,
    /// The bytes of every image that it scored, over all clones.
    pub asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Reward for Service {
    fn name(&self) -> &str {
        "service"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        ddpo_reward::collect(self, images, prompts)
    }

    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> ddpo_reward::Result<()> {
        ddpo_reward::check_batch(images, prompts)?;
        for i in 0..images.len() {
            self.left = (self.left.checked_sub(1))
                .ok_or_else(|| RewardError::transient("service", "is gone"))?;
            let one = images.select(&[i]);
            let value = AskedColour.score(&one, &prompts[i..=i])?[0];
            let mut asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
            asked.push(one.bytes().to_vec());
            known(i, value.into());
        }
        Ok(())
    }
}

/// All that a [`Context`] borrows.
pub struct World {
    /// A [`TinyPolicy`] unless replaced.
    pub policy: Box<dyn Policy>,
    /// Fresh AdamW.
    pub optimizer: AdamW,
    /// Ten steps of SD v1.4's schedule, η = 1.
    pub sampler: Ddim,
    /// One thread of [`AskedColour`] unless replaced.
    pub rewards: RewardWorker,
    /// `red` and `blue`.
    pub prompts: Vec<Prompt>,
    /// None unless given.
    pub reference: Option<Box<dyn Denoiser>>,
    /// [`Solo`] unless replaced.
    pub collective: Box<dyn Collective>,
    /// Seed 0 unless replaced.
    pub seeds: Seeds,
    /// No request.
    pub stop: StopFlag,
}

impl World {
    /// A fresh world.
    ///
    /// # Errors
    /// Never in practice.
    pub fn new() -> Result<Self> {
        let policy = TinyPolicy::new(1)?;
        let config = AdamWConfig {
            lr: 3e-3,
            ..AdamWConfig::default()
        };
        Ok(Self {
            optimizer: AdamW::new(config, policy.params())?,
            policy: Box::new(policy),
            sampler: Ddim::new(&ScheduleConfig::sd_v1_4(), 10, 1.0)?,
            rewards: RewardWorker::new(vec![Box::new(AskedColour)], Retry::never())?,
            prompts: ["red", "blue"]
                .into_iter()
                .zip(0..)
                .map(|(text, id)| Prompt::new(id, text))
                .collect(),
            reference: None,
            collective: Box::new(Solo),
            seeds: Seeds::new(0),
            stop: StopFlag::new(),
        })
    }

    /// What an algorithm works with.
    pub fn context<'a>(&'a mut self, observers: Vec<&'a mut dyn Observer>) -> Context<'a> {
        Context {
            policy: &mut *self.policy,
            optimizer: &mut self.optimizer,
            sampler: &self.sampler,
            rewards: &self.rewards,
            prompts: &self.prompts,
            conditioner: &Pixels,
            decoder: &Pixels,
            encoder: &Pixels,
            reference: self.reference.as_deref(),
            collective: &*self.collective,
            seeds: self.seeds,
            latent_shape: LATENT.to_vec(),
            device: Device::Cpu,
            stop: self.stop.clone(),
            observers,
        }
    }
}

/// Remembers what a run said.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Reports of epochs, with the times taken out.
    pub epochs: Vec<Report>,
    /// Reports of single updates.
    pub updates: Vec<Report>,
    /// |ratio − 1| of each step, from each check.
    pub ratios: Vec<Vec<f64>>,
    /// Reasons of updates that were left out.
    pub skipped: Vec<String>,
    /// (epoch, sample id, reward, advantage) of each sample.
    pub samples: Vec<(u64, u64, f32, f32)>,
    /// Images with their epochs and sample ids.
    pub images: Vec<(u64, Vec<u64>, Images)>,
    /// Request this when the given number of updates has been taken.
    pub stop_after: Option<(usize, StopFlag)>,
}

impl Observer for Recorder {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match *event {
            Event::EpochDone { report, .. } => {
                let mut report = report.clone();
                report
                    .metrics
                    .retain(|(name, _)| !name.starts_with("time/"));
                self.epochs.push(report);
            }
            Event::UpdateDone { report, .. } => {
                self.updates.push(report.clone());
                if let Some((n, stop)) = &self.stop_after
                    && self.updates.len() == *n
                {
                    stop.request();
                }
            }
            Event::UpdateSkipped { reason, .. } => self.skipped.push(reason.to_owned()),
            Event::RatioChecked { by_step, .. } => self.ratios.push(by_step.to_vec()),
            Event::Rewarded { epoch, samples } => {
                let row = |s: &crate::SampleRow| (epoch, s.sample_id, s.reward, s.advantage);
                self.samples.extend(samples.iter().map(row));
            }
            Event::BatchSampled {
                epoch,
                sample_ids,
                images,
                ..
            } => self
                .images
                .push((epoch, sample_ids.to_vec(), images.clone())),
            _ => {}
        }
        Ok(())
    }
}

/// Checks the contract of [`Collective`] on the ranks of one group, each on a thread of its own.
///
/// # Panics
/// With the broken promise.
pub fn collective_conforms<C: Collective + Send>(group: Vec<C>) {
    let world = group.len();
    std::thread::scope(|scope| {
        for (rank, member) in group.into_iter().enumerate() {
            scope.spawn(move || one_rank_conforms(&member, rank, world));
        }
    });
}

fn one_rank_conforms(member: &dyn Collective, rank: usize, world: usize) {
    assert_eq!((member.rank(), member.world()), (rank, world), "places");
    let mine = || Tensor::from_slice(&[rank as f32, 1.0]);
    // Often enough for a rank that runs ahead to be noticed.
    for _ in 0..20 {
        let reduced = [mine(), mine() * 2.0];
        member.all_reduce_mean(&reduced).expect("all_reduce_mean");
        let mean = (world as f64 - 1.0) / 2.0;
        for (tensor, factor) in reduced.iter().zip([1.0, 2.0]) {
            assert_eq!(tensor.double_value(&[0]), factor * mean, "mean of ranks");
            assert_eq!(tensor.double_value(&[1]), factor, "mean of ones");
        }
        if rank % 2 == 1 {
            std::thread::sleep(Duration::from_micros(50));
        }
        let gathered = member.all_gather(&mine()).expect("all_gather");
        assert_eq!(gathered.size(), [2 * world as i64], "gathered");
        for other in 0..world {
            let place = [2 * other as i64];
            assert_eq!(
                gathered.double_value(&place),
                other as f64,
                "order of ranks"
            );
        }
        let sent = [mine()];
        member.broadcast(&sent).expect("broadcast");
        assert_eq!(sent[0].double_value(&[0]), 0.0, "that of rank 0");
    }
}
