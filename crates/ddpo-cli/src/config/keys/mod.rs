//! Every key of a configuration, declared once.
//!
//! From here the reader has types, ranges and defaults, `ddpo plan --keys` its explanations, a resumed run what may
//! differ, and `docs/configuration.md` its tables. Sources in the explanations: `[P]` Black et al. 2023, section or
//! table; `[J]` jannerm/ddpo; `[T]` kvablack/ddpo-pytorch; `[own]` chosen here.

mod algorithms;
#[cfg(test)]
mod page;
mod prompts;
mod reports;
mod reward;
mod run;

use std::fmt::Write;

/// A key, and everything that is known about it without a configuration.
#[derive(Debug)]
pub struct Key {
    /// Dotted path.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its value as TOML where no layer has one.
    pub default: Option<&'static str>,
    /// Whether a run that is resumed may change it without becoming another run.
    pub may_change: bool,
    /// What it is for.
    pub doc: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// True or false.
    Flag,
    /// A whole number, both ends included.
    Count(u64, u64),
    /// A number, both ends included.
    Number(f64, f64),
    /// One of these names.
    Choice(fn() -> Vec<&'static str>),
    /// A span of time.
    Duration,
    /// What the text says.
    Other(&'static str),
}

impl Kind {
    /// What to write, for messages.
    pub fn expected(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            Self::Number(low, high) => format!("a number from {} to {}", short(low), short(high)),
            Self::Choice(names) => format!("one of {}", names().join(", ")),
            Self::Duration => "seconds, or a text such as \"90s\", \"10m\", \"2h\"".to_owned(),
            Self::Other(expected) => (*expected).to_owned(),
        }
    }
}

impl Key {
    /// A key without a default, which a resumed run keeps.
    const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            may_change: false,
            doc,
        }
    }

    const fn default(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    const fn may_change(self) -> Self {
        Self {
            may_change: true,
            ..self
        }
    }
}

/// A number as people write it: 1e-12, not 0.000000000001.
fn short(number: &f64) -> String {
    let size = number.abs();
    match size > 0.0 && !(1e-3..1e6).contains(&size) {
        true => format!("{number:e}"),
        false => number.to_string(),
    }
}

/// All keys, section by section.
pub fn all() -> impl Iterator<Item = &'static Key> {
    [
        run::KEYS,
        prompts::KEYS,
        algorithms::KEYS,
        reward::KEYS,
        reports::KEYS,
    ]
    .into_iter()
    .flatten()
}

/// The key of that name.
pub fn by_name(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// All defaults as a TOML document.
pub fn defaults() -> String {
    let mut text = String::new();
    for key in all() {
        if let Some(value) = key.default {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} = {value}", key.name);
        }
    }
    text
}

/// The names of choices with their values.
fn names<T>(choices: &[(&'static str, T)]) -> Vec<&'static str> {
    choices.iter().map(|(name, _)| *name).collect()
}
