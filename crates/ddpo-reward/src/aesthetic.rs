//! LAION's aesthetic score (feature `aesthetic`).

use ddpo_encoder::AestheticModel;

use crate::networks::each;
use crate::{Images, Prompt, Result, Reward, RewardInfo};

/// Human rating of the image as predicted by LAION's model, about 1 to 10; images of Stable Diffusion v1.4 have 5 to 6,
/// higher is better.
///
/// The prompt is ignored. Images are scored one at a time, so that a score is bitwise the same in any batch.
pub struct Aesthetic {
    model: AestheticModel,
    weights: String,
}

impl Aesthetic {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "aesthetic";

    /// With these networks; `weights` identifies them in [`Reward::version`].
    pub fn new(model: AestheticModel, weights: impl Into<String>) -> Self {
        Self {
            model,
            weights: weights.into(),
        }
    }

    /// Quantity and unit of the score.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "LAION aesthetic score".to_owned(),
            unit: String::new(),
        }
    }
}

impl std::fmt::Debug for Aesthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aesthetic")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Reward for Aesthetic {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        each(Self::NAME, images, prompts, |rgb, _| {
            self.model.score(rgb, images.height(), images.width())
        })
    }

    fn version(&self) -> String {
        format!("1 {} {:?}", self.weights, self.model.rescaling())
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}
