//! Every reward of this crate fulfils the contract of the trait, and the suite catches one that does not.
#![cfg(feature = "dev")]

use ddpo_reward::{Colourfulness, Images, Prompt, Result, Reward, check_batch, dev};

#[test]
fn colourfulness_conforms() {
    dev::conforms(&mut Colourfulness);
}

#[cfg(feature = "jpeg")]
#[test]
fn jpeg_rewards_conform() {
    dev::conforms(&mut ddpo_reward::JpegCompressibility::new().unwrap());
    dev::conforms(&mut ddpo_reward::JpegIncompressibility::new().unwrap());
}

/// Ranks within the batch instead of scoring: what a conforming reward must not do.
struct RankInBatch;

impl Reward for RankInBatch {
    fn name(&self) -> &str {
        "rank-in-batch"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        check_batch(images, prompts)?;
        Ok((0..images.len()).map(|i| i as f32).collect())
    }
}

#[test]
#[should_panic(expected = "rank-in-batch: a score does not depend on its batch")]
fn the_suite_catches_a_score_that_depends_on_its_batch() {
    dev::conforms(&mut RankInBatch);
}

struct NotANumber;

impl Reward for NotANumber {
    fn name(&self) -> &str {
        "not-a-number"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        check_batch(images, prompts)?;
        Ok(vec![f32::NAN; images.len()])
    }
}

#[test]
#[should_panic(expected = "not-a-number: score 0 is NaN")]
fn the_suite_catches_a_score_that_is_no_number() {
    dev::conforms(&mut NotANumber);
}

#[test]
fn a_composite_conforms() {
    use ddpo_reward::{Composite, WeightedReward};
    let parts = [1.0, -2.0].map(|weight| WeightedReward {
        reward: Box::new(Colourfulness),
        weight,
    });
    dev::conforms(&mut Composite::new(parts.into()).unwrap());
}

#[cfg(feature = "cache")]
#[test]
fn a_cache_conforms_empty_and_full() {
    use ddpo_reward::{CacheMiss, Cached};
    let folder = tempfile::tempdir().unwrap();
    let cached = |missing| Cached::new(folder.path(), missing, Box::new(Colourfulness)).unwrap();
    dev::conforms(&mut cached(CacheMiss::Compute));
    dev::conforms(&mut cached(CacheMiss::Fail));
}
