#![doc = include_str!("../README.md")]

mod algorithm;
mod reward;
mod strategy;

pub use algorithm::UniversalGuidance;
pub use reward::{DifferentiableReward, ImageColourfulness};
pub use strategy::{Decode, UniversalGuide};

pub use ddpo_train::{Error, Result};
