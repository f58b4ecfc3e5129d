#![doc = include_str!("../README.md")]

mod batch;
mod config;
mod loss;
mod meter;
mod pool;
mod rwr;
mod update;
mod weights;

pub use batch::Batch;
pub use config::{Latents, Moments, Order, RwrConfig};
pub use loss::{Noised, denoising_loss};
pub use pool::Pool;
pub use rwr::Rwr;
pub use weights::{Rewards, Scope, Weighting, effective_samples};

pub use ddpo_train::{Error, Result};
