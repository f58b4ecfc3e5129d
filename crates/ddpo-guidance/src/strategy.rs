//! Drawing latents under universal guidance, with the objective bound to the prompts of the batch.

use ddpo_reward::Prompt;
use ddpo_sched::{
    Denoiser, LatentBatch, NoiseSchedule, NoiseSource, Sampler, StepRecord, Universal,
    sample_repeating,
};
use ddpo_train::SamplingStrategy;
use tch::{Kind, Tensor};

use crate::{DifferentiableReward, Error, Result};

/// Latents to images, differentiable: f32 `[batch, channels, h, w]` to f32 `[batch, 3, height, width]` in [0, 1].
pub type Decode = Box<dyn Fn(&Tensor) -> Tensor>;

/// Samples whose every step follows the gradient of a reward of the image that the step predicts.
///
/// ```text
/// x̂₀ = (xₜ − √(1−ᾱ) ε) / √ᾱ              ε from the network, with its classifier-free guidance
/// ε  ← ε − √(1−ᾱ) w ∇ r(decode(x̂₀))      the gradient in xₜ, through decoder and network
/// x_prev = DDIM(xₜ, ε)                     then back: √(ᾱ/ᾱ_prev) x_prev + √(1−ᾱ/ᾱ_prev) z, and again, k times in all
/// ```
///
/// Bansal et al. 2023, algorithm 1 without backward guidance. A weight of 0 and one repeat are the plain sampler.
pub struct UniversalGuide {
    /// The network with its classifier-free guidance, in f32: gradients of a pixel are too small for f16.
    pub net: Box<dyn Denoiser>,
    /// The noise schedule of the network.
    pub schedule: NoiseSchedule,
    /// Its steps.
    pub sampler: Box<dyn Sampler>,
    /// Latents to images.
    pub decode: Decode,
    /// What is followed.
    pub reward: Box<dyn DifferentiableReward>,
    /// w.
    pub weight: f64,
    /// k: how often every step is taken; 1 is once.
    pub repeats: usize,
    /// Images that are differentiated at a time; changes memory and speed only.
    pub batch: usize,
}

impl SamplingStrategy for UniversalGuide {
    fn n_steps(&self, _sampler: &dyn Sampler) -> usize {
        self.sampler.n_steps()
    }

    fn max_batch(&self) -> usize {
        self.batch
    }

    fn sample(
        &self,
        _policy: &dyn Denoiser,
        _sampler: &dyn Sampler,
        prompts: &[Prompt],
        batch: &LatentBatch<'_>,
        noise: &dyn NoiseSource,
        observe: &mut dyn FnMut(StepRecord<'_>) -> ddpo_sched::Result<()>,
    ) -> Result<Tensor> {
        let objective = |x_0: &Tensor| {
            let scores = self.reward.scores(&(self.decode)(x_0), prompts);
            scores.map_err(ddpo_sched::Error::denoiser)
        };
        let schedule = self.schedule.clone();
        let net = Universal::new(&*self.net, schedule, self.weight, Box::new(objective));
        // The run's own text encoder may be in half precision.
        let cond = batch.cond.to_kind(Kind::Float);
        let batch = LatentBatch {
            cond: &cond,
            ..*batch
        };
        let drawn = sample_repeating(&net, &*self.sampler, &batch, noise, self.repeats, observe);
        drawn.map_err(Error::from)
    }
}
