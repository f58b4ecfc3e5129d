//! Tokenizers of text encoders, as transformers 5.23.0 loads them from the same folder.

use std::path::Path;

use ddpo_clip::files::{json, read};
use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::{Error, Result};

/// Special tokens of BERT and DeBERTa.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The tokenizer of a BERT or a DeBERTa.
pub struct TextTokenizer {
    inner: Tokenizer,
    cls: u32,
    sep: u32,
    max_tokens: usize,
}

/// The relevant keys of `tokenizer_config.json`.
#[derive(Deserialize, Default)]
struct Settings {
    model_max_length: Option<f64>,
    do_lower_case: Option<bool>,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, or else `vocab.txt` (BERT), or else `vocab.json` and `merges.txt` (DeBERTa); of
    /// `tokenizer_config.json`, if it is there, the longest text and whether case counts.
    ///
    /// `max_tokens` is the encoder's limit. Truncation and padding of a `tokenizer.json` are ignored, as in
    /// transformers.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`ddpo_clip::Error::Io`] or [`ddpo_clip::Error::Damaged`].
    pub fn open(folder: &Path, max_tokens: i64) -> Result<Self> {
        let settings = settings(folder)?;
        let has = |file: &str| folder.join(file).is_file();
        let (file, made) = if has("tokenizer.json") {
            let path = folder.join("tokenizer.json");
            (path.clone(), Tokenizer::from_bytes(read(&path)?))
        } else if has("vocab.txt") {
            let path = folder.join("vocab.txt");
            let lower = settings.do_lower_case.unwrap_or(true);
            (path.clone(), word_pieces(&path, &read(&path)?, lower))
        } else if has("vocab.json") && has("merges.txt") {
            let path = folder.join("vocab.json");
            let merges = folder.join("merges.txt");
            (path.clone(), byte_pairs(&read(&path)?, &read(&merges)?))
        } else {
            return Err(Error::NoTokenizer {
                folder: folder.to_owned(),
            });
        };
        let damaged = |reason: String| ddpo_clip::Error::Damaged {
            file: file.display().to_string(),
            reason,
        };
        let mut inner = made.map_err(|e| damaged(e.to_string()))?;
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| damaged(e.to_string()))?;
        let id = |token: &str| {
            let id = inner.token_to_id(token);
            id.ok_or_else(|| damaged(format!("special token {token} is missing")))
        };
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        let longest = settings.model_max_length.unwrap_or(f64::INFINITY);
        let max_tokens = longest.min(max_tokens as f64).max(2.0) as usize;
        Ok(Self {
            inner,
            cls,
            sep,
            max_tokens,
        })
    }

    /// `[CLS]`, the text's own ids, `[SEP]`; texts that are too long are truncated.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Text`] if the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        self.encode_up_to(text, self.max_tokens)
    }

    /// The same with at most `max_tokens` ids.
    ///
    /// # Errors
    /// Same as [`encode`](Self::encode).
    pub fn encode_up_to(&self, text: &str, max_tokens: usize) -> Result<Vec<i64>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| ddpo_clip::Error::Text {
                text: text.to_owned(),
                reason: e.to_string(),
            })?;
        let own = encoding.get_ids().iter().copied();
        let own = own.take(max_tokens.min(self.max_tokens).saturating_sub(2));
        let ids = std::iter::once(self.cls).chain(own).chain([self.sep]);
        Ok(ids.map(i64::from).collect())
    }

    /// The id that starts every text.
    pub fn cls(&self) -> i64 {
        self.cls.into()
    }

    /// The id that ends every text.
    pub fn sep(&self) -> i64 {
        self.sep.into()
    }

    /// Size of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn settings(folder: &Path) -> Result<Settings> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(Settings::default());
    }
    Ok(json(&path.display().to_string(), &read(&path)?)?)
}

/// BERT's vocabulary, one token per line.
fn word_pieces(path: &Path, vocab: &[u8], lower: bool) -> tokenizers::Result<Tokenizer> {
    let text = std::str::from_utf8(vocab).map_err(|e| format!("{}: {e}", path.display()))?;
    let entries = text
        .lines()
        .zip(0..)
        .map(|(token, id)| (token.trim_end().to_owned(), id));
    let model = WordPiece::builder()
        .vocab(entries.collect::<Vocab>())
        .unk_token("[UNK]".to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, lower)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    add_special(&mut tokenizer);
    Ok(tokenizer)
}

/// DeBERTa's byte-pair encoding, as in GPT-2.
fn byte_pairs(vocab: &[u8], merges: &[u8]) -> tokenizers::Result<Tokenizer> {
    let vocab: std::collections::HashMap<String, u32> = serde_json::from_slice(vocab)?;
    let mut pairs = Vec::new();
    for line in std::str::from_utf8(merges)?.lines() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let (a, b) = line
            .split_once(' ')
            .ok_or_else(|| format!("merges.txt: {line:?} is no pair"))?;
        pairs.push((a.to_owned(), b.to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), pairs)
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    add_special(&mut tokenizer);
    Ok(tokenizer)
}

fn add_special(tokenizer: &mut Tokenizer) {
    let known = SPECIAL
        .into_iter()
        .filter(|t| tokenizer.token_to_id(t).is_some());
    let tokens: Vec<AddedToken> = known.map(|token| AddedToken::from(token, true)).collect();
    tokenizer.add_special_tokens(&tokens);
}
