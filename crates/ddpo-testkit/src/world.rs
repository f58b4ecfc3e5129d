//! A world so small that training in it takes seconds.
//!
//! Images are 2 × 2 pixels, a latent is the image itself, and the policy starts as the exact denoiser of
//! standard normal latents plus a small network. Prompts ask for red or blue.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use ddpo_reward::{Images, Prompt, Reward, RewardError, Score};
use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, NoiseSchedule, ScheduleConfig, Seeds, Stream,
};
use ddpo_train::{
    AdamW, AdamWConfig, Collective, Conditioner, Decoder, Encoder, Error, ImageModel,
    LatentPosterior, Observer, ParamSet, Persist, Policy, Result, Retry, RewardWorker,
    SamplingStrategy, Solo, StateReader, StateWriter, StopFlag, TrainContext,
};
use tch::{Kind, Tensor};

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
        let all = [&flat, time[0], time[1], &input.cond.tokens.flatten(1, -1)];
        let hidden = Tensor::cat(&all, 1).linear(in_weight, Some(in_bias)).tanh();
        let scale = &self.sqrt_one_minus_abar;
        let scale = scale.index_select(0, &input.t.to_kind(Kind::Int64));
        let eps = flat * scale.unsqueeze(1) + hidden.linear(out_weight, Some(out_bias));
        eps.view_as(input.x_t)
    }
}

impl Denoiser for TinyPolicy {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        Ok(self.forward(input))
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
    fn embed(&self, prompts: &[Prompt]) -> Result<Conditioning> {
        let ids: Vec<i64> = prompts.iter().map(|p| p.id as i64).collect();
        let one_hot = Tensor::from_slice(&ids).one_hot(DIM);
        Ok(one_hot.to_kind(Kind::Float).unsqueeze(1).into())
    }
}

impl Decoder for Pixels {
    fn decode(&self, latents: &Tensor) -> Result<Images> {
        let bytes = (latents * 40.0 + 128.0).round().clamp(0.0, 255.0);
        let last = bytes.permute([0, 2, 3, 1]).contiguous().flatten(0, -1);
        let bytes: Vec<u8> = Vec::<f32>::try_from(last)
            .map_err(Error::model)?
            .into_iter()
            .map(|byte| byte as u8)
            .collect();
        Ok(Images::from_bytes(latents.size()[0] as usize, 2, 2, bytes)?)
    }
}

/// As if the image were a latent that was rounded: the standard deviation is 0.05, about ten times that of
/// rounding, so that what is drawn from it shows.
impl Encoder for Pixels {
    fn encode(&self, images: &Images) -> Result<LatentPosterior> {
        let bytes = Tensor::from_slice(images.bytes()).to_kind(Kind::Float);
        let nhwc = bytes.view([images.len() as i64, 2, 2, 3]);
        let mean = ((nhwc - 128.0) / 40.0).permute([0, 3, 1, 2]).contiguous();
        let std = mean.full_like(0.05);
        Ok(LatentPosterior { mean, std })
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

/// All that a [`TrainContext`] borrows.
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
    /// The policy's own unless given.
    pub strategy: Option<Box<dyn SamplingStrategy>>,
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
            strategy: None,
            collective: Box::new(Solo),
            seeds: Seeds::new(0),
            stop: StopFlag::new(),
        })
    }

    /// What an algorithm works with.
    pub fn context<'a>(&'a mut self, observers: Vec<&'a mut dyn Observer>) -> TrainContext<'a> {
        let model = ImageModel::new(&Pixels, &Pixels, &LATENT).with_encoder(&Pixels);
        let mut ctx = TrainContext::new(
            &mut *self.policy,
            &mut self.optimizer,
            &self.sampler,
            &self.rewards,
            &self.prompts,
            model,
        )
        .with_reference(self.reference.as_deref())
        .with_collective(&*self.collective)
        .with_stop(self.stop.clone());
        if let Some(strategy) = &self.strategy {
            ctx = ctx.with_strategy(&**strategy);
        }
        ctx.seeds = self.seeds;
        ctx.observers = observers;
        ctx
    }
}
