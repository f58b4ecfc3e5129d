#![doc = include_str!("../README.md")]

mod advantage;
mod config;
mod ddpo;
mod objective;
mod replay;
mod trajectories;
mod update;

pub use advantage::{Baseline, PromptStats, normalise};
pub use config::DdpoConfig;
pub use ddpo::Ddpo;
pub use objective::{Estimator, Surrogate};
pub use replay::{Replayed, replay_update};
pub use trajectories::{Trajectories, TrajectoryStore, TransitionIndex};
pub use update::{PolicyGradient, UpdateStats};

pub use ddpo_train::{Error, Result};
