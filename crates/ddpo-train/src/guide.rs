//! Images that are drawn otherwise than by walking the policy's own sampler.

use ddpo_reward::Prompt;
use ddpo_sched::{LatentBatch, NoiseSource, StepRecord};
use tch::Tensor;

use crate::Result;

/// A way of drawing latents in place of the plain walk: guidance by a reward, as universal guidance.
///
/// It has a network and a sampler of its own. What a sample looks like depends on its prompt, its id and the noise, as
/// in the plain walk, and not on the batch.
pub trait Guide {
    /// Denoising steps of a sample, as `observe` sees them.
    fn n_steps(&self) -> usize;

    /// Samples that it draws together; more need more memory and give the same images.
    fn batch(&self) -> usize;

    /// Draws x₀ latents; `batch.cond` is the conditioning of `prompts`. `observe` sees every step and may end the walk
    /// with [`ddpo_sched::Error::Stopped`].
    ///
    /// # Shapes
    /// - returns: f32 `[batch, channels, height, width]`, on the device of the conditioning
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped) if `observe` says so; what network, noise or reward report.
    fn sample(
        &self,
        prompts: &[Prompt],
        batch: &LatentBatch<'_>,
        noise: &dyn NoiseSource,
        observe: &mut dyn FnMut(StepRecord<'_>) -> ddpo_sched::Result<()>,
    ) -> Result<Tensor>;
}
