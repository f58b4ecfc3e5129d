//! What an algorithm knows of a model: a denoiser whose parameters can be trained.

use ddpo_reward::{Images, Prompt};
use ddpo_sched::{Conditioning, DenoiseInput, Denoiser, Guided};
use tch::Tensor;

use crate::{LossScale, ParamSet, Persist, Result, StateReader, StateWriter};

/// A denoiser that can be trained.
///
/// Control is inverted at the loss, so that guidance, micro-batches and gradient checkpointing hide inside
/// the policy. [`predict`](Denoiser::predict) and [`accumulate`](Policy::accumulate) compute the same ε with
/// the same kernels: before any update the ratio of their log-probabilities is 1.
pub trait Policy: Denoiser + Persist + Send {
    /// What is trained: LoRA factors, or all weights.
    fn params(&self) -> &ParamSet;

    /// Predicts ε with gradients recorded, asks `loss` for a scalar, and adds its gradient to that of each
    /// parameter. `loss` is called exactly once.
    ///
    /// # Shapes
    /// - `loss`: gets ε `[batch, …]`, returns a scalar
    ///
    /// # Errors
    /// What the network or `loss` reports; [`Error::Overflow`](crate::Error::Overflow) if gradients in half
    /// precision became infinite: the update has to be skipped, and the next one may succeed. Gradients are
    /// then incomplete.
    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<()>;

    /// The scale that losses are multiplied by before their backward pass, where there is one.
    fn loss_scale(&self) -> Option<&LossScale> {
        None
    }
}

/// Turns prompts into conditioning.
pub trait Conditioner {
    /// Conditioning of a batch of prompts, on the policy's device, without gradient.
    ///
    /// # Errors
    /// What the text encoder reports.
    fn embed(&self, prompts: &[Prompt]) -> Result<Conditioning>;
}

/// Turns latents into images.
pub trait Decoder {
    /// Images of x₀ latents, f32 `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// What the decoder reports.
    fn decode(&self, latents: &Tensor) -> Result<Images>;
}

/// What an encoder says of images: a diagonal Gaussian over latents, in the scale that the policy sees.
#[derive(Debug)]
pub struct LatentPosterior {
    /// f32 `[batch, channels, height, width]`.
    pub mean: Tensor,
    /// Standard deviation, of the same shape.
    pub std: Tensor,
}

impl LatentPosterior {
    /// The latents that standard normal `noise` stands for: `mean + std · noise`.
    ///
    /// # Shapes
    /// - `noise`, returns: that of `mean`, f32
    pub fn at(&self, noise: &Tensor) -> Tensor {
        &self.mean + &self.std * noise
    }
}

/// Turns images into latents.
pub trait Encoder {
    /// Where the latents of images lie, on the encoder's device, without gradient.
    ///
    /// # Errors
    /// What the encoder reports.
    fn encode(&self, images: &Images) -> Result<LatentPosterior>;
}

/// Guidance in training: gradients flow through both passes (paper, appendix E.1).
impl<P: Policy> Policy for Guided<P> {
    fn params(&self) -> &ParamSet {
        self.inner.params()
    }

    fn loss_scale(&self) -> Option<&LossScale> {
        self.inner.loss_scale()
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        if !self.doubles() {
            return self.inner.accumulate(input, loss);
        }
        let (x_t, t, cond) = self.doubled(input)?;
        let (x_t, t, cond) = (&x_t, &t, &cond);
        self.inner
            .accumulate(DenoiseInput { x_t, t, cond }, &mut |eps| {
                loss(&self.combine(eps)?)
            })
    }
}

impl<P: Persist> Persist for Guided<P> {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.inner.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.inner.load(from)
    }
}
