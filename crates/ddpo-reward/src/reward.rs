//! The trait that rewards implement.

use crate::{Images, Prompt, Result, RewardError};

/// A function from images and prompts to scores. Higher is better: training maximises it.
///
/// A score depends only on the image and its prompt, never on the rest of the batch or on earlier calls;
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

    /// One finite score per image; `prompts[i]` is the prompt of `images[i]`.
    ///
    /// # Errors
    /// [`RewardError::Transient`] if the caller should try again, [`RewardError::Permanent`] if retrying is
    /// useless, [`RewardError::BadInput`] if images and prompts differ in number.
    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>>;

    /// Like [`score`](Reward::score), but passes on each score as soon as it is known, in any order.
    ///
    /// Scores that were passed on before an error are valid: callers keep them and only repeat the rest. Rewards
    /// whose scores arrive one by one and are expensive (a service, a program) implement this, and `score`
    /// with [`collect`]; for all others the default is enough.
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

    /// Everything that a score depends on besides image and prompt: model, wording, version of the method.
    ///
    /// It is part of the cache key; change it when scores change.
    fn version(&self) -> String {
        "1".to_owned()
    }

    /// Names of the parts in [`Score::parts`]; empty if there are none.
    fn parts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Quantity and unit of the score, for axes and tables.
    fn info(&self) -> RewardInfo {
        RewardInfo {
            quantity: self.name().to_owned(),
            unit: String::new(),
        }
    }
}

/// The score of an image, with its parts and the answer that it is based on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// Finite; higher is better.
    pub value: f32,
    /// Scores of the parts of a composite reward, in the order of [`Reward::parts`].
    pub parts: Vec<f32>,
    /// The answer of a service or a program about the image; empty for other rewards.
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

/// Quantity and unit of a score.
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
/// Errors of the reward; [`RewardError::BadAnswer`] if it passes on too few scores.
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
