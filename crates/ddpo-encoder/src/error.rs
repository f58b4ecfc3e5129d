//! What can go wrong between a text or an image and its score.

use std::path::PathBuf;

/// Everything this crate reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder without any of the files that a tokenizer can be read from.
    #[error("{} has no tokenizer: expected tokenizer.json, vocab.txt, or vocab.json and merges.txt", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// Parts of one model whose sizes do not fit together.
    #[error("{reason}")]
    Mismatch {
        /// Both figures.
        reason: String,
    },
    /// A file, a configuration, a text or an image: what can be wrong with CLIP's can be wrong with these.
    #[error(transparent)]
    Clip(#[from] ddpo_clip::Error),
    /// Weights or libtorch.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
