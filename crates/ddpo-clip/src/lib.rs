#![doc = include_str!("../README.md")]

mod block;
pub mod config;
pub mod error;
pub mod files;
pub mod image;
mod resample;
pub mod text;
pub mod tokenizer;
pub mod vision;

pub use config::{Activation, ClipTextConfig, ConfigCheck};
pub use error::{Error, Result};
pub use files::TokenizerFiles;
pub use image::{ClipImages, Crop};
pub use text::ClipTextModel;
pub use tokenizer::ClipTokenizer;
pub use vision::{ClipVisionConfig, ClipVisionModel};
