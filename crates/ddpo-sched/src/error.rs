//! What can go wrong between a schedule and a sample.

/// Everything this crate reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of the configuration that no sampler can be built from.
    #[error("{key} = {actual}: {expected}")]
    Config {
        /// The key as diffusers' `scheduler_config.json` or our configuration spells it.
        key: &'static str,
        /// Its value.
        actual: String,
        /// What it must be, with the arithmetic where there is one.
        expected: String,
    },
    /// A step without randomness has no log-probability.
    #[error(
        "step {step} (timestep {timestep}) adds no noise, so it has no log-probability: use DDIM with eta > 0, \
         and a schedule whose last step has variance (set_alpha_to_one = false, and steps_offset >= 1 or \
         trailing timesteps)"
    )]
    Deterministic {
        /// Position in the run, noisiest first.
        step: usize,
        /// Its model time.
        timestep: f64,
    },
    /// A distribution without spread has no density.
    #[error("the standard deviation of sample {sample} is zero, so it has no log-probability")]
    NoDensity {
        /// Position in the batch.
        sample: usize,
    },
    /// A tensor of the wrong shape.
    #[error("{name}: expected shape {expected:?}, got {actual:?}")]
    Shape {
        /// Which tensor.
        name: &'static str,
        /// The shape it must have.
        expected: Vec<i64>,
        /// The shape it has.
        actual: Vec<i64>,
    },
    /// A step or a sample that is not there.
    #[error("{name}: {index} is out of range, there are {len}")]
    Range {
        /// What was indexed.
        name: &'static str,
        /// The index asked for.
        index: u64,
        /// How many there are.
        len: u64,
    },
    /// The observer of the denoising loop ended it.
    #[error("sampling was stopped")]
    Stopped,
    /// The network failed.
    #[error("the denoiser failed: {0}")]
    Denoiser(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps what a network reports.
    pub fn denoiser(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Denoiser(source.into())
    }

    pub(crate) fn config(
        key: &'static str,
        actual: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            key,
            actual: actual.to_string(),
            expected: expected.into(),
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
