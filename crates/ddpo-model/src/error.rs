//! What can go wrong with a model on disk or in use.

use std::path::PathBuf;

/// Everything this crate reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder is not there.
    #[error("{file} is missing in {}; expected the diffusers layout (model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/)", folder.display())]
    Missing {
        /// Relative path of the file.
        file: String,
        /// The model folder.
        folder: PathBuf,
    },
    /// A `config.json` that does not parse or asks for what is not built.
    #[error("{file}: {reason}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tensor of another shape than promised.
    #[error("{name} must have shape {expected}, not {actual:?}")]
    Shape {
        /// The argument.
        name: &'static str,
        /// In words.
        expected: String,
        /// What was given.
        actual: Vec<i64>,
    },
    /// Weights that do not fit, or a device that is not there.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
    /// Weights of one or more components that do not fit, each with every tensor.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Misfits(Vec<ddpo_torch::Error>),
    /// The text encoder or tokenizer.
    #[error(transparent)]
    Clip(#[from] ddpo_clip::Error),
    /// The noise schedule.
    #[error(transparent)]
    Sched(#[from] ddpo_sched::Error),
    /// Checkpoints and parameters.
    #[error(transparent)]
    Train(#[from] ddpo_train::Error),
    /// libtorch said no.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
