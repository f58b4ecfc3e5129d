//! Keys of `[reward]` for rewards that somebody else computes: a chat server, a program; and sums of rewards.

use std::path::PathBuf;
use std::time::Duration;

use ddpo_reward::CommandConfig;
use ddpo_reward::vlm::{Backoff, ChatConfig, Encoding, Question, Wording};
use figment::value::{Dict, Value};
use serde::Deserialize;
use tch::Device;

use super::reader::{Reader, expected};
use super::reward::RewardKind;
use super::sections::duration;

/// A chat server and what it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct VlmPlan {
    /// Where and how patiently; the key is not read yet.
    pub chat: ChatConfig,
    /// Name of the environment variable that holds the key; none for servers that want none.
    pub api_key_env: Option<String>,
    /// How images travel.
    pub encoding: Encoding,
}

/// What compares texts.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderPlan {
    /// A folder in transformers' layout, or a repository of the hub.
    pub weights: String,
    /// The layer whose states are compared.
    pub layer: i64,
    /// Where it is computed.
    pub device: Device,
}

/// A program and what to do when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandPlan {
    /// The program.
    pub config: CommandConfig,
    /// A program that ended is started anew for so long.
    pub retry: Duration,
}

/// Scores on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePlan {
    /// Where they are.
    pub folder: PathBuf,
    /// Nobody is asked: a score that is not there is an error.
    pub offline: bool,
}

/// `reward.vlm.…`.
pub(super) fn vlm(r: &mut Reader) -> VlmPlan {
    let url = text(r, "reward.vlm.url");
    let model = text(r, "reward.vlm.model");
    let api_key_env: String = r.get("reward.vlm.api_key_env");
    let chat = ChatConfig {
        max_tokens: r.count("reward.vlm.max_tokens") as u32,
        in_flight: r.count("reward.vlm.in_flight") as usize,
        attempt_timeout: span(r, "reward.vlm.timeout"),
        deadline: span(r, "reward.vlm.deadline"),
        backoff: Backoff {
            first: span(r, "reward.vlm.backoff"),
            longest: span(r, "reward.vlm.longest_backoff"),
        },
        bad_answers: r.count("reward.vlm.bad_answers") as u32,
        ..ChatConfig::new(url, model)
    };
    VlmPlan {
        chat,
        api_key_env: Some(api_key_env).filter(|name| !name.is_empty()),
        encoding: r.choice(
            "reward.vlm.encoding",
            &[("jpeg", Encoding::Jpeg), ("png", Encoding::Png)],
        ),
    }
}

/// `reward.vlm.questions`.
pub(super) fn questions(r: &mut Reader) -> Vec<Question> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        ask: String,
        expect: String,
    }
    let key = "reward.vlm.questions";
    let rows: Vec<Row> = r.get(key);
    if rows.iter().any(|row| row.expect.trim().is_empty()) {
        r.problem(
            key,
            "has a question that expects nothing: every answer would do",
        );
    } else if rows.is_empty() && r.is_set(key) {
        r.problem(key, format!("is empty: expected {}", expected(key)));
    }
    let question = |Row { ask, expect }| Question { ask, expect };
    rows.into_iter().map(question).collect()
}

/// `reward.vlm.wording`.
pub(super) fn wording(r: &mut Reader) -> Wording {
    r.choice("reward.vlm.wording", &Wording::NAMES)
}

/// `reward.vlm.encoder…`.
pub(super) fn encoder(r: &mut Reader) -> EncoderPlan {
    EncoderPlan {
        weights: text(r, "reward.vlm.encoder"),
        layer: r.count("reward.vlm.encoder_layer") as i64,
        device: device(r, "reward.vlm.encoder_device"),
    }
}

fn device(r: &mut Reader, key: &str) -> Device {
    let name: String = r.get(key);
    ddpo_torch::device(&name).unwrap_or_else(|error| {
        if !name.is_empty() {
            r.problem(key, format!("is \"{name}\": {error}"));
        }
        Device::Cpu
    })
}

/// `reward.command…`.
pub(super) fn command(r: &mut Reader) -> CommandPlan {
    let key = "reward.command";
    let command: Vec<String> = r.get(key);
    if r.is_set(key) && command.first().is_none_or(|program| program.is_empty()) {
        r.problem(key, format!("is empty: expected {}", expected(key)));
    }
    let command: Vec<String> = command.iter().map(|part| r.beside(key, part)).collect();
    r.replace(key, command.clone());
    CommandPlan {
        config: CommandConfig {
            command,
            deadline: span(r, "reward.command_deadline"),
        },
        retry: duration(r, "reward.command_retry").unwrap_or_default(),
    }
}

/// `reward.parts`: kinds and what they count; whoever is asked comes first, since what fails should fail early.
pub(super) fn parts(r: &mut Reader, names: &[&str]) -> Vec<(RewardKind, f64)> {
    let key = "reward.parts";
    let table: Dict = r.get(key);
    if table.is_empty() && r.is_set(key) {
        r.problem(key, format!("is empty: expected {}", expected(key)));
    }
    let mut parts = Vec::new();
    for (name, weight) in table {
        let below = format!("{key}.{name}");
        if !names.contains(&name.as_str()) || name == ddpo_reward::Composite::NAME {
            let all = names
                .iter()
                .filter(|name| **name != ddpo_reward::Composite::NAME);
            let all: Vec<&str> = all.copied().collect();
            r.problem(
                &below,
                format!("is no part: expected one of {}", all.join(", ")),
            );
            continue;
        }
        let weight = number(&weight).filter(|weight| *weight != 0.0 && weight.is_finite());
        let Some(weight) = weight else {
            r.problem(&below, "is no weight: expected a number other than 0");
            continue;
        };
        parts.push((RewardKind::read(r, &name), weight));
    }
    parts.sort_by_key(|(kind, _)| !kind.has_answers());
    parts
}

/// `reward.cache` and `reward.offline`.
pub(super) fn cache(r: &mut Reader) -> Option<CachePlan> {
    let folder: String = r.get("reward.cache");
    let offline = r.get("reward.offline");
    if offline && folder.is_empty() {
        let problem = "is true: expected `reward.cache` to name the folder that has the scores";
        r.problem("reward.offline", problem);
    }
    (!folder.is_empty()).then(|| CachePlan {
        folder: folder.into(),
        offline,
    })
}

fn number(value: &Value) -> Option<f64> {
    let whole = || value.to_i128().map(|number| number as f64);
    value.to_f64().or_else(whole)
}

/// A text that must be there and say something.
pub(super) fn text(r: &mut Reader, key: &str) -> String {
    let text: String = r.get(key);
    if r.is_set(key) && text.trim().is_empty() {
        r.problem(key, format!("is empty: expected {}", expected(key)));
    }
    text
}

/// A duration above nothing.
fn span(r: &mut Reader, key: &str) -> Duration {
    let before = r.n_problems();
    let span = duration(r, key);
    if span.is_none() && r.n_problems() == before {
        r.problem(key, "expected a duration above 0, as \"30s\" or \"10m\"");
    }
    span.unwrap_or_default()
}
