//! Shared by rewards that are computed by a network of ours.

use crate::reward::check_batch;
use crate::{Images, Prompt, Result, RewardError};

/// Scores images and their prompts one by one.
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
