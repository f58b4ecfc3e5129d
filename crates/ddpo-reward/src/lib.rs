#![doc = include_str!("../README.md")]

#[cfg(feature = "aesthetic")]
pub mod aesthetic;
#[cfg(feature = "cache")]
pub mod cache;
pub mod colourfulness;
#[cfg(feature = "command")]
pub mod command;
mod composite;
mod error;
#[cfg(feature = "image-reward")]
pub mod image_reward;
mod images;
#[cfg(feature = "jpeg")]
pub mod jpeg;
#[cfg(any(feature = "aesthetic", feature = "image-reward"))]
mod networks;
#[cfg(any(feature = "vlm", feature = "command"))]
mod png;
pub mod prompts;
mod reward;
#[cfg(feature = "vlm")]
pub mod vlm;

#[cfg(feature = "dev")]
pub mod dev;

#[cfg(feature = "aesthetic")]
pub use aesthetic::Aesthetic;
#[cfg(feature = "cache")]
pub use cache::{CacheMiss, Cached};
pub use colourfulness::Colourfulness;
#[cfg(feature = "command")]
pub use command::{CommandConfig, CommandReward};
pub use composite::{Composite, WeightedReward};
pub use error::{Result, RewardError};
#[cfg(feature = "image-reward")]
pub use image_reward::ImageRewardScore;
pub use images::{Images, Prompt};
#[cfg(feature = "jpeg")]
pub use jpeg::{JpegCompressibility, JpegIncompressibility};
pub use reward::{Reward, RewardInfo, Score, check_batch, collect};
#[cfg(feature = "vlm")]
pub use vlm::{VlmBertScore, Vqa};
