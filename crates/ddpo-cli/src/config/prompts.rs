//! `[prompts]`: what is drawn from in training, and what evaluations name.

use std::sync::Arc;

use ddpo_reward::Prompt;
use ddpo_reward::prompts::{PromptList, PromptSet};
use sha2::{Digest, Sha256};

use super::reader::Reader;
use crate::notice;
use crate::suggest::nearest;

/// Keys of which the highest counts.
pub(super) const SOURCES: [&str; 3] = ["prompts.set", "prompts.file", "prompts.texts"];

/// How prompts of one's own are given, for messages.
const OWN: &str =
    "prompts of your own are prompts.file = \"prompts.txt\" or prompts.texts = [\"a cat\"]";

/// Prompts under a name: a set of the paper's, a file, or a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    name: String,
    all: Arc<[Prompt]>,
    is_own: bool,
}

impl Prompts {
    /// What evaluations and messages call them: the set's name, the file's without its ending, or `prompts`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of them, numbered from 0; at least one.
    pub fn prompts(&self) -> &[Prompt] {
        &self.all
    }

    /// Whether they are the user's own, from a file or a list.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    fn own(name: String, list: PromptList) -> Self {
        for warning in &list.warnings {
            notice::once(warning);
        }
        Self {
            name,
            all: list.prompts.into(),
            is_own: true,
        }
    }
}

impl From<PromptSet> for Prompts {
    fn from(set: PromptSet) -> Self {
        Self {
            name: set.name().to_owned(),
            all: set.prompts().into(),
            is_own: false,
        }
    }
}

/// What a run draws from: the highest of a set, a file and a list.
pub(super) fn read(r: &mut Reader) -> Prompts {
    match r.highest(&SOURCES) {
        Some("prompts.file") => file(r, "prompts.file", "prompts.sha256"),
        Some("prompts.texts") => texts(r),
        _ => set(r),
    }
}

/// How high the prompts stand, where they are the user's own.
pub(super) fn height(r: &Reader, drawn: &Prompts) -> Option<usize> {
    let highest = SOURCES.iter().filter_map(|key| r.height(key)).max();
    highest.filter(|_| drawn.is_own)
}

/// The negative prompt.
pub(super) fn negative(r: &mut Reader) -> String {
    r.get("prompts.negative")
}

fn set(r: &mut Reader) -> Prompts {
    let key = "prompts.set";
    let known = PromptSet::ALL.map(PromptSet::name);
    let before = r.n_problems();
    let name: String = r.get(key);
    let found = PromptSet::by_name(&name);
    if found.is_none() && r.n_problems() == before {
        let hint = match nearest(&name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        let problem = format!("is \"{name}\", which is no prompt set: {hint}; {OWN}");
        r.problem(key, problem);
    }
    found.unwrap_or(PromptSet::Animals).into()
}

fn texts(r: &mut Reader) -> Prompts {
    let key = "prompts.texts";
    let before = r.n_problems();
    let texts: Vec<String> = r.get(key);
    let list = PromptList::of_texts(&texts, key).unwrap_or_else(|error| {
        if r.n_problems() == before {
            r.problem(key, format!("cannot be drawn from: {error}"));
        }
        PromptList::default()
    });
    Prompts::own("prompts".to_owned(), list)
}

/// Prompts of a file. Their checksum goes into the resolved configuration, so that a run is not taken on with others.
pub(super) fn file(r: &mut Reader, key: &str, checksum_key: &str) -> Prompts {
    let before = r.n_problems();
    let path = r.file(key);
    let list = match PromptList::read(&path) {
        Ok(list) => list,
        Err(error) => {
            if r.n_problems() == before {
                r.problem(key, format!("cannot be read: {error}"));
            }
            PromptList::default()
        }
    };
    let checksum = checksum(&list.prompts);
    // A checksum below the file is of another file.
    if r.height(checksum_key) >= r.height(key) {
        let was: String = r.get(checksum_key);
        if was != checksum {
            let problem =
                "has other prompts than when the run was made: put them back, or start another run";
            r.problem(key, problem);
        }
    } else {
        r.derive(checksum_key, checksum, "the prompts as they were read");
    }
    let name = path.file_stem().unwrap_or_default();
    Prompts::own(name.to_string_lossy().into_owned(), list)
}

/// Of everything that a run takes from its prompts.
fn checksum(prompts: &[Prompt]) -> String {
    let mut hasher = Sha256::new();
    for prompt in prompts {
        for text in [&prompt.text, prompt.metadata.as_deref().unwrap_or_default()] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.update(prompt.weight.to_le_bytes());
    }
    let hash = hasher.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
