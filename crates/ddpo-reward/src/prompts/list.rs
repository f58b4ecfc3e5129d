//! Prompts of one's own, from a file or a list (feature `prompt-files`).
//!
//! A file has one prompt per line, or is JSON Lines:
//!
//! ```text
//! {"text": "a cat"}
//! {"text": "a dog", "weight": 2.0, "metadata": {"breed": "poodle"}}
//! ```
//!
//! It is JSON Lines if its name ends in `.jsonl` or its first line begins with `{`.
//! A byte order mark, carriage returns and spaces around a line mean nothing, and empty lines are skipped.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Prompt, Result, RewardError};

/// Repeated prompts that a warning names.
const NAMED: usize = 3;

/// What a line of JSON Lines is expected to be.
const EXPECTED: &str =
    r#"an object such as {"text": "a cat", "weight": 1.0, "metadata": {"any": "thing"}}"#;

/// Prompts in their order, numbered from 0, and what their author may not have meant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptList {
    /// The prompts; at least one.
    pub prompts: Vec<Prompt>,
    /// A line each, for people: what was skipped, and what is there more than once.
    pub warnings: Vec<String>,
}

/// A line of JSON Lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    text: String,
    weight: Option<f64>,
    metadata: Option<Map<String, Value>>,
}

impl PromptList {
    /// The prompts of a file.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] with the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|error| RewardError::bad_input(&shown, "a file with prompts", error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            let what = format!("{shown}, line {line}");
            RewardError::bad_input(what, "text in UTF-8", "bytes of another encoding")
        })?;
        let is_json = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"));
        Self::parse(&text, &shown, is_json)
    }

    /// The prompts of a text that `name` is called in messages; `is_json` where it is JSON Lines, whatever it begins
    /// with.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] with the line.
    pub fn parse(text: &str, name: &str, is_json: bool) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<(usize, &str)> = (1..).zip(text.lines().map(str::trim)).collect();
        let (full, empty): (Vec<_>, Vec<_>) = lines.iter().partition(|(_, line)| !line.is_empty());
        let is_json = is_json || full.first().is_some_and(|(_, line)| line.starts_with('{'));
        let mut prompts = Vec::with_capacity(full.len());
        for (id, (number, line)) in (0..).zip(&full) {
            prompts.push(match is_json {
                true => row(id, line)
                    .map_err(|(expected, actual)| at_line(name, *number, expected, actual))?,
                false => Prompt::new(id, *line),
            });
        }
        if prompts.is_empty() {
            return Err(RewardError::bad_input(name, "at least one prompt", "none"));
        }
        let mut warnings = Vec::new();
        if !empty.is_empty() {
            warnings.push(format!(
                "{name}: {} skipped",
                count(empty.len(), "empty line")
            ));
        }
        let numbers: Vec<usize> = full.iter().map(|(number, _)| *number).collect();
        warnings.extend(repeated(&prompts, name, "line", &numbers));
        Ok(Self { prompts, warnings })
    }

    /// The prompts of a list, all of weight 1; `name` is what it is called in messages.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] for an empty list and for an empty text.
    pub fn of_texts(texts: &[String], name: &str) -> Result<Self> {
        let texts: Vec<&str> = texts.iter().map(|text| text.trim()).collect();
        if let Some(at) = texts.iter().position(|text| text.is_empty()) {
            let what = format!("{name}, number {}", at + 1);
            return Err(RewardError::bad_input(what, "a prompt", "an empty text"));
        }
        if texts.is_empty() {
            return Err(RewardError::bad_input(name, "at least one prompt", "none"));
        }
        let prompts = super::numbered(texts);
        let numbers: Vec<usize> = (1..=prompts.len()).collect();
        Ok(Self {
            warnings: repeated(&prompts, name, "number", &numbers)
                .into_iter()
                .collect(),
            prompts,
        })
    }
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn at_line(name: &str, line: usize, expected: String, actual: String) -> RewardError {
    RewardError::bad_input(format!("{name}, line {line}"), expected, actual)
}

/// One prompt, or what was expected and what there is.
fn row(id: u64, line: &str) -> Result<Prompt, (String, String)> {
    let row: Row = serde_json::from_str(line).map_err(|error| {
        // Each line is a text of its own to the parser, which calls it line 1.
        let error = error.to_string();
        let reason = error.split(" at line 1").next().unwrap_or_default();
        (EXPECTED.to_owned(), reason.to_owned())
    })?;
    let text = row.text.trim();
    if text.is_empty() {
        return Err((EXPECTED.to_owned(), "an empty `text`".to_owned()));
    }
    let weight = row.weight.unwrap_or(1.0);
    if !(weight.is_finite() && weight > 0.0) {
        let expected = "a `weight` that is finite and above 0".to_owned();
        return Err((expected, weight.to_string()));
    }
    let prompt = Prompt::new(id, text).with_weight(weight);
    Ok(match row.metadata {
        Some(object) => prompt.with_metadata(Value::Object(object).to_string()),
        None => prompt,
    })
}

/// A line about texts that are there more than once, if there are any.
fn repeated(prompts: &[Prompt], name: &str, place: &str, numbers: &[usize]) -> Option<String> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (prompt, number) in prompts.iter().zip(numbers) {
        places.entry(&prompt.text).or_default().push(*number);
    }
    let mut repeated: Vec<(&str, Vec<usize>)> = places
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .collect();
    repeated.sort_by_key(|(_, places)| places[0]);
    let (first, n) = (repeated.iter().take(NAMED), repeated.len());
    let shown: Vec<String> = first
        .map(|(text, places)| format!("\"{text}\" ({place}s {} and {})", places[0], places[1]))
        .collect();
    let more = if n > NAMED { ", …" } else { "" };
    (n > 0).then(|| {
        format!(
            "{name}: {} there more than once, and drawn as often: {}{more}",
            count(n, "prompt"),
            shown.join(", ")
        )
    })
}
