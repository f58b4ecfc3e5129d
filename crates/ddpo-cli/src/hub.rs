//! Models by their name on the hub: fetched once at a pinned revision, checked, and from then on in its cache.
//!
//! The cache is the one that Python's `huggingface_hub` uses too, so whatever either of them has fetched is there
//! for the other. `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean there.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ddpo_model::files::{self, Files};
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::failure::{Exit, Failure, Result};

/// Revisions that are used when none is named: the last ones of these repositories' `main`.
const PINNED: [(&str, &str); 2] = [
    (
        "CompVis/stable-diffusion-v1-4",
        "133a221b8aa7292a167afc5127cb63fb5005638b",
    ),
    (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    ),
];

/// Attempts to go on with a download that broke off.
const RETRIES: usize = 3;

/// Whether `name` has the form `owner/name`.
pub fn is_id(name: &str) -> bool {
    let plain = |part: &str| {
        let mut chars = part.chars();
        chars
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/')
        .is_some_and(|(owner, model)| plain(owner) && plain(model))
}

/// The revision to use: the one named, else the one that is known for this repository.
///
/// The error is what is wrong with it.
pub fn revision<'a>(id: &str, named: Option<&'a str>) -> std::result::Result<&'a str, String> {
    let is_commit =
        |r: &str| r.len() == 40 && r.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match named {
        Some(revision) if is_commit(revision) => Ok(revision),
        Some(other) => Err(format!(
            "revision `{other}` may change: expected the 40 hexadecimal digits of a commit"
        )),
        None => {
            let known = PINNED.iter().find(|(pinned, _)| *pinned == id);
            known.map(|(_, revision)| *revision).ok_or_else(|| {
                "no revision is pinned: model.revision (--revision) must name a commit, 40 hexadecimal digits".into()
            })
        }
    }
}

/// A folder with everything that loading the model with a UNet in `kind` needs.
pub fn fetch(id: &str, revision: &str, kind: Kind) -> Result<Files> {
    let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
    let cache = Cache::from_env();
    let folder = cache.path().join(repo.folder_name());
    let hub = Hub {
        id,
        revision,
        snapshot: folder.join("snapshots").join(revision),
    };
    let cached = Files::Folder(hub.snapshot.clone());
    let lacking = cached.lacking(kind);
    if lacking.is_empty() {
        return Ok(cached);
    }
    if offline() {
        // Weights in another kind than the best serve too, where there is no asking for better ones.
        let lacking = cached.lacking_any(kind);
        return match lacking.as_slice() {
            [] => Ok(cached),
            lacking => Err(hub.absent(&lacking.join(", "), None, "HF_HUB_OFFLINE is set")),
        };
    }
    let mut builder = ApiBuilder::from_env()
        .with_retries(RETRIES)
        .with_progress(false);
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let api = builder
        .build()
        .map_err(|e| hub.absent(&lacking.join(", "), None, &e.to_string()))?;
    let api = api.repo(repo);
    for remote in hub.wanted(&api, &lacking, kind)? {
        hub.bring(&api, &remote)?;
    }
    Ok(cached)
}

/// As `huggingface_hub` reads it.
fn offline() -> bool {
    let set = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "ON", "YES", "TRUE"].contains(&set.to_uppercase().as_str())
}

/// One repository at one revision.
struct Hub<'a> {
    id: &'a str,
    revision: &'a str,
    /// Where its files are in the cache.
    snapshot: PathBuf,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Remote>,
}

/// What the hub says of a file.
#[derive(Clone, Deserialize)]
struct Remote {
    #[serde(rename = "rfilename")]
    file: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// Of a large file.
#[derive(Clone, Deserialize)]
struct Lfs {
    sha256: String,
}

impl Hub<'_> {
    /// The files to be there, as the hub lists them.
    fn wanted(&self, api: &ApiRepo, lacking: &[String], kind: Kind) -> Result<Vec<Remote>> {
        let fail = |cause: &str| self.absent(&lacking.join(", "), None, cause);
        let response = api
            .info_request()
            .query("blobs", "true")
            .call()
            .map_err(|e| fail(&explained(&e.to_string())))?;
        let listing: Listing = response
            .into_json()
            .map_err(|e| fail(&format!("the hub's list of files: {e}")))?;
        let find = |file: &str| listing.siblings.iter().find(|remote| remote.file == file);
        let mut wanted = Vec::new();
        for file in files::REQUIRED {
            let remote = find(file)
                .ok_or_else(|| self.absent(file, None, "the repository has no such file"))?;
            wanted.push(remote.clone());
        }
        wanted.extend(
            files::OPTIONAL
                .iter()
                .filter_map(|file| find(file))
                .cloned(),
        );
        for component in files::COMPONENTS {
            let candidates = files::candidates(component, files::kind_of(component, kind));
            let found = candidates.iter().find_map(|c| Some((c, find(&c.file)?)));
            let Some((candidate, remote)) = found else {
                let cause = "the repository has no safetensors for it, and pickles are not read";
                return Err(self.absent(&candidates[0].file, None, cause));
            };
            wanted.push(remote.clone());
            if candidate.is_index {
                self.bring(api, remote)?;
                let index = self.snapshot.join(&candidate.file);
                for file in files::shards(&index)
                    .map_err(|e| self.absent(&candidate.file, None, &e.to_string()))?
                {
                    let path = format!("{component}/{file}");
                    let remote = find(&path).ok_or_else(|| {
                        self.absent(&path, None, "the repository has no such file")
                    })?;
                    wanted.push(remote.clone());
                }
            }
        }
        Ok(wanted)
    }

    /// Fetches a file unless it is there, and checks it.
    fn bring(&self, api: &ApiRepo, remote: &Remote) -> Result<()> {
        let target = self.snapshot.join(&remote.file);
        if target.is_file() {
            return Ok(());
        }
        let fail = |cause: &str| self.absent(&remote.file, remote.size, cause);
        let size = remote
            .size
            .map(|n| format!(" ({})", HumanBytes(n)))
            .unwrap_or_default();
        eprintln!(
            "fetching {}{size} of {} at {}",
            remote.file, self.id, self.revision
        );
        let path = api
            .download_with_progress(&remote.file, Bar(ProgressBar::hidden()))
            .map_err(|e| fail(&explained(&e.to_string())))?;
        if path != target {
            return Err(fail("the hub answered with another revision"));
        }
        let blob = fs::canonicalize(&path).map_err(|e| fail(&e.to_string()))?;
        let Some(expected) = promised(remote, &blob) else {
            return Ok(());
        };
        let actual = sha256(&blob).map_err(|e| fail(&e.to_string()))?;
        if actual == expected {
            return Ok(());
        }
        // What is wrong must not be taken for right the next time.
        for path in [&path, &blob] {
            fs::remove_file(path)
                .map_err(|e| fail(&format!("damaged, and cannot be removed: {e}")))?;
        }
        Err(fail(&format!(
            "what came has sha256 {actual}, the hub says {expected}; it was removed, try again"
        )))
    }

    /// A file that cannot be had: which, of what, why, and what to do.
    fn absent(&self, file: &str, size: Option<u64>, cause: &str) -> Failure {
        let size = size
            .map(|n| format!(" ({})", HumanBytes(n)))
            .unwrap_or_default();
        Failure::new(
            Exit::Data,
            format!(
                "cannot get {file}{size} of {} at revision {}: {cause}; put what is missing into {}, or name a \
                 folder in the diffusers layout instead",
                self.id,
                self.revision,
                self.snapshot.display()
            ),
        )
    }
}

/// The hash that the hub gives of a large file, in its listing or as the name of the blob.
fn promised(remote: &Remote, blob: &Path) -> Option<String> {
    let listed = remote.lfs.as_ref().map(|lfs| lfs.sha256.clone());
    let name = blob.file_name()?.to_str()?;
    let named =
        (name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).then(|| name.to_owned());
    listed.or(named)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect())
}

/// What the hub's answer means, where it is one that says little.
fn explained(cause: &str) -> String {
    let hint = if cause.contains("status code 401") || cause.contains("status code 403") {
        "; the hub refuses: accept the model's licence there and set HF_TOKEN"
    } else {
        ""
    };
    format!("{cause}{hint}")
}

/// A bar for one file.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _file: &str) {
        let template = "  {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.0 = ProgressBar::new(size as u64).with_style(style);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_on_the_hub_is_told_from_a_path() {
        for id in PINNED.map(|(id, _)| id) {
            assert!(is_id(id), "{id}");
        }
        for path in [
            "pocket", "a/b/c", "/a", "a/", "./a", "../a", "a//b", "~/a", "a b/c", "",
        ] {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn a_revision_is_a_commit() {
        let commit = PINNED[0].1;
        assert_eq!(revision("a/b", Some(commit)), Ok(commit));
        assert_eq!(revision(PINNED[0].0, None), Ok(commit));
        for branch in ["main", "", &commit[1..], &commit.to_uppercase()] {
            assert!(revision(PINNED[0].0, Some(branch)).is_err(), "{branch}");
        }
        assert!(revision("a/b", None).is_err());
    }
}
