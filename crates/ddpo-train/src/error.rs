//! What can end a training run.

use std::path::{Path, PathBuf};

/// Everything this crate and the algorithms on top of it report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that does not add up.
    #[error("{key} = {actual}: {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        actual: String,
        /// What it must be, with the arithmetic where there is one.
        expected: String,
    },
    /// Schedules, samplers, noise.
    #[error(transparent)]
    Sched(ddpo_sched::Error),
    /// The reward failed for good. A failed reward is never a number.
    #[error(transparent)]
    Reward(#[from] ddpo_reward::RewardError),
    /// The reward gave a number that cannot be trained on.
    #[error("reward {reward} gave {value} for sample {sample} of its batch")]
    BadReward {
        /// Name of the reward.
        reward: String,
        /// The score.
        value: f32,
        /// Position in the batch.
        sample: usize,
    },
    /// A reward thread ended without an answer: the reward panicked.
    #[error("reward {reward} ended without an answer")]
    RewardGone {
        /// Name of the reward.
        reward: String,
    },
    /// The reward failed for good on another rank, which says how.
    #[error("rank {rank}: the reward failed on another rank")]
    RewardElsewhere {
        /// The rank that was told.
        rank: usize,
    },
    /// Below the models.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
    /// The policy, its decoder or its text encoder.
    #[error("{0}")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An observer could not do its work, such as writing a file.
    #[error("{0}")]
    Observer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A parameter that the loss does not reach.
    #[error("parameter {name} has no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// Two parameters of one name.
    #[error("parameter {name} appears twice")]
    Duplicate {
        /// The parameter.
        name: String,
    },
    /// A number that is infinite or not a number, too often or where nothing can go on.
    #[error("{what} is not finite ({detail})")]
    NonFinite {
        /// Which number.
        what: &'static str,
        /// Where: epoch, update, step, sample ids.
        detail: String,
    },
    /// Gradients in half precision became infinite under their loss scale; the next attempt uses a smaller one.
    #[error("gradients overflowed at a loss scale of {scale}; it is {next} from now on")]
    Overflow {
        /// What the loss was multiplied by.
        scale: f64,
        /// What the next loss will be.
        next: f64,
    },
    /// Replaying the rollout does not give the log-probabilities it was sampled with.
    #[error(
        "before the first update |ratio - 1| is {deviation:.3e} at step {step} (timestep {timestep}), \
         above {bound:.1e}: sampling and training do not compute the same policy"
    )]
    Ratio {
        /// The largest |ratio − 1|.
        deviation: f64,
        /// What is allowed.
        bound: f64,
        /// Position in the run, noisiest first.
        step: usize,
        /// Its model time.
        timestep: f64,
    },
    /// State that does not fit what it is loaded into.
    #[error("{name} in {file}: {reason}")]
    State {
        /// File of the checkpoint.
        file: String,
        /// The entry.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint that is not whole.
    #[error("checkpoint {} is damaged: {reason}", path.display())]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another rank is gone.
    #[error("rank {rank}: another rank has left the group")]
    Collective {
        /// The rank that noticed.
        rank: usize,
    },
    /// The run was asked to stop; its state is consistent.
    #[error("stopped on request")]
    Stopped,
}

impl Error {
    /// Whether the reward is what failed, so that what was sampled is still good.
    pub fn is_of_reward(&self) -> bool {
        matches!(
            self,
            Self::Reward(_)
                | Self::BadReward { .. }
                | Self::RewardGone { .. }
                | Self::RewardElsewhere { .. }
        )
    }

    /// Wraps what a model reports.
    pub fn model(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Model(source.into())
    }

    /// Wraps what an observer reports.
    pub fn observer(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Observer(source.into())
    }

    /// A configuration error.
    pub fn config(key: &'static str, actual: impl ToString, expected: impl Into<String>) -> Self {
        Self::Config {
            key,
            actual: actual.to_string(),
            expected: expected.into(),
        }
    }

    /// Refuses a part that does not divide its whole, with the arithmetic.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the part.
    pub fn unless_divides(
        (key, part): (&'static str, usize),
        (whole_key, whole): (&str, usize),
    ) -> Result<()> {
        if whole.is_multiple_of(part) {
            return Ok(());
        }
        let (times, rest) = (whole / part.max(1), whole % part.max(1));
        let arithmetic = format!("{whole} = {times} * {part} + {rest}");
        let expected = format!("must divide {whole_key} = {whole}, but {arithmetic}");
        Err(Self::config(key, part, expected))
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<ddpo_sched::Error> for Error {
    fn from(error: ddpo_sched::Error) -> Self {
        match error {
            ddpo_sched::Error::Stopped => Self::Stopped,
            other => Self::Sched(other),
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
