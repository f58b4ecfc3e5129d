//! Errors of text and image encoders.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder without any of the files that a tokenizer can be read from.
    #[error("{} has no tokenizer: expected tokenizer.json, vocab.txt, or vocab.json and merges.txt", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// Parts of one model whose sizes do not match.
    #[error("{reason}")]
    Mismatch {
        /// Both figures.
        reason: String,
    },
    /// A file, a configuration, a text or an image, with the errors of ddpo-clip.
    #[error(transparent)]
    Clip(#[from] ddpo_clip::Error),
    /// Weights or libtorch.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
