#![doc = include_str!("../README.md")]

pub mod attention;
pub mod error;
pub mod files;
pub mod images;
mod layout;
pub mod lora;
pub mod pipeline;
pub mod policy;
pub mod resnet;
pub mod unet;
pub mod vae;

pub use attention::{AttentionContext, BlockCache, LoraMode};
pub use error::{Error, Result};
pub use files::Files;
pub use images::ImageCodec;
pub use lora::{LORA_FILE, Lora, LoraConfig};
pub use pipeline::{Named, PromptEncoder, StableDiffusion};
pub use policy::UnetPolicy;
pub use unet::{Unet, UnetConfig};
pub use vae::{Vae, VaeConfig};
