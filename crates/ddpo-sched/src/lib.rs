#![doc = include_str!("../README.md")]

mod ddim;
mod error;
mod euler;
mod schedule;
mod seeds;
mod spacing;

#[cfg(feature = "tch")]
mod conditioning;
#[cfg(feature = "tch")]
mod denoise;
#[cfg(all(feature = "dev", feature = "tch"))]
pub mod dev;
#[cfg(feature = "tch")]
mod gaussian;
#[cfg(feature = "tch")]
mod guided;
#[cfg(feature = "tch")]
mod noise;
#[cfg(feature = "tch")]
mod process;
#[cfg(feature = "tch")]
mod sampler;
#[cfg(feature = "tch")]
mod universal;

pub use ddim::Ddim;
pub use error::{Error, Result};
pub use euler::EulerAncestral;
pub use schedule::{BetaSchedule, NoiseSchedule, Prediction, ScheduleConfig, Spacing};
pub use seeds::{Draws, Key, Seeds, Stream};

#[cfg(feature = "tch")]
pub use conditioning::Conditioning;
#[cfg(feature = "tch")]
pub use denoise::{
    Conditioned, DenoiseInput, Denoiser, LatentBatch, StepRecord, check_shape, sample,
    sample_repeating,
};
#[cfg(feature = "tch")]
pub use gaussian::{Gaussian, LogProb};
#[cfg(feature = "tch")]
pub use guided::Guided;
#[cfg(feature = "tch")]
pub use noise::{Draw, FixedNoise, KeyedNoise, NoiseSource};
#[cfg(feature = "tch")]
pub use sampler::{Sampler, check_steps};
#[cfg(feature = "tch")]
pub use universal::{Objective, Universal};
