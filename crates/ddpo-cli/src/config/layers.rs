//! The layers of a configuration and how they are put over each other.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::failure::{Exit, Failure, OrExit, Result};
use crate::suggest::nearest;

/// The preset that is used when none is named.
const DEFAULT_PRESET: &str = "pocket";

/// Presets that travel with the program, for configurations with no `presets` folder beside them.
const BUILT_IN: [(&str, &str); 3] = [
    (
        "pocket",
        include_str!("../../../../configs/presets/pocket.toml"),
    ),
    (
        "lora",
        include_str!("../../../../configs/presets/lora.toml"),
    ),
    (
        "paper",
        include_str!("../../../../configs/presets/paper.toml"),
    ),
];

/// What the user named.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The experiment's file; without it there is nothing but the preset and [`REPLAY`].
    pub file: Option<PathBuf>,
    /// Preset, else `pocket`.
    pub preset: Option<String>,
    /// `KEY=VALUE` pairs, in their order.
    pub set: Vec<String>,
    /// An arm of the experiment or an algorithm, where something else than the configuration decides.
    pub arm: Option<String>,
    /// The seed, where something else than the configuration decides.
    pub seed: Option<u64>,
    /// The model, where something else than the configuration decides.
    pub model: Option<String>,
    /// Whether the configuration is only read: the device need not be there.
    pub on_paper: bool,
}

/// What stands in for an experiment when one stored update is replayed: nothing of it is used.
const REPLAY: &str = r#"
experiment = "replay"
title = "Replay"
run.epochs = 1
reward.kind = "jpeg-compressibility"
prompts.set = "animals"
reproduce.algorithms = []
"#;

/// What a reward needs to know where neither preset nor experiment says it.
const REWARD_DEFAULTS: &str = include_str!("reward_defaults.toml");

impl Source {
    /// One update from a stored rollout.
    pub fn replay(model: &str, set: &[String]) -> Self {
        Self {
            model: Some(model.to_owned()),
            set: set.to_vec(),
            ..Self::default()
        }
    }

    /// The preset's name.
    pub fn preset(&self) -> &str {
        self.preset.as_deref().unwrap_or(DEFAULT_PRESET)
    }
}

/// All layers merged, `algorithms`, `presets` and `arms` still beside what they were merged into.
///
/// What the experiment says anywhere lies over what the preset says anywhere, so that the resolved
/// configuration of a run gives the same run again.
pub fn layer(source: &Source) -> Result<Figment> {
    let folder = source
        .file
        .as_deref()
        .and_then(Path::parent)
        .unwrap_or(Path::new(""));
    let preset = reward_defaults()?.merge(preset(source.preset(), &folder.join("presets"))?);
    let file = Figment::new().merge(match &source.file {
        Some(file) => read(file)?,
        None => Parsed::new(REPLAY, "ddpo replay".into())?,
    });
    let sets = sets(source, &file)?;
    let set = |figment: Figment| sets.iter().cloned().fold(figment, Figment::merge);
    // A wrong type here is reported with all other problems, by the reader.
    let name =
        |figment: Figment, key| -> String { set(figment).extract_inner(key).unwrap_or_default() };
    let of_preset = format!("presets.{}", source.preset());
    let arm = match name(file.clone(), "arm") {
        arm if arm.is_empty() => Figment::new(),
        arm => file
            .focus(&format!("arms.{arm}"))
            .merge(file.focus(&format!("{of_preset}.arms.{arm}"))),
    };
    let algorithm = name(preset.clone().merge(&file).merge(&arm), "rl.algorithm");
    let of_algorithm = format!("algorithms.{algorithm}");
    let merged = preset
        .clone()
        .merge(preset.focus(&of_algorithm))
        .merge(&file)
        .merge(file.focus(&of_algorithm))
        .merge(file.focus(&of_preset))
        .merge(file.focus(&format!("{of_preset}.{of_algorithm}")))
        .merge(arm);
    Ok(set(merged))
}

/// The keys of a reward by itself: defaults, its kind, `--set`.
pub fn reward_layer(kind: &str, set: &[String]) -> Result<Figment> {
    let kind = Set::new("reward.kind", kind.into(), "--reward");
    set.iter()
        .try_fold(reward_defaults()?.merge(kind), |figment, pair| {
            Ok(figment.merge(Set::parse(pair)?))
        })
}

fn reward_defaults() -> Result<Figment> {
    let name = "built-in defaults of rewards".into();
    Ok(Figment::new().merge(Parsed::new(REWARD_DEFAULTS, name)?))
}

/// What the command line says, what counts most last.
fn sets(source: &Source, file: &Figment) -> Result<Vec<Set>> {
    let arm = source.arm.iter().map(|name| {
        let is_arm = file.find_value(&format!("arms.{name}")).is_ok();
        let key = if is_arm { "arm" } else { "rl.algorithm" };
        Set::new(key, name.as_str().into(), "--algorithms")
    });
    let seed = source.seed.iter();
    let seed = seed.map(|&seed| Set::new("run.seed", seed.into(), "--seeds"));
    let model = source.model.iter();
    let model = model.map(|path| Set::new("model.path", path.as_str().into(), "--model"));
    let pairs = source.set.iter().map(|pair| Set::parse(pair));
    // Pairs are said once for all runs of a queue, and what tells its runs apart counts more: two of them would write
    // to one folder.
    let model = model.map(Ok).chain(pairs);
    model.chain(arm.chain(seed).map(Ok)).collect()
}

fn preset(name: &str, folder: &Path) -> Result<Parsed> {
    let file = folder.join(format!("{name}.toml"));
    if file.is_file() {
        return read(&file);
    }
    if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Parsed::new(text, format!("built-in preset {name}"));
    }
    let names = BUILT_IN.map(|(name, _)| name);
    let hint = match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there is {}", names.join(", ")),
    };
    let file = file.display();
    Err(Failure::config(format!(
        "preset `{name}` is not available (no file {file}): {hint}"
    )))
}

fn read(file: &Path) -> Result<Parsed> {
    let text = std::fs::read_to_string(file).or_exit(
        Exit::Config,
        format!("cannot read configuration {}", file.display()),
    )?;
    Parsed::new(&text, file.display().to_string())
}

/// A TOML document that knows its name.
struct Parsed {
    name: String,
    data: Map<Profile, Dict>,
}

impl Parsed {
    fn new(text: &str, name: String) -> Result<Self> {
        let data = Toml::string(text)
            .data()
            .or_exit(Exit::Config, format!("{name} is no valid TOML"))?;
        Ok(Self { name, data })
    }
}

impl Provider for Parsed {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(self.data.clone())
    }
}

/// One key given on the command line.
#[derive(Debug, Clone)]
struct Set {
    key: String,
    value: Value,
    from: &'static str,
}

impl Set {
    fn new(key: &str, value: Value, from: &'static str) -> Self {
        Self {
            key: key.to_owned(),
            value,
            from,
        }
    }

    /// `KEY=VALUE`: the value as TOML has it, else as a string.
    fn parse(pair: &str) -> Result<Self> {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(Failure::config(format!(
                "--set {pair}: expected KEY=VALUE, as in rl.lr=1e-4"
            )));
        };
        let (key, text) = (key.trim(), text.trim());
        if key.split('.').any(str::is_empty) {
            return Err(Failure::config(format!("--set {pair}: `{key}` is no key")));
        }
        let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
            .ok()
            .and_then(|table| Value::serialize(&table["v"]).ok())
            .unwrap_or_else(|| text.into());
        Ok(Self::new(key, value, "--set"))
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
