#![doc = include_str!("../README.md")]
pub mod accuracy;
pub mod artwork;
pub mod caption;
pub mod content;
mod embedded;
mod error;
pub mod judge;
pub mod measure;
pub mod parsed_prompt;
pub mod pretrain;
pub mod prompts;
pub mod scene;
pub mod shape;
pub mod vocab;

pub use embedded::{files, tokenizer};
pub use error::{Error, Result};
