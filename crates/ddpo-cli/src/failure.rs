//! What ends the program early, with the exit code that says which kind it is.

use std::fmt;
use std::process::ExitCode;

use ddpo_reward::RewardError;
use ddpo_train::Error;

/// Result of everything in this crate.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Documented exit codes; `docs/reproduce.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything went well.
    Done = 0,
    /// A bug, or something that no other code names.
    Other = 1,
    /// Bad configuration or arguments.
    Config = 2,
    /// Data or weights are missing or damaged.
    Data = 3,
    /// A reward failed for good.
    Reward = 4,
    /// Numbers that are not finite, or a ratio that is not one before the first update.
    Numerical = 5,
    /// A claim is not met.
    Claim = 10,
    /// Interrupted, with a checkpoint written.
    Interrupted = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error and the code to exit with.
pub struct Failure {
    /// Which kind.
    pub exit: Exit,
    /// What happened, with its causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            error: anyhow::anyhow!("{message}"),
        }
    }

    /// Bad configuration or arguments.
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(Exit::Config, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:#}", self.exit, self.error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            exit: Exit::Other,
            error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Config { .. } => Exit::Config,
            Error::Reward(error) => error.into(),
            Error::RewardGone { .. } | Error::RewardElsewhere { .. } => Exit::Reward,
            Error::BadReward { .. } | Error::NonFinite { .. } | Error::Ratio { .. } => {
                Exit::Numerical
            }
            Error::State { .. } | Error::Damaged { .. } => Exit::Data,
            _ => Exit::Other,
        };
        Self {
            exit,
            error: error.into(),
        }
    }
}

impl From<&RewardError> for Exit {
    /// Bad prompts are the caller's; whatever else a reward reports is the reward's.
    fn from(error: &RewardError) -> Self {
        match error {
            RewardError::BadInput { .. } => Self::Config,
            _ => Self::Reward,
        }
    }
}

/// Says which exit code an error stands for, and what was being done.
pub trait OrExit<T> {
    /// `error` becomes the cause of `doing`.
    fn or_exit(self, exit: Exit, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for std::result::Result<T, E> {
    fn or_exit(self, exit: Exit, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure {
            exit,
            error: error.into().context(doing.to_string()),
        })
    }
}
