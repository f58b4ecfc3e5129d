//! What can go wrong below the models.

use std::path::PathBuf;

/// Everything this crate reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened, mapped or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `map`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A safetensors file does not parse: truncated, header too long, offsets out of range.
    #[error("{file} is no valid safetensors file: {reason}; fetch it again")]
    Damaged {
        /// The file, or the name of an embedded one.
        file: String,
        /// What the parser said.
        reason: String,
    },
    /// A file of `torch.save` that holds anything but tensors, or lies about them.
    #[error(
        "{file} is refused: {reason}; only a file of tensors is read, fetch it from its publisher"
    )]
    Refused {
        /// The file, or the name of an embedded one.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Tensors do not fit the model; every one is listed.
    #[error("{file} does not fit the model:\n  {}", faults.join("\n  "))]
    Misfit {
        /// The file, or the name of an embedded one.
        file: String,
        /// One sentence per tensor.
        faults: Vec<String>,
    },
    /// A tensor of another shape than promised.
    #[error("{name} must have shape {expected}, not {actual:?}")]
    Shape {
        /// The argument.
        name: &'static str,
        /// In words, such as `[batch, 4, 64, 64]`.
        expected: String,
        /// What was given.
        actual: Vec<i64>,
    },
    /// A device that is unknown or not there.
    #[error("device `{name}`: {reason}")]
    Device {
        /// As it was asked for.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Lists of tensors that do not fit together; nothing was changed.
    #[error("{op}: {name} {problem}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The argument, such as `grads[3]`.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An operation that tch does not have, refused by libtorch.
    #[error("{op}: {message}")]
    Libtorch {
        /// The operation.
        op: &'static str,
        /// What libtorch said.
        message: String,
    },
    /// libtorch said no.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
