//! One layer of a configuration: a TOML document, or a key of the command line.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Metadata, Profile, Provider};

use crate::failure::{Exit, Failure, OrExit, Result};
use crate::notice;

/// Keys and sections under names that they no longer have: still read, and told.
const RENAMED: [(&str, &str); 2] = [("arm", "variant"), ("arms", "variants")];

/// Moves what has an old name to the new one.
fn rename(dict: &mut Dict, file: &str) -> Result<()> {
    for (old, new) in RENAMED {
        let Some(value) = dict.remove(old) else {
            continue;
        };
        notice::once(&format!("{file}: `{old}` is called `{new}` now"));
        if dict.insert(new.to_owned(), value).is_some() {
            return Err(Failure::config(format!(
                "{file} has both `{old}` and `{new}`, which is its new name: remove `{old}`"
            )));
        }
    }
    Ok(())
}

/// The key as it is called now.
fn renamed(key: &str, from: &str) -> String {
    let (first, rest) = key.split_at(key.find('.').unwrap_or(key.len()));
    match RENAMED.iter().find(|(old, _)| *old == first) {
        Some((old, new)) => {
            notice::once(&format!("{from}: `{old}` is called `{new}` now"));
            format!("{new}{rest}")
        }
        None => key.to_owned(),
    }
}

/// A TOML document that knows its name.
pub struct Parsed {
    name: String,
    file: Option<PathBuf>,
    data: Map<Profile, Dict>,
}

impl Parsed {
    /// Reads TOML that messages call `name`.
    pub fn new(text: &str, name: String) -> Result<Self> {
        let mut data = Toml::string(text)
            .data()
            .or_exit(Exit::Config, format!("{name} is no valid TOML"))?;
        for dict in data.values_mut() {
            rename(dict, &name)?;
            if let Some(Value::Dict(_, presets)) = dict.get_mut("presets") {
                for preset in presets.values_mut() {
                    if let Value::Dict(_, preset) = preset {
                        rename(preset, &name)?;
                    }
                }
            }
        }
        Ok(Self {
            name,
            file: None,
            data,
        })
    }

    /// Says where it is: paths in it are relative to its folder.
    pub fn at(self, file: &Path) -> Self {
        Self {
            file: Some(file.to_owned()),
            ..self
        }
    }
}

impl Provider for Parsed {
    fn metadata(&self) -> Metadata {
        match &self.file {
            Some(file) => Metadata::from(self.name.clone(), file.as_path()),
            None => Metadata::named(self.name.clone()),
        }
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(self.data.clone())
    }
}

/// One key given on the command line.
#[derive(Debug, Clone)]
pub struct Set {
    key: String,
    value: Value,
    from: &'static str,
}

impl Set {
    /// From the option `from`.
    pub fn new(key: &str, value: Value, from: &'static str) -> Self {
        Self {
            key: key.to_owned(),
            value,
            from,
        }
    }

    /// `KEY=VALUE`: the value as TOML has it, else as a string.
    pub fn parse(pair: &str) -> Result<Self> {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(Failure::config(format!(
                "--set {pair}: expected KEY=VALUE, as in rl.lr=1e-4"
            )));
        };
        let (key, text) = (renamed(key.trim(), "--set"), text.trim());
        if key.split('.').any(str::is_empty) {
            return Err(Failure::config(format!("--set {pair}: `{key}` is no key")));
        }
        let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
            .ok()
            .and_then(|table| Value::serialize(&table["v"]).ok())
            .unwrap_or_else(|| text.into());
        Ok(Self::new(&key, value, "--set"))
    }
}

impl Provider for Set {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.from)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let mut keys: Vec<&str> = self.key.split('.').collect();
        let last = keys.pop().unwrap_or_default();
        let innermost = Dict::from([(last.to_owned(), self.value.clone())]);
        let wrap = |inner: Dict, key: &str| {
            Dict::from([(key.to_owned(), Value::Dict(Tag::Default, inner))])
        };
        let dict = keys.into_iter().rev().fold(innermost, wrap);
        Ok(Map::from([(Profile::Default, dict)]))
    }
}
