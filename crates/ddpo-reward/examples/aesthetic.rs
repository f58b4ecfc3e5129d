//! LAION's score of an image, with the published weights:
//! `cargo run -p ddpo-reward --features aesthetic --example aesthetic -- CLIP_FOLDER sac+logos+ava1-l14-linearMSE.pth`.

use std::path::Path;

use ddpo_encoder::{AestheticModel, Rescaling};
use ddpo_reward::{Aesthetic, Images, Result, Reward, RewardError};
use tch::{Device, Kind};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [clip, head] = arguments.as_slice() else {
        return Err(RewardError::bad_input(
            "arguments",
            "CLIP_FOLDER HEAD",
            "others",
        ));
    };
    let (clip, head) = (Path::new(clip), Path::new(head));
    let model = AestheticModel::open(clip, head, Rescaling::Once, Device::Cpu, Kind::Float)
        .map_err(|error| RewardError::permanent(Aesthetic::NAME, error))?;
    let mut reward = Aesthetic::new(model, "published");
    let images = Images::from_bytes(1, 64, 64, [200, 30, 90].repeat(64 * 64))?;
    let scores = reward.score(&images, &ddpo_reward::prompts::numbered([""]))?;
    println!("{:.4}", scores[0]);
    Ok(())
}
