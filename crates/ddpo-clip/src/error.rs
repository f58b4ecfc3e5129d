//! Errors of tokenizers, towers and images.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{file}: {reason}; fetch it again")]
    Damaged {
        /// The file, or the name of an embedded one.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration value is out of range.
    #[error("{file}: `{key}` {reason}")]
    Config {
        /// The file, or the name of an embedded one.
        file: String,
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The tokenizer gives ids or lengths that the text encoder has no embeddings for.
    #[error("the tokenizer does not fit the text encoder: {reason}")]
    Mismatch {
        /// Both figures.
        reason: String,
    },
    /// The tokenizer failed on a text.
    #[error("cannot tokenize {text:?}: {reason}")]
    Text {
        /// The text.
        text: String,
        /// The tokenizer's message.
        reason: String,
    },
    /// Bytes that do not match the image's size.
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
