//! What rewards share that a network of ours computes.

use crate::reward::check_batch;
use crate::{Images, Prompt, Result, RewardError};

/// A score for each image and its prompt, one after another.
pub(crate) fn each(
    name: &str,
    images: &Images,
    prompts: &[Prompt],
    score: impl Fn(&[u8], &Prompt) -> ddpo_encoder::Result<f32>,
) -> Result<Vec<f32>> {
    check_batch(images, prompts)?;
    let pairs = images.iter_bytes().zip(prompts).enumerate();
    pairs
        .map(|(i, (rgb, prompt))| {
            let value = score(rgb, prompt).map_err(|e| RewardError::permanent(name, e))?;
            match value.is_finite() {
                true => Ok(value),
                false => {
                    let reason = format!("image {i} of the batch has the score {value}");
                    Err(RewardError::permanent(name, reason))
                }
            }
        })
        .collect()
}
