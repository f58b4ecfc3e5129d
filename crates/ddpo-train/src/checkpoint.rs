//! State on disk that is either whole or not there.
//!
//! A checkpoint is a folder of safetensors and JSON files, one or two a component, and a manifest with a hash
//! of each. It is written under a temporary name, synced, and renamed; a process killed at any instant leaves
//! the checkpoints that were there and at most a temporary folder, which the next run removes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ddpo_torch::weights;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Tensor;

use crate::{Error, Result, StateReader, StateWriter};

/// Version of the layout below.
/// 2: an interrupted epoch is the loop's state, no longer each algorithm's.
const FORMAT: u32 = 2;
const MANIFEST: &str = "manifest.json";

/// The folder in which a run keeps its checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint whose every byte has been checked.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Epochs that it has complete.
    pub epochs_done: u64,
    /// What is in it.
    pub state: StateReader,
    /// Newer checkpoints that are damaged, each with what is wrong.
    pub passed_over: Vec<Error>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    epochs_done: u64,
    files: Vec<FileEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Checkpoints {
    /// Makes the folder if need be, and removes what a killed run left half-written.
    ///
    /// The newest `keep` checkpoints stay, at least one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: impl Into<PathBuf>, keep: usize) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        for (name, path) in entries(&folder)? {
            if name.starts_with('.') && path.is_dir() {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(Self {
            folder,
            keep: keep.max(1),
        })
    }

    /// The checkpoints of a run that somebody else may still be writing: nothing is made and nothing removed.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            keep: usize::MAX,
        }
    }

    /// The newest checkpoint that is whole, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read; [`Error::Damaged`] if there are checkpoints but none is
    /// whole.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        let mut passed_over = Vec::new();
        for path in self.list()?.into_iter().rev() {
            match read(&path) {
                Ok((manifest, state)) => {
                    return Ok(Some(Checkpoint {
                        path,
                        epochs_done: manifest.epochs_done,
                        state,
                        passed_over,
                    }));
                }
                Err(error) => passed_over.push(error),
            }
        }
        match passed_over.into_iter().next() {
            None => Ok(None),
            Some(newest) => Err(newest),
        }
    }

    /// The checkpoint after so many epochs, if it is kept.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read; [`Error::Damaged`] if the checkpoint is not whole.
    pub fn after(&self, epochs: u64) -> Result<Option<Checkpoint>> {
        let path = self.folder.join(format!("epoch-{epochs:06}"));
        if !path.is_dir() {
            return Ok(None);
        }
        let (manifest, state) = read(&path)?;
        Ok(Some(Checkpoint {
            path,
            epochs_done: manifest.epochs_done,
            state,
            passed_over: Vec::new(),
        }))
    }

    /// Writes a checkpoint and removes the oldest ones. `name` sorts after all that are there.
    pub(crate) fn write(
        &self,
        name: &str,
        epochs_done: u64,
        state: &StateWriter,
    ) -> Result<PathBuf> {
        let temporary = self.folder.join(format!(".{name}.tmp"));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        fs::create_dir(&temporary).map_err(Error::io("create", &temporary))?;
        let mut files = Vec::new();
        for component in components(state) {
            files.extend(write_component(&temporary, &component, state)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            epochs_done,
            files,
        };
        write_json(&temporary.join(MANIFEST), &manifest)?;
        sync_folder(&temporary)?;
        let path = self.folder.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        sync_folder(&self.folder)?;
        self.prune()?;
        Ok(path)
    }

    fn prune(&self) -> Result<()> {
        let all = self.list()?;
        let n_old = all.len().saturating_sub(self.keep);
        for path in &all[..n_old] {
            fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }

    /// All checkpoints, oldest first.
    fn list(&self) -> Result<Vec<PathBuf>> {
        let mut all: Vec<PathBuf> = entries(&self.folder)?
            .into_iter()
            .filter(|(name, path)| name.starts_with("epoch-") && path.is_dir())
            .map(|(_, path)| path)
            .collect();
        all.sort();
        Ok(all)
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listing = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    listing
        .map(|entry| {
            let entry = entry.map_err(Error::io("read", folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, entry.path()))
        })
        .collect()
}

fn components(state: &StateWriter) -> Vec<String> {
    let names = state.tensors.keys().chain(state.values.keys());
    let mut components: Vec<String> = names
        .filter_map(|name| name.split_once('.'))
        .map(|(component, _)| component.to_owned())
        .collect();
    components.sort();
    components.dedup();
    components
}

fn write_component(folder: &Path, component: &str, state: &StateWriter) -> Result<Vec<FileEntry>> {
    let prefix = format!("{component}.");
    let tensors: Vec<(&str, &Tensor)> = state
        .tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)))
        .collect();
    let values: BTreeMap<&str, &serde_json::Value> = state
        .values
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value)))
        .collect();
    let mut files = Vec::new();
    if !tensors.is_empty() {
        let name = format!("{component}.safetensors");
        weights::save(&folder.join(&name), tensors)?;
        files.push(entry(folder, name)?);
    }
    if !values.is_empty() {
        let name = format!("{component}.json");
        write_json(&folder.join(&name), &values)?;
        files.push(entry(folder, name)?);
    }
    Ok(files)
}

fn entry(folder: &Path, name: String) -> Result<FileEntry> {
    let (bytes, sha256) = hash(&folder.join(&name))?;
    Ok(FileEntry {
        name,
        bytes,
        sha256,
    })
}

fn hash(path: &Path) -> Result<(u64, String)> {
    let mut file = fs::File::open(path).map_err(Error::io("open", path))?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
    let digest = hasher.finalize();
    Ok((bytes, digest.iter().map(|b| format!("{b:02x}")).collect()))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::io("write", path)(std::io::Error::other(e)))?;
    let mut file = fs::File::create(path).map_err(Error::io("create", path))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
}

fn sync_folder(path: &Path) -> Result<()> {
    fs::File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", path))
}

fn read(path: &Path) -> Result<(Manifest, StateReader)> {
    let damaged = |reason: String| Error::Damaged {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read(path.join(MANIFEST)).map_err(|e| damaged(format!("{MANIFEST}: {e}")))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| damaged(format!("{MANIFEST}: {e}")))?;
    if manifest.format != FORMAT {
        let found = manifest.format;
        return Err(damaged(format!(
            "format {found}, this program reads {FORMAT}"
        )));
    }
    let (mut tensors, mut values) = (BTreeMap::new(), BTreeMap::new());
    for entry in &manifest.files {
        let file = path.join(&entry.name);
        let (bytes, sha256) = hash(&file).map_err(|e| damaged(e.to_string()))?;
        if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
            let (name, expected) = (&entry.name, entry.bytes);
            return Err(damaged(format!(
                "{name} has {bytes} bytes and sha256 {sha256}, expected {expected} bytes and {}",
                entry.sha256
            )));
        }
        if let Some(component) = entry.name.strip_suffix(".safetensors") {
            // Moments are three times the weights, and not everybody who reads a checkpoint wants them.
            let read = weights::share_all(&file)?;
            tensors.extend(prefixed(component, read));
        } else if let Some(component) = entry.name.strip_suffix(".json") {
            let text = fs::read(&file).map_err(Error::io("read", &file))?;
            let read: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text)
                .map_err(|e| damaged(format!("{}: {e}", entry.name)))?;
            values.extend(prefixed(component, read));
        }
    }
    let name = path.display().to_string();
    Ok((manifest, StateReader::new(name, tensors, values)))
}

fn prefixed<T>(component: &str, map: BTreeMap<String, T>) -> impl Iterator<Item = (String, T)> {
    map.into_iter()
        .map(move |(name, item)| (format!("{component}.{name}"), item))
}
