//! (see README)
pub mod artwork;
pub mod caption;
mod error;
pub mod scene;

pub use error::{Error, Result};
