//! ImageReward (feature `image-reward`).

use ddpo_encoder::ImageReward;

use crate::networks::each;
use crate::{Images, Prompt, Result, Reward, RewardInfo};

/// Human preference for the image given its prompt, as predicted by ImageReward: about -2.3 to 2, higher is better.
///
/// Images are scored one at a time, so that a score is bitwise the same in any batch.
pub struct ImageRewardScore {
    model: ImageReward,
    weights: String,
}

impl ImageRewardScore {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "image-reward";

    /// With this network; `weights` identifies it in [`Reward::version`].
    pub fn new(model: ImageReward, weights: impl Into<String>) -> Self {
        Self {
            model,
            weights: weights.into(),
        }
    }

    /// Quantity and unit of the score.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "ImageReward".to_owned(),
            unit: String::new(),
        }
    }
}

impl std::fmt::Debug for ImageRewardScore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageRewardScore")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Reward for ImageRewardScore {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        each(Self::NAME, images, prompts, |rgb, prompt| {
            let (height, width) = (images.height(), images.width());
            self.model.score(&prompt.text, rgb, height, width)
        })
    }

    fn version(&self) -> String {
        format!("1 {}", self.weights)
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}
