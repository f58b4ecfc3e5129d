#![doc = include_str!("../README.md")]

pub mod claims;
mod error;
pub mod runs;
pub mod stats;

pub use error::{Error, Result};
