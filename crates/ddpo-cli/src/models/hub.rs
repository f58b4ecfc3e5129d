//! Files of repositories on the model hub: fetched once at a pinned revision, checked, and from then on in its cache.
//!
//! The cache is the one that Python's `huggingface_hub` uses too, so whatever either of them has fetched is there
//! for the other. `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean there.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest, Sha256};

mod diffusers;

pub use diffusers::fetch as fetch_model;

/// Revisions that are used when none is named: the last ones of these repositories' `main`.
const PINNED: [(&str, &str); 7] = [
    (
        "CompVis/stable-diffusion-v1-4",
        "133a221b8aa7292a167afc5127cb63fb5005638b",
    ),
    (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    ),
    (
        "openai/clip-vit-large-patch14",
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
    ),
    // TRL's copy of LAION's head, which is published outside the hub.
    (
        "trl-lib/ddpo-aesthetic-predictor",
        "cf4bd10345610935a80a5d3be9a3133c50f121e4",
    ),
    (
        "THUDM/ImageReward",
        "5736be03b2652728fb87788c9797b0570450ab72",
    ),
    (
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
    ),
    (
        "microsoft/deberta-xlarge-mnli",
        "5b07a9086c1dbb79981ff7b05b4d1ad83b3af51c",
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
/// The error is what is wrong with it; `key` says where one can be named.
pub fn revision<'a>(id: &str, named: Option<&'a str>, key: &str) -> Result<&'a str, String> {
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
                format!("no revision is pinned: {key} must name a commit, 40 hexadecimal digits")
            })
        }
    }
}

/// As `huggingface_hub` reads it.
pub fn offline() -> bool {
    let set = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "ON", "YES", "TRUE"].contains(&set.to_uppercase().as_str())
}

/// A file that cannot be had: which, how large, and why.
#[derive(Debug)]
pub struct Unavailable {
    /// Its path in the repository, or several.
    pub file: String,
    /// Bytes, where the hub has said so.
    pub size: Option<u64>,
    /// What the system or the hub says.
    pub cause: String,
}

impl Unavailable {
    /// `cause` of `file`, whose size nobody knows.
    pub fn new(file: impl Into<String>, cause: impl ToString) -> Self {
        Self {
            file: file.into(),
            size: None,
            cause: cause.to_string(),
        }
    }
}

/// One repository at one revision.
#[derive(Debug, Clone)]
pub struct Repository<'a> {
    /// Its name, `owner/name`.
    pub id: &'a str,
    /// A commit.
    pub revision: &'a str,
    /// Where its files are in the cache.
    pub snapshot: PathBuf,
}

/// A repository whose files can be asked for.
pub struct Online<'a> {
    of: &'a Repository<'a>,
    api: ApiRepo,
    files: Vec<Remote>,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Remote>,
}

/// What the hub says of a file.
#[derive(Clone, Deserialize)]
pub struct Remote {
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

impl<'a> Repository<'a> {
    /// Looks for nothing yet.
    pub fn new(id: &'a str, revision: &'a str) -> Self {
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        let folder = Cache::from_env().path().join(repo.folder_name());
        let snapshot = folder.join("snapshots").join(revision);
        Self {
            id,
            revision,
            snapshot,
        }
    }

    /// Asks the hub which files there are.
    pub fn online(&'a self) -> Result<Online<'a>, Unavailable> {
        let fail = |cause: &str| Unavailable::new("the list of files", cause);
        let mut builder = ApiBuilder::from_env()
            .with_retries(RETRIES)
            .with_progress(false);
        if let Ok(token) = std::env::var("HF_TOKEN") {
            builder = builder.with_token(Some(token));
        }
        let api = builder.build().map_err(|e| fail(&e.to_string()))?;
        let (id, revision) = (self.id.to_owned(), self.revision.to_owned());
        let api = api.repo(Repo::with_revision(id, RepoType::Model, revision));
        let response = api.info_request().query("blobs", "true").call();
        let response = response.map_err(|e| fail(&explained(&e.to_string())))?;
        let listing: Listing = response.into_json().map_err(|e| fail(&e.to_string()))?;
        Ok(Online {
            of: self,
            api,
            files: listing.siblings,
        })
    }
}

impl Online<'_> {
    /// A file of the repository, if it has one of that name.
    pub fn find(&self, file: &str) -> Option<&Remote> {
        self.files.iter().find(|remote| remote.file == file)
    }

    /// Fetches a file unless it is there, and checks it.
    pub fn bring(&self, remote: &Remote) -> Result<(), Unavailable> {
        let target = self.of.snapshot.join(&remote.file);
        if target.is_file() {
            return Ok(());
        }
        let fail = |cause: &str| Unavailable {
            file: remote.file.clone(),
            size: remote.size,
            cause: cause.to_owned(),
        };
        let size = shown(remote.size);
        eprintln!(
            "fetching {}{size} of {} at {}",
            remote.file, self.of.id, self.of.revision
        );
        let path = self
            .api
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
}

/// A size in brackets, if it is known.
pub fn shown(size: Option<u64>) -> String {
    let shown = size.map(|n| format!(" ({})", HumanBytes(n)));
    shown.unwrap_or_default()
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
        assert_eq!(revision("a/b", Some(commit), "key"), Ok(commit));
        for (id, pinned) in PINNED {
            let there = revision(id, None, "key").expect(id);
            assert_eq!(revision(id, Some(there), "key"), Ok(pinned));
        }
        for branch in ["main", "", &commit[1..], &commit.to_uppercase()] {
            let named = revision(PINNED[0].0, Some(branch), "key");
            assert!(named.is_err(), "{branch}");
        }
        let error = revision("a/b", None, "the key").expect_err("none is pinned");
        assert!(error.contains("the key must name a commit"), "{error}");
    }
}
