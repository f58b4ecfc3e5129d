//! What can go wrong between a text or a picture and its score.

use std::path::PathBuf;

/// Everything this crate reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there, but not what it should be.
    #[error("{file}: {reason}; fetch it again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration that is impossible, or of a network that is not here.
    #[error("{file}: `{key}` {reason}")]
    Config {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A folder without any of the files that a tokenizer can be read from.
    #[error("{} has no tokenizer: expected tokenizer.json, vocab.txt, or vocab.json and merges.txt", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A text that the tokenizer refused.
    #[error("cannot tokenize {text:?}: {reason}")]
    Text {
        /// The text.
        text: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// Parts of one model whose sizes do not fit together.
    #[error("{reason}")]
    Mismatch {
        /// Both figures.
        reason: String,
    },
    /// CLIP's tower or a picture.
    #[error(transparent)]
    Clip(#[from] ddpo_clip::Error),
    /// Weights or libtorch.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The bytes of a file.
pub(crate) fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}
