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

    /// [`score`](Reward::score), but hands over each score as soon as it is known, in any order.
    ///
    /// What was handed over before an error is good: callers keep it and ask only for the rest again. Rewards
    /// whose scores come one by one and cost something (a service, a program) implement this, and `score`
    /// with [`collect`]; for all others the default does.
    ///
    /// # Errors
    /// Same as [`score`](Reward::score).
    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> Result<()> {
        let scores = self.score(images, prompts)?;
        let scores = scores.into_iter().map(Score::from);
        scores.enumerate().for_each(|(i, score)| known(i, score));
        Ok(())
    }

    /// All that a score depends on beside image and prompt: model, wording, version of the method.
    ///
    /// Scores are remembered under this; change it when scores change.
    fn version(&self) -> String {
        "1".to_owned()
    }

    /// Names of the parts of which [`Score::parts`] has the scores; empty if there are none.
    fn parts(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the score measures and in which unit, for axes and tables.
    fn info(&self) -> RewardInfo {
        RewardInfo {
            quantity: self.name().to_owned(),
            unit: String::new(),
        }
    }
}

/// What an image is worth, with what led to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// Finite; higher is better.
    pub value: f32,
    /// Scores of the parts of a composite reward, in the order of [`Reward::parts`].
    pub parts: Vec<f32>,
    /// What a service or a program said about the image; empty if the reward asks none.
    pub answer: String,
}

impl From<f32> for Score {
    fn from(value: f32) -> Self {
        Self {
            value,
            ..Self::default()
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

/// For implementors of [`Reward::score_each`]: its scores in the order of the images.
///
/// # Errors
/// What the reward reports; [`RewardError::BadAnswer`] if it hands over too few.
pub fn collect(reward: &mut dyn Reward, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
    let mut scores = vec![None; images.len()];
    reward.score_each(images, prompts, &mut |i, score| {
        scores[i] = Some(score.value)
    })?;
    let n_known = scores.iter().flatten().count();
    let all: Option<Vec<f32>> = scores.into_iter().collect();
    all.ok_or_else(|| {
        let reason = format!("{n_known} scores for {} images", images.len());
        RewardError::bad_answer(reward.name(), reason)
    })
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
