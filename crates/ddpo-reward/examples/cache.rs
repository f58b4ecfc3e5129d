//! A cache of scores: `cargo run -p ddpo-reward --features cache --example cache -- FOLDER`.
//!
//! The second pass computes nothing, and an image that is not in the cache is an error.

use ddpo_reward::{CacheMiss, Cached, Images, JpegCompressibility, Result, Reward, RewardError};

fn main() -> Result<()> {
    let Some(folder) = std::env::args().nth(1) else {
        return Err(RewardError::bad_input("arguments", "FOLDER", "none"));
    };
    let images = Images::from_bytes(1, 8, 8, [200, 30, 90].repeat(64))?;
    let prompts = ddpo_reward::prompts::numbered(["a red square"]);
    for missing in [CacheMiss::Compute, CacheMiss::Fail] {
        let reward = Box::new(JpegCompressibility::new()?);
        let mut reward = Cached::new(&folder, missing, reward)?;
        println!("{missing:?}: {:?} kB", reward.score(&images, &prompts)?);
    }
    Ok(())
}
