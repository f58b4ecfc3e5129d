//! The one trait that a new reward implements.

use crate::{Images, Prompt, Result, RewardError};

/// What an image is worth. Higher is better: training maximises it.
///
/// A score depends on the image and its prompt alone, never on the rest of the batch or on earlier calls;
/// the feature `dev` has a test suite that checks this for any reward.
/// `&mut self` is for buffers, connections and caches.
///
/// ```
/// use ddpo_reward::{Images, Prompt, Result, Reward};
///
/// /// Mean of the red channel, 0-255.
/// struct Redness;
///
/// impl Reward for Redness {
///     fn name(&self) -> &str {
///         "redness"
///     }
///     fn score(&mut self, images: &Images, _prompts: &[Prompt]) -> Result<Vec<f32>> {
///         let mean = |rgb: &[u8]| {
///             let red: u64 = rgb.iter().step_by(3).map(|&r| u64::from(r)).sum();
///             red as f32 / (rgb.len() / 3) as f32
///         };
///         Ok(images.iter_bytes().map(mean).collect())
///     }
/// }
/// ```
pub trait Reward: Send {
    /// The kind under which configurations, logs and reports know it, such as `jpeg-compressibility`.
    fn name(&self) -> &str;

    /// One finite score for each image; `prompts[i]` is what `images[i]` was made for.
    ///
    /// # Errors
    /// [`RewardError::Transient`] if the caller should try again, [`RewardError::Permanent`] if that is
    /// useless, [`RewardError::BadInput`] if images and prompts differ in number.
    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>>;

    /// What the score measures and in which unit, for axes and tables.
    fn info(&self) -> RewardInfo {
        RewardInfo {
            quantity: self.name().to_owned(),
            unit: String::new(),
        }
    }
}

/// What a score measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardInfo {
    /// Such as `negative JPEG size`.
    pub quantity: String,
    /// Such as `kB`; empty if the score has none.
    pub unit: String,
}

impl RewardInfo {
    /// The two as an axis label: `negative JPEG size (kB)`.
    pub fn label(&self) -> String {
        if self.unit.is_empty() {
            self.quantity.clone()
        } else {
            format!("{} ({})", self.quantity, self.unit)
        }
    }
}

/// For implementors: refuses images and prompts that differ in number.
///
/// # Errors
/// [`RewardError::BadInput`] with both numbers.
pub fn check_batch(images: &Images, prompts: &[Prompt]) -> Result<()> {
    if images.len() == prompts.len() {
        return Ok(());
    }
    Err(RewardError::bad_input(
        "prompts",
        format!("{}, one for each image", images.len()),
        prompts.len(),
    ))
}
