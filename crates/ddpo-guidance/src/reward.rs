//! Rewards with a gradient: what sampling can follow.

use ddpo_encoder::AestheticModel;
use ddpo_reward::Prompt;
use tch::{Kind, Tensor};

use crate::Result;

/// What images are worth, as a function that libtorch can differentiate. Higher is better.
///
/// A score depends on its own image and prompt alone: guidance takes the gradient of the sum over the batch.
/// On bytes it agrees with the reward of the same name up to rounding.
pub trait DifferentiableReward: Send {
    /// One finite score per image; gradients are recorded if `images` asks for them.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]`, f32, in [0, 1]
    /// - `prompts`: batch; a reward that knows no prompts reads none
    /// - returns: `[batch]`, f32
    ///
    /// # Errors
    /// Images of a size, or prompts, that it cannot judge.
    fn scores(&self, images: &Tensor, prompts: &[Prompt]) -> Result<Tensor>;
}

/// Colourfulness (Hasler and Süsstrunk 2003): the formula of [`ddpo_reward::Colourfulness`] on images in [0, 1].
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageColourfulness;

impl DifferentiableReward for ImageColourfulness {
    fn scores(&self, images: &Tensor, _prompts: &[Prompt]) -> Result<Tensor> {
        let channels = (images * 255.0).unbind(1);
        let [r, g, b] = [0, 1, 2].map(|c| channels[c].flatten(1, -1));
        let axes = [&r - &g, (&r + &g) / 2.0 - &b];
        let mean = |axis: &Tensor| axis.mean_dim(1, true, Kind::Float);
        let variance = |axis: &Tensor| mean(&(axis - mean(axis)).square());
        let [spread, offset] = [
            variance(&axes[0]) + variance(&axes[1]),
            mean(&axes[0]).square() + mean(&axes[1]).square(),
        ];
        Ok((root(&spread) + root(&offset) * 0.3).squeeze_dim(1))
    }
}

/// The square root, with a gradient of 0 where it is 0: a grey image has no direction to become colourful in.
fn root(x: &Tensor) -> Tensor {
    let above = x.gt(0.0);
    let safe = x.where_self(&above, &x.ones_like());
    safe.sqrt() * above.to_kind(Kind::Float)
}

impl DifferentiableReward for AestheticModel {
    fn scores(&self, images: &Tensor, _prompts: &[Prompt]) -> Result<Tensor> {
        Ok(self.differentiable(images))
    }
}
