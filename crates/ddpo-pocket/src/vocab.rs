//! The vocabulary of the pocket world, in the file format of CLIP's tokenizer.
//!
//! A byte-level BPE is trained on the words of the world until each of them is one token; any other
//! text still tokenises, by smaller pieces. Numbers and punctuation are split off before BPE, as
//! CLIP does: "3d" is the two tokens "3" and "d".
//!
//! Identifiers follow CLIP: 256 bytes, 256 bytes at the end of a word, one for each merge, then
//! `<|startoftext|>` and `<|endoftext|>`, which is the greatest and also pads.

mod bpe;
mod words;

use std::fmt::Write;

use bpe::Bpe;
pub use words::words;

/// Tokens of a prompt, both ends and padding included: `model_max_length`.
pub const MAX_TOKENS: usize = 24;
/// The token before every prompt.
pub const START_OF_TEXT: &str = "<|startoftext|>";
/// The token after every prompt, and the padding.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The files of a folder `tokenizer`: name and text.
pub type TokenizerFiles = [(&'static str, String); 4];

/// Sizes and special tokens, as a text encoder's configuration wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabSizes {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Identifier of [`START_OF_TEXT`].
    pub bos_token_id: usize,
    /// Identifier of [`END_OF_TEXT`].
    pub eos_token_id: usize,
}

/// Trains the vocabulary and returns its sizes.
pub fn sizes() -> VocabSizes {
    let vocab_size = Bpe::train(&words()).tokens().len() + 2;
    VocabSizes {
        vocab_size,
        bos_token_id: vocab_size - 2,
        eos_token_id: vocab_size - 1,
    }
}

/// Trains the vocabulary and returns the files that the model is shipped with.
pub fn tokenizer_files() -> TokenizerFiles {
    let bpe = Bpe::train(&words());
    let mut tokens = bpe.tokens();
    tokens.extend([START_OF_TEXT.to_owned(), END_OF_TEXT.to_owned()]);
    [
        ("vocab.json", vocab_json(&tokens)),
        ("merges.txt", merges_txt(&bpe)),
        ("tokenizer_config.json", tokenizer_config()),
        ("special_tokens_map.json", special_tokens_map()),
    ]
}

fn vocab_json(tokens: &[String]) -> String {
    let mut json = String::from("{");
    for (id, token) in tokens.iter().enumerate() {
        let comma = if id == 0 { "" } else { "," };
        let quoted = serde_json::Value::from(token.as_str());
        let _ = write!(json, "{comma}\n{quoted}: {id}");
    }
    json + "\n}\n"
}

fn merges_txt(bpe: &Bpe) -> String {
    let mut text = String::from("#version: 0.2\n");
    for (left, right) in bpe.merges() {
        let _ = writeln!(text, "{left} {right}");
    }
    text
}

fn tokenizer_config() -> String {
    format!(
        r#"{{
  "add_prefix_space": false,
  "bos_token": "{START_OF_TEXT}",
  "do_lower_case": true,
  "eos_token": "{END_OF_TEXT}",
  "errors": "replace",
  "model_max_length": {MAX_TOKENS},
  "pad_token": "{END_OF_TEXT}",
  "tokenizer_class": "CLIPTokenizer",
  "unk_token": "{END_OF_TEXT}"
}}
"#
    )
}

fn special_tokens_map() -> String {
    format!(
        r#"{{
  "bos_token": "{START_OF_TEXT}",
  "eos_token": "{END_OF_TEXT}",
  "pad_token": "{END_OF_TEXT}",
  "unk_token": "{END_OF_TEXT}"
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regenerate with `cargo run -p ddpo-pocket --features pack-builder --bin pocket-pack`.
    #[test]
    fn shipped_files_are_the_generated_ones() {
        let shipped = [
            include_str!("../assets/model/tokenizer/vocab.json"),
            include_str!("../assets/model/tokenizer/merges.txt"),
            include_str!("../assets/model/tokenizer/tokenizer_config.json"),
            include_str!("../assets/model/tokenizer/special_tokens_map.json"),
        ];
        for ((name, generated), shipped) in tokenizer_files().iter().zip(shipped) {
            assert!(
                generated == shipped,
                "{name} differs from what this code generates"
            );
        }
    }

    #[test]
    fn every_word_is_one_token_and_any_other_several() {
        let bpe = Bpe::train(&words());
        for word in words() {
            assert_eq!(bpe.encode(&word), [format!("{word}</w>")], "{word}");
        }
        assert!(bpe.encode("xylophone").len() > 1);
        let tokens = bpe.tokens();
        assert!(
            bpe.encode("żółw")
                .iter()
                .all(|token| tokens.contains(token))
        );
    }
}
