//! Sharded weights: several files with an index.
//!
//! The index is JSON: `{"metadata": …, "weight_map": {"NAME": "FILE", …}}`, the same in diffusers and transformers.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::reader::Reader;
use crate::{Error, Result};

/// Names of files, and the file of each tensor, by the tensor's name.
type Placed = (Vec<String>, BTreeMap<String, usize>);

/// The files that an index names, in the order of the tensors that they are named for first.
///
/// # Errors
/// [`Error::Io`], or [`Error::Damaged`] if it is not an index, or names anything but files in its folder.
pub fn shard_files(index: &Path) -> Result<Vec<String>> {
    Ok(parse(index)?.0)
}

fn parse(index: &Path) -> Result<Placed> {
    let damaged = |reason| damaged(index, reason);
    let text = std::fs::read(index).map_err(|source| Error::Io {
        action: "read",
        path: index.to_owned(),
        source,
    })?;
    let parsed: Value =
        serde_json::from_slice(&text).map_err(|e| damaged(format!("as an index: {e}")))?;
    let Some(map) = parsed.get("weight_map").and_then(Value::as_object) else {
        return Err(damaged("it has no `weight_map`".into()));
    };
    let (mut files, mut places) = (Vec::<String>::new(), BTreeMap::new());
    for (name, file) in map {
        // A name, not a path: an index is data from elsewhere.
        let Some(file) = file.as_str().filter(|file| is_plain(file)) else {
            return Err(damaged(format!(
                "`{name}` is listed in {file}, expected the name of a file in the same folder"
            )));
        };
        let known = files.iter().position(|known| known == file);
        let at = known.unwrap_or_else(|| {
            files.push(file.to_owned());
            files.len() - 1
        });
        places.insert(name.clone(), at);
    }
    Ok((files, places))
}

/// Opens every file that the index names; which of them has a tensor, by the tensor's name.
pub(crate) fn open(index: &Path) -> Result<(Vec<Reader>, BTreeMap<String, usize>)> {
    let (files, places) = parse(index)?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let readers: Vec<Reader> = files
        .iter()
        .map(|file| Reader::open(&folder.join(file)))
        .collect::<Result<_>>()?;
    let there: Vec<Vec<String>> = readers.iter().map(|r| r.index.names()).collect();
    let mut faults: Vec<String> = Vec::new();
    for (name, &at) in &places {
        if !there[at].contains(name) {
            faults.push(format!("`{name}` is not in {}", files[at]));
        }
    }
    for (at, names) in there.iter().enumerate() {
        let unlisted = names.iter().filter(|name| places.get(*name) != Some(&at));
        faults.extend(unlisted.map(|name| format!("`{name}` in {} is not listed", files[at])));
    }
    if !faults.is_empty() {
        return Err(damaged(index, faults.join("; ")));
    }
    Ok((readers, places))
}

fn damaged(index: &Path, reason: String) -> Error {
    Error::Damaged {
        file: index.display().to_string(),
        reason,
    }
}

fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(_)), None)
    )
}
