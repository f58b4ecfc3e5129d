//! The tokenizer against transformers 5.23.0. Files: tests/golden/clip_text.py.
use std::path::{Path, PathBuf};

use ddpo_clip::{ClipTokenizer, TokenizerFiles};
use serde::Deserialize;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/clip_text")
}

#[derive(Deserialize)]
struct Tokens {
    max_length: usize,
    texts: Vec<String>,
    ids: Vec<Vec<i64>>,
    padded_with_exclamation_mark: Vec<Vec<i64>>,
}

fn tokens() -> Tokens {
    serde_json::from_slice(&read("tokens.json")).unwrap()
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(golden().join(name)).unwrap()
}

#[track_caller]
fn check(tokenizer: &ClipTokenizer, texts: &[String], expected: &[Vec<i64>]) {
    for (text, ids) in texts.iter().zip(expected) {
        assert_eq!(&tokenizer.encode_ids(&[text]).unwrap(), ids, "{text:?}");
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = tokenizer.encode(&texts).unwrap();
    assert_eq!(
        together.size(),
        [texts.len() as i64, tokenizer.max_length() as i64]
    );
    let flat: Vec<i64> = Vec::try_from(together.view([-1])).unwrap();
    assert_eq!(flat, expected.concat());
}

#[test]
fn ids_are_those_of_transformers() {
    let tokens = tokens();
    assert!(tokens.texts.len() >= 30);
    let tokenizer = ClipTokenizer::from_folder(&golden()).unwrap();
    assert_eq!(tokenizer.max_length(), tokens.max_length);
    check(&tokenizer, &tokens.texts, &tokens.ids);
}

#[test]
fn files_in_memory_give_the_same_ids() {
    let tokens = tokens();
    let (vocab, merges) = (read("vocab.json"), read("merges.txt"));
    let (config, special) = (
        read("tokenizer_config.json"),
        read("special_tokens_map.json"),
    );
    let files = TokenizerFiles {
        vocab: &vocab,
        merges: &merges,
        config: Some(&config),
        special_tokens: Some(&special),
    };
    let tokenizer = ClipTokenizer::from_files(files).unwrap();
    check(&tokenizer, &tokens.texts, &tokens.ids);
}

#[test]
fn the_padding_token_is_the_one_that_the_folder_names() {
    let tokens = tokens();
    let config = String::from_utf8(read("tokenizer_config.json")).unwrap();
    let config = config.replace(
        r#""pad_token": "<|endoftext|>""#,
        r#""pad_token": {"content": "!"}"#,
    );
    let (vocab, merges) = (read("vocab.json"), read("merges.txt"));
    let files = TokenizerFiles {
        vocab: &vocab,
        merges: &merges,
        config: Some(config.as_bytes()),
        special_tokens: None,
    };
    let tokenizer = ClipTokenizer::from_files(files).unwrap();
    assert_eq!(tokenizer.pad(), 0);
    check(
        &tokenizer,
        &tokens.texts,
        &tokens.padded_with_exclamation_mark,
    );
}

#[test]
fn the_single_file_of_transformers_5_gives_the_same_ids() {
    let vocab = String::from_utf8(read("vocab.json")).unwrap();
    let merges = String::from_utf8(read("merges.txt")).unwrap();
    let pairs: Vec<[&str; 2]> = merges
        .lines()
        .skip(1)
        .map(|line| {
            let (a, b) = line.split_once(' ').unwrap();
            [a, b]
        })
        .collect();
    let lines: Vec<&str> = merges.lines().skip(1).collect();
    let tokens = tokens();
    for merges in [
        serde_json::to_string(&pairs).unwrap(),
        serde_json::to_string(&lines).unwrap(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = format!(
            r#"{{"version": "1.0", "model": {{"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {vocab}, "merges": {merges}}}}}"#
        );
        std::fs::write(folder.path().join("tokenizer.json"), file).unwrap();
        std::fs::write(
            folder.path().join("tokenizer_config.json"),
            read("tokenizer_config.json"),
        )
        .unwrap();
        let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
        check(&tokenizer, &tokens.texts, &tokens.ids);
    }
}

#[test]
fn a_text_without_a_limit_in_its_folder_gets_clips_own_length() {
    let (vocab, merges) = (read("vocab.json"), read("merges.txt"));
    for config in [
        None,
        Some(br#"{"model_max_length": 1000000000000000019884624838656}"#.as_slice()),
    ] {
        let files = TokenizerFiles {
            vocab: &vocab,
            merges: &merges,
            config,
            special_tokens: None,
        };
        let tokenizer = ClipTokenizer::from_files(files).unwrap();
        assert_eq!(tokenizer.encode_ids(&["a cat"]).unwrap().len(), 77);
    }
}

/// A copy of the golden folder with one file replaced, or removed.
fn broken(name: &str, contents: Option<&[u8]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    for file in [
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ] {
        std::fs::write(folder.path().join(file), read(file)).unwrap();
    }
    let path = folder.path().join(name);
    match contents {
        Some(contents) => std::fs::write(&path, contents).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    }
    let Err(error) = ClipTokenizer::from_folder(folder.path()) else {
        panic!("{name} was accepted")
    };
    let error = error.to_string();
    assert!(
        error.contains(name),
        "the file {name} is not named: {error}"
    );
    error
}

#[test]
fn missing_and_damaged_files_are_named() {
    for name in ["vocab.json", "merges.txt"] {
        assert!(broken(name, None).starts_with("cannot read"));
    }
    for (name, contents, needle) in [
        (
            "vocab.json",
            b"{\"a\": 0".as_slice(),
            "not an object from token to id",
        ),
        ("vocab.json", b"[1, 2]", "not an object from token to id"),
        (
            "vocab.json",
            b"{\"a\": -1}",
            "not an object from token to id",
        ),
        (
            "vocab.json",
            b"{\"a\": 0}",
            "\"<|startoftext|>\" is missing",
        ),
        (
            "merges.txt",
            b"#version: 0.2\na b\nabc\n",
            "line 3 is \"abc\"",
        ),
        ("merges.txt", b"a b c\n", "line 1 is \"a b c\""),
        ("merges.txt", b"\xff\xfe", "utf-8"),
        ("tokenizer_config.json", b"{", "EOF"),
        (
            "tokenizer_config.json",
            b"{\"model_max_length\": 1}",
            "`model_max_length` is 1",
        ),
        (
            "tokenizer_config.json",
            b"{\"eos_token\": 7}",
            "`eos_token` is 7",
        ),
        ("special_tokens_map.json", b"nonsense", "expected"),
    ] {
        let error = broken(name, Some(contents));
        assert!(error.contains(needle), "{needle:?} is not in: {error}");
    }
}

#[test]
fn a_merge_outside_the_vocabulary_is_refused() {
    let files = TokenizerFiles {
        vocab: &read("vocab.json"),
        merges: b"#version: 0.2\n\xc4\xa0\xc4\xa0\xc4\xa0 q\n",
        ..TokenizerFiles::default()
    };
    let error = ClipTokenizer::from_files(files).err().unwrap().to_string();
    assert!(error.contains("merges.txt"), "{error}");
}
