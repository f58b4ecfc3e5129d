//! Errors of weights, devices and libtorch.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened, mapped or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation: `open`, `map`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A safetensors file does not parse: truncated, header too long, offsets out of range.
    #[error("{file} is not a valid safetensors file: {reason}; fetch it again")]
    Damaged {
        /// The file, or the name of an embedded one.
        file: String,
        /// The parser's message.
        reason: String,
    },
    /// A `torch.save` file that holds anything but tensors, or inconsistent ones.
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
    /// A tensor of the wrong shape.
    #[error("{name} must have shape {expected}, not {actual:?}")]
    Shape {
        /// The argument.
        name: &'static str,
        /// The expected shape, such as `[batch, 4, 64, 64]`.
        expected: String,
        /// What was given.
        actual: Vec<i64>,
    },
    /// A device that is unknown or not there.
    #[error("device `{name}`: {reason}")]
    Device {
        /// The name that was given.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Lists of tensors that do not match; nothing was changed.
    #[error("{op}: {name} {problem}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The argument, such as `grads[3]`.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An operation that tch does not bind failed in libtorch.
    #[error("{op}: {message}")]
    Libtorch {
        /// The operation.
        op: &'static str,
        /// libtorch's message.
        message: String,
    },
    /// An error of libtorch.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
