//! ImageReward of a picture and a prompt, with the published weights:
//! `cargo run -p ddpo-reward --features image-reward --example image_reward -- FOLDER` with `ImageReward.pt` and
//! `vocab.txt` in it.

use std::path::Path;

use ddpo_encoder::{ImageReward, ImageRewardConfig};
use ddpo_reward::{ImageRewardScore, Images, Result, Reward, RewardError};
use tch::{Device, Kind};

fn main() -> Result<()> {
    let Some(folder) = std::env::args().nth(1) else {
        return Err(RewardError::bad_input("arguments", "FOLDER", "none"));
    };
    let (folder, config) = (Path::new(&folder), ImageRewardConfig::v1_0());
    let model = ImageReward::open(folder, &config, Device::Cpu, Kind::Float)
        .map_err(|error| RewardError::permanent(ImageRewardScore::NAME, error))?;
    let mut reward = ImageRewardScore::new(model, "published");
    let images = Images::from_bytes(1, 64, 64, [200, 30, 90].repeat(64 * 64))?;
    let scores = reward.score(&images, &ddpo_reward::prompts::numbered(["a pink wall"]))?;
    println!("{:.4}", scores[0]);
    Ok(())
}
