//! How latents are drawn: by walking the run's sampler with the policy, or in another way.

use ddpo_reward::Prompt;
use ddpo_sched::{Denoiser, LatentBatch, NoiseSource, Sampler, StepRecord, sample};
use tch::Tensor;

use crate::Result;

/// A way of drawing latents. The provided methods draw with the policy and the sampler of the run.
///
/// What a sample looks like depends on its prompt, its id and the noise, and not on the batch.
pub trait SamplingStrategy {
    /// Denoising steps of a sample, as `observe` sees them.
    fn n_steps(&self, sampler: &dyn Sampler) -> usize {
        sampler.n_steps()
    }

    /// At most how many samples it draws together; fewer need less memory and give the same images.
    fn max_batch(&self) -> usize {
        usize::MAX
    }

    /// Draws x₀ latents; `batch.cond` is the conditioning of `prompts`. `observe` sees every step and may end the
    /// walk with [`ddpo_sched::Error::Stopped`].
    ///
    /// # Shapes
    /// - returns: f32 `[batch, channels, height, width]`, on the device of the conditioning
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped) if `observe` says so; what network, noise or reward report.
    fn sample(
        &self,
        policy: &dyn Denoiser,
        sampler: &dyn Sampler,
        prompts: &[Prompt],
        batch: &LatentBatch<'_>,
        noise: &dyn NoiseSource,
        observe: &mut dyn FnMut(StepRecord<'_>) -> ddpo_sched::Result<()>,
    ) -> Result<Tensor> {
        let _ = prompts;
        Ok(sample(policy, sampler, batch, noise, observe)?)
    }
}

/// Draws with the policy and the sampler of the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicySampling;

impl SamplingStrategy for PolicySampling {}
