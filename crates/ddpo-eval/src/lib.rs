#![doc = include_str!("../README.md")]

mod error;
pub mod runs;
pub mod stats;

pub use error::{Error, Result};
