//! Byte-pair encoding in CLIP's form: trained on a list of words until each is one token.

use std::collections::{BTreeMap, BTreeSet};

/// Marks the end of a word.
const END: &str = "</w>";

/// Merges in the order in which they apply.
pub(super) struct Bpe {
    merges: Vec<(String, String)>,
}

impl Bpe {
    /// Merges the most frequent pair (the first in the alphabet of those equally frequent), again
    /// and again, until every word is one token.
    pub(super) fn train(words: &BTreeSet<String>) -> Self {
        let mut split: Vec<Vec<String>> = words.iter().map(|word| characters(word)).collect();
        let mut merges = Vec::new();
        while let Some(pair) = most_frequent_pair(&split) {
            split.iter_mut().for_each(|tokens| merge(tokens, &pair));
            merges.push(pair);
        }
        Self { merges }
    }

    pub(super) fn merges(&self) -> &[(String, String)] {
        &self.merges
    }

    /// Every token but the special ones, in the order of their identifiers.
    pub(super) fn tokens(&self) -> Vec<String> {
        let bytes = bytes_in_order().into_iter().map(byte_char);
        let mut tokens: Vec<String> = bytes.map(String::from).collect();
        let at_end: Vec<String> = tokens.iter().map(|token| format!("{token}{END}")).collect();
        tokens.extend(at_end);
        tokens.extend(
            self.merges
                .iter()
                .map(|(left, right)| format!("{left}{right}")),
        );
        tokens
    }

    /// The tokens of one word.
    #[cfg(test)]
    pub(super) fn encode(&self, word: &str) -> Vec<String> {
        let mut tokens = characters(word);
        self.merges.iter().for_each(|pair| merge(&mut tokens, pair));
        tokens
    }
}

/// The bytes of a word as visible characters, the last with the mark of the end.
fn characters(word: &str) -> Vec<String> {
    let mut tokens: Vec<String> = word.bytes().map(|byte| byte_char(byte).into()).collect();
    if let Some(last) = tokens.last_mut() {
        last.push_str(END);
    }
    tokens
}

fn most_frequent_pair(split: &[Vec<String>]) -> Option<(String, String)> {
    let mut counts = BTreeMap::new();
    for pair in split.iter().flat_map(|tokens| tokens.windows(2)) {
        *counts.entry((&pair[0], &pair[1])).or_insert(0) += 1;
    }
    let most = *counts.values().max()?;
    let (pair, _) = counts.into_iter().find(|(_, count)| *count == most)?;
    Some((pair.0.clone(), pair.1.clone()))
}

fn merge(tokens: &mut Vec<String>, (left, right): &(String, String)) {
    let mut at = 0;
    while at + 1 < tokens.len() {
        if tokens[at] == *left && tokens[at + 1] == *right {
            let second = tokens.remove(at + 1);
            tokens[at].push_str(&second);
        }
        at += 1;
    }
}

/// Bytes that are shown as the character of the same number (GPT-2's table, which CLIP took over).
fn is_visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

fn bytes_in_order() -> Vec<u8> {
    let (visible, hidden): (Vec<u8>, Vec<u8>) = (0..=255).partition(|&byte| is_visible(byte));
    [visible, hidden].concat()
}

/// The character that stands for a byte: itself, or for the n-th hidden byte U+0100 + n.
fn byte_char(byte: u8) -> char {
    if is_visible(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&other| !is_visible(other)).count() as u32;
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}
