//! Adapters on disk: where they lie, what their factors are called, and where alpha is written.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

use super::LORA_FILE;
use crate::{Error, Result};

/// Where diffusers keeps peft's configuration in the file (`diffusers/loaders/lora_base.py`).
pub(super) const METADATA: &str = "lora_adapter_metadata";

/// What `PeftModel.save_pretrained` writes (`peft/utils/constants.py`).
const PEFT_FILE: &str = "adapter_model.safetensors";
const PEFT_CONFIG: &str = "adapter_config.json";

/// What is in front of every name in peft's own file (`peft/utils/save_and_load.py`).
const PEFT_PREFIX: &str = "base_model.model.";

/// Starting values of factors beside which peft leaves the base weights as they are (`peft/tuners/lora/config.py`).
const HARMLESS_STARTS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// The file of an adapter: `path` itself, or the one that is in the folder.
///
/// # Errors
/// [`Error::Config`] for a folder with none, or with one of each kind.
pub(super) fn locate(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let files = [LORA_FILE, PEFT_FILE].map(|name| path.join(name));
    let reason = match [files[0].is_file(), files[1].is_file()] {
        [true, false] => return Ok(files[0].clone()),
        [false, true] => return Ok(files[1].clone()),
        [false, false] => {
            format!("has no adapter; expected {LORA_FILE}, or {PEFT_FILE} with {PEFT_CONFIG}")
        }
        [true, true] => format!("has {LORA_FILE} and {PEFT_FILE}: name one of them"),
    };
    let file = path.display().to_string();
    Err(Error::Config { file, reason })
}

/// peft's configuration of an adapter.
pub(super) struct Settings {
    /// Where it was read, for messages.
    place: String,
    /// In front of its keys.
    prefix: &'static str,
    /// Whether it must say what alpha is.
    whole: bool,
    values: BTreeMap<String, Value>,
}

impl Settings {
    /// That of peft's own file beside it, that of diffusers' within; none if the file has none.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Io`] if it is not there, or not JSON.
    pub(super) fn find(
        path: &Path,
        tensors: &BTreeMap<String, Tensor>,
        texts: &BTreeMap<String, String>,
    ) -> Result<Option<Self>> {
        let whole = tensors.keys().any(|name| name.starts_with(PEFT_PREFIX));
        let (place, prefix, text) = if whole {
            let beside = path.with_file_name(PEFT_CONFIG);
            (beside.display().to_string(), "", read(&beside)?)
        } else {
            let Some(text) = texts.get(METADATA) else {
                return Ok(None);
            };
            let place = format!("{}: {METADATA}", path.display());
            (place, "unet.", text.clone())
        };
        let values = serde_json::from_str(&text).map_err(|e| Error::Config {
            file: place.clone(),
            reason: e.to_string(),
        })?;
        Ok(Some(Self {
            place,
            prefix,
            whole,
            values,
        }))
    }

    /// `lora_alpha`, of factors of this rank; refuses what changes the formula.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub(super) fn alpha(&self, rank: i64) -> Result<f64> {
        for key in ["use_rslora", "use_dora", "use_qalora", "alpha_pattern"] {
            if !is_empty(self.get(key)) {
                return Err(self.fail(format!("`{key}` is not supported")));
            }
        }
        match self.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => {}
            Some(start) => {
                return Err(self.fail(format!(
                    "`init_lora_weights` is {start}, which changes the weights beside the factors: not supported; save it with path_initial_model_for_weight_conversion"
                )));
            }
        }
        match self.get("r") {
            Some(r) if is_empty(self.get("rank_pattern")) && r.as_i64() != Some(rank) => {
                Err(self.fail(format!("`r` is {r}, but the factors have rank {rank}")))
            }
            _ => match self.get("lora_alpha") {
                None if self.whole => Err(self.fail("`lora_alpha` is missing".to_owned())),
                None => Ok(rank as f64),
                Some(value) => value.as_f64().ok_or_else(|| {
                    self.fail(format!("`lora_alpha` is {value}, expected a number"))
                }),
            },
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(&format!("{}{key}", self.prefix))
    }

    fn fail(&self, reason: String) -> Error {
        let file = self.place.clone();
        Error::Config { file, reason }
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Object(pattern)) => pattern.is_empty(),
        Some(_) => false,
    }
}

fn read(beside: &Path) -> Result<String> {
    std::fs::read_to_string(beside).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::Config {
            file: beside.display().to_string(),
            reason: format!(
                "is missing; peft's `save_pretrained` writes it beside {PEFT_FILE}, and alpha is in it"
            ),
        },
        _ => Error::Io {
            action: "read",
            path: beside.to_owned(),
            source,
        },
    })
}

/// The factors of a module, under any of the names in use; none if the file has neither.
pub(super) fn take_pair(
    tensors: &mut BTreeMap<String, Tensor>,
    module: &str,
    size: &[i64],
) -> std::result::Result<Option<(Tensor, Tensor)>, String> {
    let down = take(tensors, module, ["lora_A", "down"]);
    let up = take(tensors, module, ["lora_B", "up"]);
    match (down, up) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("`{module}` has no up factor (lora_B)")),
        (None, Some(_)) => Err(format!("`{module}` has no down factor (lora_A)")),
        (Some(down), Some(up)) => match (down.size().as_slice(), up.size().as_slice()) {
            ([rank, n_in], [n_out, inner]) if rank == inner && [*n_out, *n_in] == *size => {
                Ok(Some((down, up)))
            }
            (a, b) => Err(format!(
                "`{module}` has factors of shapes {a:?} and {b:?}, expected [rank, {}] and [{}, rank]",
                size[1], size[0]
            )),
        },
    }
}

/// Names of one factor: peft's, diffusers' since 0.18 and 0.17's, each by itself, with the component in front, and
/// as `PeftModel` calls the modules of what it wraps.
fn take(
    tensors: &mut BTreeMap<String, Tensor>,
    module: &str,
    [peft, old]: [&str; 2],
) -> Option<Tensor> {
    let (attention, projection) = module.rsplit_once(".to_")?;
    let projection = projection.trim_end_matches(".0");
    let names = [
        format!("{module}.{peft}.weight"),
        format!("{module}.lora.{old}.weight"),
        format!("{attention}.processor.to_{projection}_lora.{old}.weight"),
    ];
    names
        .iter()
        .flat_map(|name| {
            let prefixes = ["unet.", "", PEFT_PREFIX].into_iter();
            prefixes.map(move |prefix| format!("{prefix}{name}"))
        })
        .find_map(|name| tensors.remove(&name))
}
