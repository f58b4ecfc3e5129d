//! (see README)
pub mod artwork;
pub mod caption;
mod error;
pub mod judge;
pub mod pretrain;
pub mod prompts;
pub mod scene;
pub mod shape;
pub mod vocab;

pub use error::{Error, Result};
