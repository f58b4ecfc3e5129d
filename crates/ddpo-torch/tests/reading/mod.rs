//! Every way into a file of weights, as the properties and the fuzz target in `fuzz/` take it.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_torch::weights::{read_all, share_all};
use ddpo_torch::{Init, Result, Store};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

/// Reads a file with these contents; what is wrong with the outcome. It must not panic.
pub fn survives(contents: &[u8]) -> std::result::Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("weights.safetensors");
    std::fs::write(&path, contents).map_err(|e| e.to_string())?;
    for outcome in [read_all(&path), share_all(&path)] {
        let n_bytes = named(outcome)?.map_or(0, |tensors| bytes_of(&tensors));
        if n_bytes > contents.len() {
            return Err(format!(
                "{n_bytes} bytes of tensors from {}",
                contents.len()
            ));
        }
    }
    let finite = |t: &Tensor| t.isfinite().all().int64_value(&[]) == 1;
    match named(weights(&path))? {
        Some(tensors) if !tensors.values().all(finite) => {
            Err("weights that are not finite".to_owned())
        }
        _ => Ok(()),
    }
}

/// As a model reads its weights.
fn weights(path: &Path) -> Result<Tensors> {
    let store = Store::open(path, Device::Cpu, Kind::Float)?;
    let _ = store.root().tensor("a", &[2, 3], Init::Zeros);
    let _ = store.root().tensor("b", &[4], Init::Zeros);
    store.finish()
}

/// An error must say which file.
fn named(outcome: Result<Tensors>) -> std::result::Result<Option<Tensors>, String> {
    match outcome {
        Ok(tensors) => Ok(Some(tensors)),
        Err(error) if error.to_string().contains("weights.safetensors") => Ok(None),
        Err(error) => Err(format!("the file is not named: {error}")),
    }
}

fn bytes_of(tensors: &Tensors) -> usize {
    let sizes = tensors.values();
    sizes
        .map(|t| t.numel() * t.kind().elt_size_in_bytes())
        .sum()
}
