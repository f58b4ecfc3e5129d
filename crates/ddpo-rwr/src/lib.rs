#![doc = include_str!("../README.md")]

mod config;
mod loss;
mod pool;
mod rwr;
mod update;
mod weights;

pub use config::{Latents, Moments, Order, RwrConfig};
pub use loss::{Noised, denoising_loss};
pub use pool::{Pool, SampleCollector};
pub use rwr::Rwr;
pub use weights::{Rewards, Scope, Weighting, effective_samples, quantile};

pub use ddpo_train::{Error, Result};
