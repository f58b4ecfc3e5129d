//! The model that is compiled into the crate.

use ddpo_clip::{ClipTokenizer, TokenizerFiles};
use ddpo_model::Files;

use crate::Result;

/// Path in the diffusers layout, and content.
macro_rules! model_files {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_bytes!(concat!("../assets/model/", $file)))),*]
    };
}

const MODEL: &[(&str, &[u8])] = model_files![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The pocket model, as [`ddpo_model::StableDiffusion::load`] takes it.
pub fn files() -> Files {
    Files::Embedded {
        name: "pocket",
        files: MODEL,
    }
}

/// The tokenizer of the pocket world, in which every word is one token.
///
/// # Errors
/// None, unless the crate was built from damaged assets.
pub fn tokenizer() -> Result<ClipTokenizer> {
    let file = |name: &str| {
        let path = format!("tokenizer/{name}");
        MODEL
            .iter()
            .find(|(file, _)| *file == path)
            .map(|(_, bytes)| *bytes)
    };
    Ok(ClipTokenizer::from_files(TokenizerFiles {
        vocab: file("vocab.json").unwrap_or_default(),
        merges: file("merges.txt").unwrap_or_default(),
        config: file("tokenizer_config.json"),
        special_tokens: file("special_tokens_map.json"),
    })?)
}
