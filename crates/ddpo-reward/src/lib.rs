#![doc = include_str!("../README.md")]

pub mod colourfulness;
mod error;
mod images;
#[cfg(feature = "jpeg")]
pub mod jpeg;
pub mod prompts;
mod reward;

#[cfg(feature = "dev")]
pub mod dev;

pub use colourfulness::Colourfulness;
pub use error::{Result, RewardError};
pub use images::{Images, Prompt};
#[cfg(feature = "jpeg")]
pub use jpeg::{JpegCompressibility, JpegIncompressibility};
pub use reward::{Reward, RewardInfo, check_batch};
