#![doc = include_str!("../README.md")]

mod advantage;
mod batch;
mod config;
mod ddpo;
mod meter;
mod objective;
mod replay;
mod rollout;
mod update;

pub use advantage::{Baseline, PromptStats, normalise};
pub use batch::Batch;
pub use config::DdpoConfig;
pub use ddpo::Ddpo;
pub use objective::{Estimator, Surrogate};
pub use replay::{Replayed, replay_update, replay_update_near};
pub use rollout::Rollout;

pub use ddpo_train::{Error, Result};
