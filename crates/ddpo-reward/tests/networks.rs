//! Rewards computed by networks: the contract, on small networks with the weights of the golden files.
#![cfg(all(feature = "dev", feature = "aesthetic", feature = "image-reward"))]

use std::path::{Path, PathBuf};

use ddpo_encoder::{AestheticModel, ImageReward, ImageRewardConfig, Rescaling};
use ddpo_reward::{Aesthetic, ImageRewardScore, Images, Reward, dev, prompts};
use tch::{Device, Kind};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(path)
}

fn aesthetic(rescaling: Rescaling) -> Aesthetic {
    let (clip, head) = (golden("clip_vision"), golden("aesthetic/head.safetensors"));
    let model = AestheticModel::open(&clip, &head, rescaling, Device::Cpu, Kind::Float).unwrap();
    Aesthetic::new(model, "golden")
}

fn image_reward() -> ImageRewardScore {
    let folder = golden("image_reward");
    let config = ImageRewardConfig::of_folder(&folder).unwrap();
    let weights = folder.join("ImageReward.safetensors");
    let model = ImageReward::open(&weights, &folder, &config, Device::Cpu, Kind::Float).unwrap();
    ImageRewardScore::new(model, "golden")
}

#[test]
fn both_conform() {
    dev::conforms(&mut aesthetic(Rescaling::Once));
    dev::conforms(&mut image_reward());
}

#[test]
fn only_image_reward_reads_the_prompt() {
    let images = Images::from_bytes(2, 8, 8, [30, 90, 200].repeat(128)).unwrap();
    let prompts = prompts::numbered(["a cat", "a dog riding a bike"]);
    let scores = image_reward().score(&images, &prompts).unwrap();
    assert_ne!(scores[0], scores[1]);
    let scores = aesthetic(Rescaling::Once).score(&images, &prompts).unwrap();
    assert_eq!(scores[0], scores[1]);
}

#[test]
fn versions_tell_the_doubly_rescaled_input_from_the_right_one() {
    let [once, twice] = [Rescaling::Once, Rescaling::Twice].map(|r| aesthetic(r).version());
    assert_ne!(once, twice);
}
