//! The pocket UNet as the preset `pocket` trains it.

use ddpo_model::{StableDiffusion, UnetPolicy};
use ddpo_rl::Estimator;
use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, Draw, Guided, KeyedNoise, LogProb, NoiseSource,
    Sampler, Seeds,
};
use ddpo_train::Policy;
use tch::{Device, Kind, Tensor};

use crate::Result;

/// Denoising steps of the preset `pocket`.
const N_STEPS: usize = 20;
/// Guidance scale of the preset `pocket`.
const GUIDANCE: f64 = 3.0;
/// The paper's clip range (appendix D.1).
const CLIP_RANGE: f64 = 1e-4;

/// The shipped model with guidance, on the CPU in f32; all weights of the UNet are trained.
pub struct Pocket {
    /// Runs each batch without a prompt and with one.
    pub policy: Guided<UnetPolicy>,
    /// DDIM with η = 1.
    pub sampler: Ddim,
    /// Embeddings of the training animals, `[45, tokens, dim]`.
    animals: Conditioning,
    latent_shape: [i64; 3],
}

/// A batch of transitions (pairs of sample and step), as in training.
pub struct Pairs {
    /// Position of each pair in the sampler's steps.
    pub at: Vec<usize>,
    /// f32 `[batch, 12, 8, 8]`.
    pub x_t: Tensor,
    /// f32 `[batch, 12, 8, 8]`, drawn from the policy.
    pub x_prev: Tensor,
    /// Log-probability of `x_prev`, f32 `[batch]`.
    pub log_prob: Tensor,
    /// The policy's prediction, f32 `[batch, 12, 8, 8]`.
    pub eps: Tensor,
    t: Tensor,
    cond: Conditioning,
    advantages: Tensor,
}

impl Pairs {
    /// The policy's input.
    pub fn input(&self) -> DenoiseInput<'_> {
        DenoiseInput {
            x_t: &self.x_t,
            t: &self.t,
            cond: &self.cond,
        }
    }
}

impl Pocket {
    /// Reads the model that is compiled into ddpo-pocket.
    ///
    /// # Errors
    /// None, unless the crate was built from damaged assets.
    pub fn load() -> Result<Self> {
        let model = StableDiffusion::load(&ddpo_pocket::files(), Device::Cpu, Kind::Float)?;
        let latent_shape = model.latent_shape();
        let prompts = crate::animals(45);
        let texts: Vec<&str> = prompts.iter().map(|p| p.text.as_str()).collect();
        let animals = model.prompts.encode(&texts)?.into();
        let uncond = model.prompts.encode(&[""])?;
        let sampler = Ddim::new(&model.schedule, N_STEPS, 1.0)?;
        let policy = Guided::new(UnetPolicy::full(model.unet)?, uncond, GUIDANCE);
        Ok(Self {
            policy,
            sampler,
            animals,
            latent_shape,
        })
    }

    /// `batch` pairs over all steps and animals, the same every time.
    ///
    /// # Errors
    /// None with the shipped model.
    pub fn pairs(&self, batch: usize) -> Result<Pairs> {
        let ids: Vec<u64> = (0..batch as u64).collect();
        let at: Vec<usize> = (0..batch).map(|i| i % N_STEPS).collect();
        let rows: Vec<i64> = (0..batch as i64).map(|i| i % 45).collect();
        let noise = KeyedNoise::new(Seeds::new(0), 0);
        let x_t = noise.normal(&ids, Draw::Initial, &self.latent_shape)?;
        let z = noise.normal(&ids, Draw::Step(0), &self.latent_shape)?;
        let t = Sampler::timesteps(&self.sampler, &at)?;
        let cond = self.animals.select(&Tensor::from_slice(&rows));
        let input = DenoiseInput {
            x_t: &x_t,
            t: &t,
            cond: &cond,
        };
        let eps = tch::no_grad(|| self.policy.predict(input))?;
        let step = self.sampler.transition(&at, &x_t, &eps)?;
        let x_prev = step.at(&z)?;
        let log_prob = step.log_prob(&x_prev, LogProb::Mean)?;
        // Half of the pairs have positive advantages, half negative ones.
        let advantages: Vec<f32> = (0..batch).map(|i| 1.0 - 2.0 * (i % 2) as f32).collect();
        Ok(Pairs {
            at,
            x_t,
            x_prev,
            log_prob,
            eps,
            t,
            cond,
            advantages: Tensor::from_slice(&advantages),
        })
    }

    /// The guided prediction without gradients, as in sampling.
    ///
    /// # Errors
    /// None with pairs of this model.
    pub fn predict(&self, pairs: &Pairs) -> Result<Tensor> {
        Ok(tch::no_grad(|| self.policy.predict(pairs.input()))?)
    }

    /// Forward, DDPO-IS loss and backward of one micro-batch.
    ///
    /// # Errors
    /// None with pairs of this model.
    pub fn accumulate(&self, pairs: &Pairs) -> Result<()> {
        let estimator = Estimator::ImportanceSampling {
            clip_range: CLIP_RANGE,
        };
        self.policy.accumulate(pairs.input(), &mut |eps| {
            let step = self.sampler.transition(&pairs.at, &pairs.x_t, eps)?;
            let log_prob = step.log_prob(&pairs.x_prev, LogProb::Mean)?;
            let surrogate = estimator.surrogate(&log_prob, &pairs.log_prob, &pairs.advantages);
            Ok(surrogate.loss.mean(Kind::Float))
        })?;
        Ok(())
    }
}
