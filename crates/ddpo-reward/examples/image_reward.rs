//! ImageReward of an image and a prompt, with the published weights:
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
    let (folder, failed) = (Path::new(&folder), |error| {
        RewardError::permanent(ImageRewardScore::NAME, error)
    });
    let config = ImageRewardConfig::of_folder(folder).map_err(failed)?;
    let weights = folder.join("ImageReward.pt");
    let model = ImageReward::open(&weights, folder, &config, Device::Cpu, Kind::Float);
    let mut reward = ImageRewardScore::new(model.map_err(failed)?, "published");
    let images = Images::from_bytes(1, 64, 64, [200, 30, 90].repeat(64 * 64))?;
    let scores = reward.score(&images, &ddpo_reward::prompts::numbered(["a pink wall"]))?;
    println!("{:.4}", scores[0]);
    Ok(())
}
