//! Reading keys one by one, so that every problem is found and every value knows where it came from.

use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Value;
use serde::de::DeserializeOwned;

use super::keys::{self, Key, Kind};
use super::layers::{DEFAULT, Layers};
use crate::failure::{Failure, Result};
use crate::suggest::nearest;

/// A key that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Dotted path.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// File, `--set`, or `default`.
    pub from: String,
}

/// Something wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path.
    pub key: String,
    /// Where its value came from, if it has one.
    pub from: Option<String>,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "{from}: `{}` {}", self.key, self.message),
            None => write!(f, "`{}` {}", self.key, self.message),
        }
    }
}

/// Sections that hold other layers or lists, and no keys of their own.
const LAYERS: [&str; 3] = ["algorithms", "presets", "variants"];

/// Reads keys of a figment; a bad or missing value is noted, and stands in as the type's default.
#[derive(Debug)]
pub struct Reader {
    layers: Layers,
    figment: Figment,
    entries: Vec<Entry>,
    /// What the names of keys begin with.
    prefix: &'static str,
    problems: Vec<Problem>,
}

impl Reader {
    /// A reader of merged layers.
    pub fn new(layers: Layers) -> Self {
        Self {
            figment: layers.merged.clone(),
            layers,
            entries: Vec::new(),
            prefix: "",
            problems: Vec::new(),
        }
    }

    /// Only keys that begin so are known; others are no keys here.
    pub fn within(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    /// A key that must be there.
    pub fn get<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        match self.find(key) {
            Some(value) => value,
            None => {
                if self.from(key).is_none() {
                    self.problem(key, format!("is missing: expected {}", expected(key)));
                }
                T::default()
            }
        }
    }

    /// A key that may be left out.
    pub fn find<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.figment.find_value(key).ok()?;
        match self.figment.extract_inner::<T>(key) {
            Ok(read) => {
                let entry = Entry {
                    key: key.to_owned(),
                    value: show(&value),
                    from: self.from(key).unwrap_or_default(),
                };
                // Parts of a sum may share keys.
                if !self.entries.contains(&entry) {
                    self.entries.push(entry);
                }
                Some(read)
            }
            Err(_) => {
                let problem = format!("is {}: expected {}", show(&value), expected(key));
                self.problem(key, problem);
                None
            }
        }
    }

    /// A whole number within the key's range.
    pub fn count(&mut self, key: &str) -> u64 {
        let before = self.problems.len();
        let value = self.get::<u64>(key);
        let Kind::Count(low, high) = declared(key).kind else {
            unreachable!("`{key}` is declared as a count");
        };
        if self.problems.len() == before && !(low..=high).contains(&value) {
            self.problem(key, format!("is {value}: expected {}", expected(key)));
        }
        value
    }

    /// A whole number within the key's range that may be left out.
    pub fn find_count(&mut self, key: &str) -> Option<u64> {
        self.is_set(key).then(|| self.count(key))
    }

    /// A number within the key's range.
    pub fn number(&mut self, key: &str) -> f64 {
        let before = self.problems.len();
        let value = self.get::<f64>(key);
        let Kind::Number(low, high) = declared(key).kind else {
            unreachable!("`{key}` is declared as a number");
        };
        if self.problems.len() == before && !(low..=high).contains(&value) {
            self.problem(key, format!("is {value}: expected {}", expected(key)));
        }
        value
    }

    /// One of the key's names, which are those of `choices`; the first where the value is no name of these.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let before = self.problems.len();
        let name = self.get::<String>(key);
        match choices.iter().find(|(choice, _)| *choice == name) {
            Some((_, value)) => *value,
            None => {
                if self.problems.len() == before {
                    let hint = nearest(&name, choices.iter().map(|(name, _)| *name))
                        .map(|near| format!(" (did you mean {near}?)"))
                        .unwrap_or_default();
                    let expected = expected(key);
                    self.problem(key, format!("is \"{name}\": expected {expected}{hint}"));
                }
                choices[0].1
            }
        }
    }

    /// Whether a key has a value.
    pub fn is_set(&self, key: &str) -> bool {
        self.figment.find_value(key).is_ok()
    }

    /// How high the highest layer is that has this key; layers are numbered from the lowest.
    pub fn height(&self, key: &str) -> Option<usize> {
        self.layers.height(key)
    }

    /// Of keys that replace each other, the one in the highest layer; two in one layer are a problem.
    pub fn highest(&mut self, keys: &[&'static str]) -> Option<&'static str> {
        let top = keys.iter().filter_map(|key| self.height(key)).max()?;
        let there = |key: &&&str| self.height(key) == Some(top);
        let there: Vec<&str> = keys.iter().filter(there).copied().collect();
        if let [first, second, ..] = there[..] {
            let problem = format!("is there beside `{first}`, which it would replace: remove one");
            self.problem(second, problem);
        }
        keys.iter().copied().find(|key| there[0] == *key)
    }

    /// A file; its path is relative to the folder of the configuration that names it, and absolute from here on.
    pub fn file(&mut self, key: &str) -> PathBuf {
        let named: String = self.get(key);
        let path = self.folder(key).join(named);
        let path = std::path::absolute(&path).unwrap_or(path);
        self.replace(key, path.to_string_lossy().into_owned());
        path
    }

    /// What is there under this name beside the configuration that a key comes from, as an absolute path; the name as it
    /// is where there is nothing: it may be of something else than a file, or of a file where we are.
    pub fn beside(&self, key: &str, name: &str) -> String {
        let folder = self.folder(key);
        let path = folder.join(name);
        if folder.as_os_str().is_empty() || name.is_empty() || !path.exists() {
            return name.to_owned();
        }
        let path = std::path::absolute(&path).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }

    /// The folder of the configuration that a key's value comes from; nothing for a key of the command line.
    fn folder(&self, key: &str) -> PathBuf {
        let metadata = self.figment.find_metadata(key);
        let file = metadata.and_then(|it| it.source.as_ref()?.file_path());
        let folder = file.and_then(Path::parent);
        folder.unwrap_or(Path::new("")).to_owned()
    }

    /// Puts what was made of a key's value in place of it.
    pub fn replace(&mut self, key: &str, value: impl Into<Value>) {
        let value = show(&value.into());
        for entry in self.entries.iter_mut().filter(|entry| entry.key == key) {
            entry.value.clone_from(&value);
        }
    }

    /// Adds what follows from other keys to the resolved configuration.
    pub fn derive(&mut self, key: &str, value: impl Into<Value>, from: &str) {
        self.entries.push(Entry {
            key: key.to_owned(),
            value: show(&value.into()),
            from: from.to_owned(),
        });
    }

    /// Names of the tables in a section, in their order in the file.
    pub fn tables(&self, key: &str) -> Vec<String> {
        match self.figment.find_value(key) {
            Ok(Value::Dict(_, dict)) => dict.into_keys().collect(),
            _ => Vec::new(),
        }
    }

    /// How much is wrong so far.
    pub fn n_problems(&self) -> usize {
        self.problems.len()
    }

    /// Notes something that is wrong between keys.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let problem = Problem {
            key: key.to_owned(),
            from: self.from(key),
            message: message.into(),
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// All keys that were read, or all that is wrong, unknown keys included.
    pub fn finish(mut self) -> Result<Vec<Entry>> {
        self.note_unknown_keys();
        if self.problems.is_empty() {
            return Ok(self.entries);
        }
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        Err(Failure::config(match lines.as_slice() {
            [line] => line.clone(),
            lines => format!(
                "{} problems in the configuration:\n  {}",
                lines.len(),
                lines.join("\n  ")
            ),
        }))
    }

    /// Where the value of a key came from.
    fn from(&self, key: &str) -> Option<String> {
        self.figment
            .find_metadata(key)
            .map(|metadata| metadata.name.to_string())
    }

    fn note_unknown_keys(&mut self) {
        let Ok(all) = self.figment.extract::<Value>() else {
            return;
        };
        let mut found = Vec::new();
        flatten(&all, "", &mut found);
        for key in found {
            let plain = without_layer(&key);
            // A list or table that was read as a whole has keys below its own.
            let here = keys::all().filter(|known| known.name.starts_with(self.prefix));
            let here: Vec<&str> = here.map(|known| known.name).collect();
            let is_known = here.iter().any(|known| {
                let rest = plain.strip_prefix(known);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            // Of keys that are not for here, there are the defaults.
            let is_known = is_known || self.from(&key).as_deref() == Some(DEFAULT);
            if !is_known {
                let hint = match nearest(plain, here) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`ddpo plan` prints the keys that there are".into(),
                };
                self.problem(&key, format!("is no key: {hint}"));
            }
        }
    }
}

/// A key of the table: one that is read and not there is a bug.
fn declared(key: &str) -> &'static Key {
    keys::by_name(key).unwrap_or_else(|| unreachable!("`{key}` is not declared in config/keys"))
}

/// What a key's value may be, for messages.
pub fn expected(key: &str) -> String {
    declared(key).kind.expected()
}

fn show(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| format!("{value:?}"), |value| value.to_string())
}

/// Leaves of a tree of tables as dotted paths.
fn flatten(value: &Value, path: &str, keys: &mut Vec<String>) {
    let Value::Dict(_, dict) = value else {
        keys.push(path.to_owned());
        return;
    };
    for (name, inner) in dict {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        flatten(inner, &below, keys);
    }
}

/// `presets.pocket.algorithms.ddpo-is.rl.lr` is about `rl.lr`.
fn without_layer(key: &str) -> &str {
    let mut rest = key;
    while let Some((layer, inner)) = rest.split_once('.') {
        if !LAYERS.contains(&layer) {
            break;
        }
        rest = inner.split_once('.').map_or(inner, |(_name, inner)| inner);
    }
    rest
}
