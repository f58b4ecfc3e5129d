//! The layers of a configuration and how they are put over each other.

use std::path::{Path, PathBuf};

use figment::{Figment, Provider};

use super::document::{Parsed, Set};
use super::keys;
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::suggest::nearest;

/// The preset that is used when none is named.
const DEFAULT_PRESET: &str = "pocket";

/// Where a value came from that nobody gave.
pub const DEFAULT: &str = "default";

/// Presets that travel with the program, for configurations with no `presets` folder beside them.
pub const BUILT_IN: [(&str, &str); 3] = [
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
    /// A variant of the experiment or an algorithm, where something else than the configuration decides.
    pub variant: Option<String>,
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

/// Layers over each other, and each by itself: of keys that replace each other, the highest counts.
#[derive(Debug, Default)]
pub struct Layers {
    /// All of them merged.
    pub merged: Figment,
    /// From the lowest to the highest.
    stack: Vec<Figment>,
}

impl Layers {
    /// How high the highest layer is that has this key.
    pub fn height(&self, key: &str) -> Option<usize> {
        let has = |layer: &Figment| layer.find_value(key).is_ok();
        self.stack.iter().rposition(has)
    }

    fn over(mut self, layer: impl Provider) -> Self {
        let layer = Figment::new().merge(layer);
        self.merged = self.merged.merge(&layer);
        self.stack.push(layer);
        self
    }
}

/// All layers merged, `algorithms`, `presets` and `variants` still beside what they were merged into.
///
/// What the experiment says anywhere lies over what the preset says anywhere, so that the resolved
/// configuration of a run gives the same run again.
pub fn layers(source: &Source) -> Result<Layers> {
    let folder = source
        .file
        .as_deref()
        .and_then(Path::parent)
        .unwrap_or(Path::new(""));
    let preset = Figment::new().merge(preset(source.preset(), &folder.join("presets"))?);
    let file = Figment::new().merge(match &source.file {
        Some(file) => read(file)?,
        None => Parsed::new(REPLAY, "ddpo replay".into())?,
    });
    let sets = sets(source, &file)?;
    let sets = sets.into_iter().fold(Figment::new(), Figment::merge);
    // A wrong type here is reported with all other problems, by the reader.
    let name = |figment: Figment, key| -> String {
        let figment = figment.merge(&sets);
        figment.extract_inner(key).unwrap_or_default()
    };
    let of_preset = format!("presets.{}", source.preset());
    let variant = match name(file.clone(), "variant") {
        variant if variant.is_empty() => [Figment::new(), Figment::new()],
        variant => [
            file.focus(&format!("variants.{variant}")),
            file.focus(&format!("{of_preset}.variants.{variant}")),
        ],
    };
    let [of_variant, of_both] = variant;
    let so_far = preset.clone().merge(&file);
    let algorithm = name(so_far.merge(&of_variant).merge(&of_both), "rl.algorithm");
    let of_algorithm = format!("algorithms.{algorithm}");
    Ok(defaults()?
        .over(&preset)
        .over(preset.focus(&of_algorithm))
        .over(&file)
        .over(file.focus(&of_algorithm))
        .over(file.focus(&of_preset))
        .over(file.focus(&format!("{of_preset}.{of_algorithm}")))
        .over(of_variant)
        .over(of_both)
        .over(sets))
}

/// The keys of a reward by itself: defaults, its kind, `--set`.
pub fn reward_layers(kind: &str, set: &[String]) -> Result<Layers> {
    let kind = Set::new("reward.kind", kind.into(), "--reward");
    set.iter().try_fold(defaults()?.over(kind), |layers, pair| {
        Ok(layers.over(Set::parse(pair)?))
    })
}

fn defaults() -> Result<Layers> {
    Ok(Layers::default().over(Parsed::new(&keys::defaults(), DEFAULT.into())?))
}

/// What the command line says, what counts most last.
fn sets(source: &Source, file: &Figment) -> Result<Vec<Set>> {
    let variant = source.variant.iter().map(|name| {
        let is_variant = file.find_value(&format!("variants.{name}")).is_ok();
        let key = if is_variant {
            "variant"
        } else {
            "rl.algorithm"
        };
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
    model.chain(variant.chain(seed).map(Ok)).collect()
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
    Ok(Parsed::new(&text, file.display().to_string())?.at(file))
}
