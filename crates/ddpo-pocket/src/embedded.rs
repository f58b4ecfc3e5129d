//! The files of the model that are compiled into the crate.

use ddpo_clip::{ClipTokenizer, TokenizerFiles};

use crate::Result;

macro_rules! asset {
    ($file:literal) => {
        include_bytes!(concat!("../assets/model/", $file))
    };
}

/// The tokenizer of the pocket world, in which every word is one token.
///
/// # Errors
/// None, unless the crate was built from damaged assets.
pub fn tokenizer() -> Result<ClipTokenizer> {
    Ok(ClipTokenizer::from_files(TokenizerFiles {
        vocab: asset!("tokenizer/vocab.json"),
        merges: asset!("tokenizer/merges.txt"),
        config: Some(asset!("tokenizer/tokenizer_config.json")),
        special_tokens: Some(asset!("tokenizer/special_tokens_map.json")),
    })?)
}
