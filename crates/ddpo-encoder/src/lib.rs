#![doc = include_str!("../README.md")]

mod aesthetic;
mod bert;
mod bert_score;
mod blip_config;
mod config;
mod deberta;
mod error;
mod head;
mod image_reward;
mod layers;
mod text;
mod tokenizer;
mod vit;

pub use aesthetic::{AestheticModel, Rescaling};
pub use bert_score::{Agreement, BertScore};
pub use blip_config::ImageRewardConfig;
pub use config::{Terms, TextConfig};
pub use error::{Error, Result};
pub use head::AffineHead;
pub use image_reward::ImageReward;
pub use text::TextEncoder;
pub use tokenizer::TextTokenizer;
pub use vit::BlipVisionConfig;
