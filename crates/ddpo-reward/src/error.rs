//! What can go wrong while images are scored, sorted by what the caller should do about it.

/// Result of this crate.
pub type Result<T, E = RewardError> = std::result::Result<T, E>;

/// Why no score came back. A failed reward is never a number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// The same call may succeed later (a service that is busy or restarting): retry with backoff.
    #[error("reward {reward} failed for now: {reason}")]
    Transient {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What happened, as a lower-case fragment.
        reason: String,
    },
    /// Retrying will not help (a service that refuses the request, a codec that fails).
    #[error("reward {reward} failed: {reason}")]
    Permanent {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What happened, as a lower-case fragment.
        reason: String,
    },
    /// A service said no to this very request or image, and will again: a wrong address, model or key, or a
    /// model that will not answer.
    #[error("reward {reward} was refused: {reason}")]
    Refused {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What was said.
        reason: String,
    },
    /// An answer came, and it is no score: not JSON, another shape, empty, not a finite number.
    #[error("reward {reward} got an answer that cannot be scored: {reason}")]
    BadAnswer {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The time for an answer is over.
    #[error("reward {reward} has no answer after {seconds:.1} s and {attempts} attempts: {last}")]
    Deadline {
        /// [`Reward::name`](crate::Reward::name) of the reward.
        reward: String,
        /// How long it was tried.
        seconds: f64,
        /// How often.
        attempts: u32,
        /// What the last attempt ended with.
        last: String,
    },
    /// The caller's images or prompts do not fit together or have a wrong shape.
    #[error("{what}: expected {expected}, got {actual}")]
    BadInput {
        /// Which input.
        what: String,
        /// What was needed.
        expected: String,
        /// What came.
        actual: String,
    },
}

impl RewardError {
    /// [`RewardError::Transient`] in one line.
    pub fn transient(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Transient {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// [`RewardError::Permanent`] in one line.
    pub fn permanent(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Permanent {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// [`RewardError::Refused`] in one line.
    pub fn refused(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Refused {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// [`RewardError::BadAnswer`] in one line.
    pub fn bad_answer(reward: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::BadAnswer {
            reward: reward.into(),
            reason: reason.to_string(),
        }
    }

    /// [`RewardError::BadInput`] in one line.
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
