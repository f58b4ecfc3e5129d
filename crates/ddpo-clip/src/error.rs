//! What can go wrong between a text or an image and its embedding.

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
        /// The file, or the name of an embedded one.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration that no tower can have.
    #[error("{file}: `{key}` {reason}")]
    Config {
        /// The file, or the name of an embedded one.
        file: String,
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A tokenizer that gives ids, or lengths, that its text encoder has no rows for.
    #[error("the tokenizer does not fit the text encoder: {reason}")]
    Mismatch {
        /// Both figures.
        reason: String,
    },
    /// A text that the tokenizer refused.
    #[error("cannot tokenize {text:?}: {reason}")]
    Text {
        /// The text.
        text: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// Bytes that are not the image that they should be.
    #[error("image: {reason}")]
    Image {
        /// Size and bytes.
        reason: String,
    },
    /// Weights or libtorch.
    #[error(transparent)]
    Torch(#[from] ddpo_torch::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
