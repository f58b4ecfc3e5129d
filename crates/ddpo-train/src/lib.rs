#![doc = include_str!("../README.md")]

mod checkpoint;
mod collective;
#[cfg(feature = "dev")]
pub mod dev;
mod error;
mod event;
mod guide;
mod optimizer;
mod params;
mod policy;
mod ranks;
mod rewards;
mod rollout;
mod run;
mod scale;
mod state;
mod step;
mod unscored;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use collective::{Collective, Solo, Threads};
pub use ddpo_reward::{Images, Prompt};
pub use ddpo_torch::HostStaging;
pub use error::{Error, Result};
pub use event::{Boundary, Event, Observer, Phase, Report, SampleRow};
pub use guide::Guide;
pub use optimizer::{AdamW, AdamWConfig, GradNorm, Optimizer};
pub use params::ParamSet;
pub use policy::{Conditioner, Decoder, Encoder, Policy, Posterior};
pub use rewards::{Answered, Retry, RewardWorker, Ticket};
pub use rollout::{Keep, Rollouts, Scored, Share, moments, prompt_of, rollout};
pub use run::{Algorithm, Context, Outcome, Plan, StopFlag, train};
pub use scale::LossScale;
pub use state::{Persist, StateReader, StateWriter};
pub use step::{Fault, Place, Stepper, Sums};
pub use unscored::Unscored;
