//! Reading and parsing of small files with errors that name them, and the files of a tokenizer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// transformers' default of `model_max_length`: CLIP's own length.
const MAX_LENGTH: usize = 77;

/// The contents of a tokenizer's files, for one that is compiled into the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`: an object from token to id.
    pub vocab: &'a [u8],
    /// `merges.txt`: one pair of tokens per line, the first line a `#version` comment.
    pub merges: &'a [u8],
    /// `tokenizer_config.json`: special tokens, `model_max_length`.
    pub config: Option<&'a [u8]>,
    /// `special_tokens_map.json`, for special tokens that the configuration does not name.
    pub special_tokens: Option<&'a [u8]>,
}

/// Ids by token.
pub(crate) type Ids = HashMap<String, u32>;
/// Merges of two tokens, highest priority first.
pub(crate) type Merges = Vec<(String, String)>;

/// A special token: its text, and whether it is matched before or after normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Special {
    pub content: String,
    pub normalized: bool,
}

/// The contents of all files.
pub(crate) struct Parsed {
    /// The vocabulary's file and that of the merges, for errors.
    pub files: [String; 2],
    pub vocab: Ids,
    pub merges: Merges,
    pub bos: Special,
    pub eos: Special,
    pub unk: Special,
    pub pad: Special,
    pub max_length: usize,
}

/// The bytes of a file.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// The weights file in a folder of transformers' layout: safetensors if there is one, as in transformers.
pub fn weights(folder: &Path) -> PathBuf {
    let safe = folder.join("model.safetensors");
    let old = folder.join("pytorch_model.bin");
    match !safe.exists() && old.exists() {
        true => old,
        false => safe,
    }
}

/// Parses the JSON of a file; `file` is its name in errors.
///
/// # Errors
/// [`Error::Damaged`] with the parser's message.
pub fn json<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| damaged(file, e.to_string()))
}

/// Reads a folder: `vocab.json` with `merges.txt`, or the `tokenizer.json` that transformers 5 writes instead.
pub(crate) fn parse_folder(folder: &Path) -> Result<Parsed> {
    let path = |name: &str| folder.join(name);
    let name = |name: &str| path(name).display().to_string();
    let optional = |name: &str| {
        let path = path(name);
        path.exists().then(|| read(&path)).transpose()
    };
    let single = path("tokenizer.json");
    let (files, vocab, merges) = if !path("vocab.json").exists() && single.exists() {
        let file = name("tokenizer.json");
        let (vocab, merges) = parse_single(&file, &read(&single)?)?;
        ([file.clone(), file], vocab, merges)
    } else {
        let files = [name("vocab.json"), name("merges.txt")];
        let vocab = parse_vocab(&files[0], &read(&path("vocab.json"))?)?;
        let merges = parse_merges(&files[1], &read(&path("merges.txt"))?)?;
        (files, vocab, merges)
    };
    let (config, special) = (
        optional("tokenizer_config.json")?,
        optional("special_tokens_map.json")?,
    );
    let specials = Specials::new(
        (name("tokenizer_config.json"), config.as_deref()),
        (name("special_tokens_map.json"), special.as_deref()),
    )?;
    specials.parsed(files, vocab, merges)
}

/// Reads files that are in memory already.
pub(crate) fn parse_files(files: TokenizerFiles<'_>) -> Result<Parsed> {
    let vocab = parse_vocab("vocab.json", files.vocab)?;
    let merges = parse_merges("merges.txt", files.merges)?;
    let specials = Specials::new(
        ("tokenizer_config.json".to_owned(), files.config),
        ("special_tokens_map.json".to_owned(), files.special_tokens),
    )?;
    let names = ["vocab.json".to_owned(), "merges.txt".to_owned()];
    specials.parsed(names, vocab, merges)
}

fn damaged(file: &str, reason: impl Into<String>) -> Error {
    Error::Damaged {
        file: file.to_owned(),
        reason: reason.into(),
    }
}

fn parse_vocab(file: &str, json: &[u8]) -> Result<Ids> {
    serde_json::from_slice(json)
        .map_err(|e| damaged(file, format!("not an object from token to id: {e}")))
}

fn parse_merges(file: &str, text: &[u8]) -> Result<Merges> {
    let text = std::str::from_utf8(text).map_err(|e| damaged(file, e.to_string()))?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.starts_with("#version") && !line.is_empty())
        .map(|(i, line)| {
            split_merge(line).ok_or_else(|| {
                let reason = format!("line {} is {line:?}, expected two tokens", i + 1);
                damaged(file, reason)
            })
        })
        .collect()
}

fn split_merge(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    let whole = !a.is_empty() && !b.is_empty() && !b.contains(' ');
    whole.then(|| (a.to_owned(), b.to_owned()))
}

/// `tokenizer.json`: only its model is read, the rest is what every CLIP tokenizer has.
fn parse_single(file: &str, json: &[u8]) -> Result<(Ids, Merges)> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        end_of_word_suffix: Option<String>,
        vocab: Ids,
        merges: Vec<Value>,
    }
    let File { model } = serde_json::from_slice(json).map_err(|e| damaged(file, e.to_string()))?;
    if model.kind != "BPE" || model.end_of_word_suffix.as_deref() != Some("</w>") {
        let reason = format!(
            "a {} model with end-of-word suffix {:?}, expected CLIP's BPE with \"</w>\"",
            model.kind, model.end_of_word_suffix
        );
        return Err(damaged(file, reason));
    }
    let merges = model
        .merges
        .iter()
        .map(|merge| match merge {
            Value::String(line) => split_merge(line),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.clone(), b.clone())),
                _ => None,
            },
            _ => None,
        })
        .zip(&model.merges)
        .map(|(pair, merge)| {
            pair.ok_or_else(|| damaged(file, format!("merge {merge} is not two tokens")))
        })
        .collect::<Result<_>>()?;
    Ok((model.vocab, merges))
}

/// The two files that may name special tokens, the first one first.
struct Specials {
    files: [(String, Value); 2],
}

impl Specials {
    fn new(config: (String, Option<&[u8]>), special: (String, Option<&[u8]>)) -> Result<Self> {
        let parse = |(file, json): (String, Option<&[u8]>)| -> Result<(String, Value)> {
            let value = match json {
                None => Value::Null,
                Some(json) => {
                    serde_json::from_slice(json).map_err(|e| damaged(&file, e.to_string()))?
                }
            };
            Ok((file, value))
        };
        Ok(Self {
            files: [parse(config)?, parse(special)?],
        })
    }

    fn parsed(&self, files: [String; 2], vocab: Ids, merges: Merges) -> Result<Parsed> {
        Ok(Parsed {
            files,
            vocab,
            merges,
            bos: self.token("bos_token", "<|startoftext|>")?,
            eos: self.token("eos_token", "<|endoftext|>")?,
            unk: self.token("unk_token", "<|endoftext|>")?,
            pad: self.token("pad_token", "<|endoftext|>")?,
            max_length: self.max_length()?,
        })
    }

    /// A token is a string, or an object with `content` and flags; transformers' default is not normalised.
    fn token(&self, key: &str, default: &str) -> Result<Special> {
        for (file, value) in &self.files {
            let Some(token) = value.get(key).filter(|token| !token.is_null()) else {
                continue;
            };
            let content = token.as_str().or_else(|| token.get("content")?.as_str());
            let Some(content) = content.filter(|content| !content.is_empty()) else {
                let reason = format!("`{key}` is {token}, expected a token");
                return Err(damaged(file, reason));
            };
            let normalized = token.get("normalized").and_then(Value::as_bool);
            return Ok(Special {
                content: content.to_owned(),
                normalized: normalized.unwrap_or(false),
            });
        }
        Ok(Special {
            content: default.to_owned(),
            normalized: false,
        })
    }

    /// transformers writes 10³⁰ for "no limit": that, too, is CLIP's own length here.
    fn max_length(&self) -> Result<usize> {
        let (file, config) = &self.files[0];
        let Some(value) = config.get("model_max_length") else {
            return Ok(MAX_LENGTH);
        };
        match value.as_f64() {
            Some(length) if length >= 1e9 => Ok(MAX_LENGTH),
            Some(length) if (2.0..=65536.0).contains(&length) && length.fract() == 0.0 => {
                Ok(length as usize)
            }
            _ => {
                let reason = format!(
                    "`model_max_length` is {value}, expected a whole number from 2 to 65536"
                );
                Err(damaged(file, reason))
            }
        }
    }
}
