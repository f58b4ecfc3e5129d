//! What can go wrong between a run's files and its report.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run could not be evaluated or shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A table is malformed.
    #[error("{}: line {line}{}: {reason}", path.display(), column_part(column))]
    Csv {
        /// The file.
        path: PathBuf,
        /// Line in the file, from 1; the header is line 1.
        line: u64,
        /// Name of the column; empty if the error concerns the whole line.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A statistic needs more values than there are.
    #[error("{what}: needs at least {needed} values, got {n}")]
    TooFew {
        /// Which values.
        what: String,
        /// The smallest number of values that is enough.
        needed: usize,
        /// How many there are.
        n: usize,
    },
    /// A statistic was given a value that is not finite.
    #[error("{what}: value {index} is {value}")]
    NotFinite {
        /// Which values.
        what: String,
        /// Index of the first such value.
        index: usize,
        /// NaN or an infinity.
        value: f64,
    },
    /// Two inputs do not match, or an argument is out of range.
    #[error("{what}: expected {expected}, got {actual}")]
    Mismatch {
        /// Which input.
        what: String,
        /// What was expected.
        expected: String,
        /// What was given.
        actual: String,
    },
    /// A figure could not be drawn.
    #[error("figure: {0}")]
    Figure(String),
}

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn mismatch(
        what: impl Into<String>,
        expected: impl std::fmt::Display,
        actual: impl std::fmt::Display,
    ) -> Self {
        Self::Mismatch {
            what: what.into(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }

    pub(crate) fn figure(reason: impl std::fmt::Display) -> Self {
        Self::Figure(reason.to_string())
    }
}

fn column_part(column: &str) -> String {
    if column.is_empty() {
        String::new()
    } else {
        format!(", column `{column}`")
    }
}
