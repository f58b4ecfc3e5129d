#![doc = include_str!("../README.md")]

mod checkpoint;
mod collective;
mod context;
#[cfg(feature = "dev")]
pub mod dev;
mod epoch;
mod error;
mod event;
mod meter;
mod optimizer;
mod params;
mod partial;
mod policy;
mod ranks;
mod rewards;
mod rollout;
mod run;
mod scale;
mod state;
mod strategy;
mod update;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use collective::{Collective, Solo, Threads};
pub use context::{ImageModel, StopFlag, TrainContext};
pub use ddpo_reward::{Images, Prompt};
pub use ddpo_torch::{AdamWConfig, HostStaging};
pub use epoch::{Algorithm, run_epoch};
pub use error::{Error, Result};
pub use event::{Boundary, Event, Metrics, Observer, Phase};
pub use meter::Meter;
pub use optimizer::{AdamW, GradNorm, Optimizer};
pub use params::ParamSet;
pub use policy::{Conditioner, Decoder, Encoder, LatentPosterior, Policy};
pub use rewards::{Answered, Retry, RewardWorker, Ticket};
pub use rollout::{RolloutRequest, RolloutSink, ScoredSample, moments};
pub use run::{Outcome, TrainPlan, train};
pub use scale::LossScale;
pub use state::{Persist, StateReader, StateWriter};
pub use strategy::{PolicySampling, SamplingStrategy};
pub use update::{Fault, UpdateIndex, Updater};
