//! What can go wrong in the pocket world.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the pocket world.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A part of the artwork pack cannot be decoded or is inconsistent with the rest.
    #[error("artwork pack, {part}: {reason}")]
    Artwork {
        /// Which file of the pack, or which part of it.
        part: String,
        /// What is wrong with it, with the expected and the actual value.
        reason: String,
    },
    /// A share, weight or probability is negative or not finite, or all are zero.
    #[error("mixture, {field}: {reason}")]
    Mixture {
        /// The field of the mixture.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint lacks a tensor, or has it in another shape.
    #[error("{}: tensor `{tensor}` is missing or of another shape; delete the file to start from scratch", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A judge's configuration is damaged, or its heads have other classes than this code.
    #[error(
        "judge {name}: {reason}; train it again: cargo xtask pretrain pocket --from crates/ddpo-pocket/assets --stage {}",
        stage(name)
    )]
    Judge {
        /// The file, or the name under which it is compiled in.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A prompt mentions something that cannot be judged.
    #[error("prompt \"{prompt}\": {reason}")]
    Prompt {
        /// The whole prompt.
        prompt: String,
        /// What was expected where, and what was found.
        reason: String,
    },
    /// Weights or libtorch.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
    /// The model's networks.
    #[error(transparent)]
    Model(#[from] ddpo_model::Error),
    /// Text encoder or tokenizer.
    #[error(transparent)]
    Clip(#[from] ddpo_clip::Error),
    /// Noise and schedules.
    #[error(transparent)]
    Sched(#[from] ddpo_sched::Error),
}

/// The stage of `pocket-pretrain` that trains the judge of that name.
fn stage(name: &str) -> &'static str {
    match name.contains("held_out") {
        true => "held-out-judge",
        false => "reward-judge",
    }
}

impl Error {
    pub(crate) fn artwork(part: impl Into<String>, reason: impl ToString) -> Self {
        Self::Artwork {
            part: part.into(),
            reason: reason.to_string(),
        }
    }
}
