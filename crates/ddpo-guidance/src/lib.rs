#![doc = include_str!("../README.md")]

mod algorithm;
mod guide;
mod reward;

pub use algorithm::{UniversalConfig, UniversalGuidance};
pub use guide::{Decode, UniversalGuide};
pub use reward::{DifferentiableReward, ImageColourfulness};

pub use ddpo_train::{Error, Result};
