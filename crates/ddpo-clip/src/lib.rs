#![doc = include_str!("../README.md")]

mod block;
pub mod config;
pub mod error;
mod files;
pub mod text;
pub mod tokenizer;

pub use config::{Activation, ClipTextConfig};
pub use error::{Error, Result};
pub use files::TokenizerFiles;
pub use text::ClipTextModel;
pub use tokenizer::ClipTokenizer;
