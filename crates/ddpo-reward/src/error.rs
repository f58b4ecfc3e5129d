//! Errors of rewards, by what the caller should do about them.

/// Result of this crate.
pub type Result<T, E = RewardError> = std::result::Result<T, E>;

/// Why there is no score. A failed reward never returns a number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// The same call may succeed later, as with a service that is busy or restarting: retry with backoff.
    #[error("reward {reward} failed for now: {reason}")]
    Transient {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What happened, as a lower-case fragment.
        reason: String,
    },
    /// Retrying will not help, as with a codec that fails.
    #[error("reward {reward} failed: {reason}")]
    Permanent {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What happened, as a lower-case fragment.
        reason: String,
    },
    /// A service refused this request or image, and would refuse it again: a wrong address, model or key, or a
    /// refusal of the model.
    #[error("reward {reward} was refused: {reason}")]
    Refused {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// The service's message.
        reason: String,
    },
    /// The answer is not a score: not JSON, malformed, empty, or not a finite number.
    #[error("reward {reward} got an answer that cannot be scored: {reason}")]
    BadAnswer {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The deadline for an answer has passed.
    #[error("reward {reward} has no answer after {seconds:.1} s and {attempts} attempts: {last}")]
    Deadline {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// Time spent.
        seconds: f64,
        /// Number of attempts.
        attempts: u32,
        /// Error of the last attempt.
        last: String,
    },
    /// The caller's images and prompts do not match or have a wrong shape.
    #[error("{what}: expected {expected}, got {actual}")]
    BadInput {
        /// Which input.
        what: String,
        /// What was expected.
        expected: String,
        /// What was given.
        actual: String,
    },
}

impl RewardError {
    /// A [`RewardError::Transient`].
    pub fn transient(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Transient {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// A [`RewardError::Permanent`].
    pub fn permanent(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Permanent {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// A [`RewardError::Refused`].
    pub fn refused(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Refused {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// A [`RewardError::BadAnswer`].
    pub fn bad_answer(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::BadAnswer {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// A [`RewardError::BadInput`].
    pub fn bad_input(
        what: impl Into<String>,
        expected: impl std::fmt::Display,
        actual: impl std::fmt::Display,
    ) -> Self {
        Self::BadInput {
            what: what.into(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }

    /// Whether the same call may succeed when tried again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}
