//! CLIP's byte-pair tokenizer: from text to the ids that the text encoder reads.

use std::path::Path;

use tch::Tensor;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{
    Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl};

use crate::files::{Parsed, Special, TokenizerFiles, parse_files, parse_folder};
use crate::{Error, Result};

/// How CLIP splits a text into words (transformers 5.23.0, `tokenization_clip.py`).
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

type Bpe = TokenizerImpl<BPE, Normalizers, PreTokenizers, NoProcessor, NoDecoder>;
type NoProcessor = tokenizers::processors::template::TemplateProcessing;
type NoDecoder = ByteLevel;

/// Converts texts to padded rows of ids, exactly as transformers' `CLIPTokenizer` does for a pipeline.
pub struct ClipTokenizer {
    bpe: Bpe,
    bos: i64,
    eos: i64,
    pad: i64,
    max_length: usize,
    vocab_size: usize,
}

impl ClipTokenizer {
    /// Reads the `tokenizer/` folder of the diffusers layout: `vocab.json` and `merges.txt`, or the
    /// `tokenizer.json` that transformers 5 writes in their place, and the special tokens'
    /// `tokenizer_config.json` and `special_tokens_map.json`, where they are there.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Damaged`], with the file.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::new(parse_folder(folder)?)
    }

    /// The same from files in memory; errors call them by their names in the folder.
    ///
    /// # Errors
    /// [`Error::Damaged`], with the file.
    pub fn from_files(files: TokenizerFiles<'_>) -> Result<Self> {
        Self::new(parse_files(files)?)
    }

    /// The ids of the texts, one row per text: start, the text's own ids, end, padding.
    ///
    /// Texts that are too long are truncated before the end token. Case is ignored.
    ///
    /// # Shapes
    /// - returns: `[texts, max_length]`, i64, on the CPU
    ///
    /// # Errors
    /// [`Error::Text`] if the tokenizer fails on a text.
    pub fn encode(&self, texts: &[&str]) -> Result<Tensor> {
        let rows = self.encode_ids(texts)?;
        let shape = [texts.len() as i64, self.max_length as i64];
        Ok(Tensor::from_slice(&rows).view(shape))
    }

    /// Like [`encode`](Self::encode), the rows one after another in a vector.
    ///
    /// # Errors
    /// Same as [`encode`](Self::encode).
    pub fn encode_ids(&self, texts: &[&str]) -> Result<Vec<i64>> {
        let mut rows = Vec::with_capacity(texts.len() * self.max_length);
        for (i, text) in texts.iter().enumerate() {
            let encoding = self
                .bpe
                .encode_fast(*text, false)
                .map_err(|e| Error::Text {
                    text: (*text).to_owned(),
                    reason: e.to_string(),
                })?;
            rows.push(self.bos);
            let ids = encoding.get_ids().iter().take(self.max_length - 2);
            rows.extend(ids.map(|&id| i64::from(id)));
            rows.push(self.eos);
            rows.resize((i + 1) * self.max_length, self.pad);
        }
        Ok(rows)
    }

    /// The id that starts every row.
    pub fn bos(&self) -> i64 {
        self.bos
    }

    /// The id that ends every text.
    pub fn eos(&self) -> i64 {
        self.eos
    }

    /// The padding id.
    pub fn pad(&self) -> i64 {
        self.pad
    }

    /// Ids in a row, start and end included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn new(parsed: Parsed) -> Result<Self> {
        let damaged = |file: &String, reason: String| Error::Damaged {
            file: file.clone(),
            reason,
        };
        let [vocab_file, merges_file] = &parsed.files;
        let id = |special: &Special| {
            let id = parsed.vocab.get(&special.content).copied();
            let missing = || {
                let reason = format!("special token {:?} is missing", special.content);
                damaged(vocab_file, reason)
            };
            id.map(i64::from).ok_or_else(missing)
        };
        let (bos, eos, pad) = (id(&parsed.bos)?, id(&parsed.eos)?, id(&parsed.pad)?);
        id(&parsed.unk)?;
        let largest = parsed.vocab.values().max().copied().unwrap_or(0);
        let bpe = build(&parsed).map_err(|e| damaged(merges_file, e.to_string()))?;
        Ok(Self {
            bpe,
            bos,
            eos,
            pad,
            max_length: parsed.max_length,
            vocab_size: largest as usize + 1,
        })
    }
}

fn build(parsed: &Parsed) -> tokenizers::Result<Bpe> {
    let vocab = parsed.vocab.iter().map(|(token, &id)| (token.clone(), id));
    let model = BPE::builder()
        .vocab_and_merges(vocab.collect::<Vocab>(), parsed.merges.clone())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(parsed.unk.content.clone())
        .build()?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let normalizer = Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    let words = SplitPattern::Regex(WORDS.to_owned());
    let words = Split::new(words, SplitDelimiterBehavior::Removed, true)?;
    let pre_tokenizer = PreTokenizers::new(vec![
        words.into(),
        ByteLevel::default().add_prefix_space(false).into(),
    ]);
    let mut bpe = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(normalizer))
        .with_pre_tokenizer(Some(pre_tokenizer))
        .with_post_processor(None)
        .with_decoder(None)
        .build()?;
    bpe.add_special_tokens(&special_tokens(parsed));
    Ok(bpe)
}

/// In transformers' order; of two with one text, the later one's flag holds.
fn special_tokens(parsed: &Parsed) -> Vec<AddedToken> {
    let mut tokens: Vec<AddedToken> = Vec::new();
    for special in [&parsed.bos, &parsed.eos, &parsed.unk, &parsed.pad] {
        tokens.retain(|token| token.content != special.content);
        tokens.push(AddedToken::from(&*special.content, true).normalized(special.normalized));
    }
    tokens
}
