//! All that an algorithm works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ddpo_reward::Prompt;
use ddpo_sched::{Denoiser, Sampler, Seeds, Stream};
use tch::{Device, Tensor};

use crate::{
    Collective, Conditioner, Decoder, Encoder, Event, Observer, Optimizer, Policy, PolicySampling,
    Result, RewardWorker, SamplingStrategy, Solo,
};

/// What a run needs of a model beside the policy: prompts to conditioning, latents to images and back.
#[derive(Clone)]
pub struct ImageModel<'a> {
    /// Prompts to conditioning.
    pub conditioner: &'a dyn Conditioner,
    /// Latents to images.
    pub decoder: &'a dyn Decoder,
    /// Images to latents, for algorithms that train on images.
    pub encoder: Option<&'a dyn Encoder>,
    /// Shape of one latent, `[channels, height, width]`.
    pub latent_shape: Vec<i64>,
}

impl<'a> ImageModel<'a> {
    /// Without an encoder.
    pub fn new(
        conditioner: &'a dyn Conditioner,
        decoder: &'a dyn Decoder,
        latent_shape: &[i64],
    ) -> Self {
        Self {
            conditioner,
            decoder,
            encoder: None,
            latent_shape: latent_shape.to_vec(),
        }
    }

    /// With one, as RWR wants it.
    #[must_use]
    pub fn with_encoder(mut self, encoder: &'a dyn Encoder) -> Self {
        self.encoder = Some(encoder);
        self
    }
}

/// All that an algorithm works with.
///
/// [`new`](Self::new) takes what every run has; the rest has defaults that the other methods change.
pub struct TrainContext<'a> {
    /// What is trained.
    pub policy: &'a mut dyn Policy,
    /// How it is changed.
    pub optimizer: &'a mut dyn Optimizer,
    /// How latents are denoised.
    pub sampler: &'a dyn Sampler,
    /// What scores images.
    pub rewards: &'a RewardWorker,
    /// What can be asked for; each sample draws one of these, uniformly unless they have weights.
    pub prompts: &'a [Prompt],
    /// Prompts to conditioning, latents to images.
    pub model: ImageModel<'a>,
    /// The reference policy, for algorithms that stay near to it. None by default.
    pub reference: Option<&'a dyn Denoiser>,
    /// How images are drawn. By default with the policy and the sampler.
    pub strategy: &'a dyn SamplingStrategy,
    /// The ranks that train together. One by default.
    pub collective: &'a dyn Collective,
    /// Where random numbers come from. Seed 0 by default.
    pub seeds: Seeds,
    /// Where the policy computes. By default where its parameters are.
    pub device: Device,
    /// Set by whoever wants the run to stop.
    pub stop: StopFlag,
    /// Who is told. Nobody by default.
    pub observers: Vec<&'a mut dyn Observer>,
}

impl<'a> TrainContext<'a> {
    /// What every run has, and defaults for the rest.
    pub fn new(
        policy: &'a mut dyn Policy,
        optimizer: &'a mut dyn Optimizer,
        sampler: &'a dyn Sampler,
        rewards: &'a RewardWorker,
        prompts: &'a [Prompt],
        model: ImageModel<'a>,
    ) -> Self {
        let device = policy.params().tensors().first();
        let device = device.map_or(Device::Cpu, Tensor::device);
        Self {
            policy,
            optimizer,
            sampler,
            rewards,
            prompts,
            model,
            reference: None,
            strategy: &PolicySampling,
            collective: &Solo,
            seeds: Seeds::new(0),
            device,
            stop: StopFlag::new(),
            observers: Vec::new(),
        }
    }

    /// Draws all random numbers of the run from `seed`.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seeds = Seeds::new(seed);
        self
    }

    /// Computes on `device`.
    #[must_use]
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Measures the KL divergence to `reference` where an algorithm asks for it.
    #[must_use]
    pub fn with_reference(mut self, reference: Option<&'a dyn Denoiser>) -> Self {
        self.reference = reference;
        self
    }

    /// Draws images in another way than with policy and sampler.
    #[must_use]
    pub fn with_strategy(mut self, strategy: &'a dyn SamplingStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Trains together with other ranks.
    #[must_use]
    pub fn with_collective(mut self, collective: &'a dyn Collective) -> Self {
        self.collective = collective;
        self
    }

    /// Stops when `stop` is requested.
    #[must_use]
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.stop = stop;
        self
    }

    /// Tells `observer` too.
    #[must_use]
    pub fn with_observer(mut self, observer: &'a mut dyn Observer) -> Self {
        self.observers.push(observer);
        self
    }

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
    /// [`Error::Collective`](crate::Error::Collective).
    pub fn any_rank(&self, yes: bool) -> Result<bool> {
        let votes = Tensor::from_slice(&[f32::from(u8::from(yes))]).to_device(self.device);
        self.collective
            .all_reduce_mean(std::slice::from_ref(&votes))?;
        Ok(votes.double_value(&[0]) > 0.0)
    }

    /// The ids of equal parts of 0, 1, …, `n` − 1 that this rank draws.
    pub fn ids_of_rank(&self, n: usize) -> Vec<u64> {
        let mine = (n / self.collective.world().max(1)) as u64;
        let first = self.collective.rank() as u64 * mine;
        (first..first + mine).collect()
    }

    /// The prompt of a sample: independent from one group of `samples_per_prompt` neighbouring ids to the next. With
    /// 1, as in both DDPO codebases, every sample draws its own.
    pub fn prompt_of(&self, epoch: u64, samples_per_prompt: usize, sample_id: u64) -> &'a Prompt {
        let group = sample_id / samples_per_prompt.max(1) as u64;
        let mut draws = self.seeds.derive(Stream::Prompts, epoch, group).draws();
        let last = self.prompts.len() - 1;
        if self
            .prompts
            .iter()
            .all(|prompt| prompt.weight == self.prompts[0].weight)
        {
            return &self.prompts[draws.below(last as u64 + 1) as usize];
        }
        let total: f64 = self.prompts.iter().map(|prompt| prompt.weight).sum();
        let mut left = draws.unit() * total;
        let mut before = |prompt: &Prompt| {
            left -= prompt.weight;
            left >= 0.0
        };
        // Rounding may leave something after the last.
        &self.prompts[self
            .prompts
            .iter()
            .take_while(|p| before(p))
            .count()
            .min(last)]
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

    /// Asks the run to finish its update, write a checkpoint and end.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
