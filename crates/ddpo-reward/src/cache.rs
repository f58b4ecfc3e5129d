//! A cache of scores on disk (feature `cache`).
//!
//! The key of a score is a hash of all that it depends on: the pixels, the prompt, the reward's name and its version.
//! A run can be repeated without the service, and an epoch that failed half-way only queries the missing scores. A
//! score is a small JSON file, written under a temporary name and renamed, so that it is never partial.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::reward::{check_batch, collect};
use crate::{Images, Prompt, Result, Reward, RewardError, RewardInfo, Score};

/// Version of the file format.
const FORMAT: u32 = 1;

/// What to do if a score is not in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMiss {
    /// Compute it with the reward, and store it.
    Compute,
    /// Fail without calling the reward.
    Fail,
}

/// A reward with a cache.
#[derive(Debug)]
pub struct Cached<R: ?Sized> {
    folder: PathBuf,
    missing: CacheMiss,
    reward: Box<R>,
}

/// Content of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    reward: String,
    version: String,
    prompt: String,
    image_sha256: String,
    score: f32,
    parts: Vec<f32>,
    answer: String,
    /// Checksum of the file with this field empty.
    sha256: String,
}

impl<R: Reward + ?Sized> Cached<R> {
    /// Caches the scores of `reward` in a folder, which is created if necessary and may be shared by several rewards,
    /// runs and processes.
    ///
    /// # Errors
    /// [`RewardError::Permanent`] if the folder cannot be made.
    pub fn new(folder: impl Into<PathBuf>, missing: CacheMiss, reward: Box<R>) -> Result<Self> {
        let folder = folder.into();
        let failed = |error| permanent(reward.name(), "cannot make folder", &folder, error);
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Self {
            folder,
            missing,
            reward,
        })
    }

    /// The key of a score: names, texts and sizes with their lengths, then the pixels.
    ///
    /// It includes the prompt's metadata, if there is any: a program may use it for the score.
    fn key(&self, version: &str, rgb: &[u8], size: (usize, usize), prompt: &Prompt) -> String {
        let mut hasher = Sha256::new();
        let texts = ["ddpo reward", self.reward.name(), version, &prompt.text];
        for text in texts.into_iter().chain(prompt.metadata.as_deref()) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.update((size.0 as u64).to_le_bytes());
        hasher.update((size.1 as u64).to_le_bytes());
        hasher.update(rgb);
        hex(&hasher.finalize())
    }

    fn path(&self, key: &str) -> PathBuf {
        // 256 subfolders, so that directories stay small.
        self.folder
            .join(&key[..2])
            .join(format!("{}.json", &key[2..]))
    }

    /// # Errors
    /// [`RewardError::Permanent`] with the file, if it is damaged.
    fn read(&self, key: &str) -> Result<Option<Score>> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(permanent(self.reward.name(), "cannot read", &path, error)),
        };
        let damaged = |reason: &dyn std::fmt::Display| {
            let path = path.display();
            let reason =
                format!("cached score {path} is damaged ({reason}): delete it to compute it again");
            RewardError::permanent(self.reward.name(), reason)
        };
        let mut cached: Kept = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
        if cached.format != FORMAT {
            let reason = format!("format {}, this program reads {FORMAT}", cached.format);
            return Err(damaged(&reason));
        }
        let sha256 = std::mem::take(&mut cached.sha256);
        if checksum(&cached).map_err(|error| damaged(&error))? != sha256 {
            return Err(damaged(&"its checksum does not match"));
        }
        Ok(Some(Score {
            value: cached.score,
            parts: cached.parts,
            answer: cached.answer,
        }))
    }
}

impl<R: Reward + ?Sized> Reward for Cached<R> {
    fn name(&self) -> &str {
        self.reward.name()
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        collect(self, images, prompts)
    }

    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> Result<()> {
        check_batch(images, prompts)?;
        let version = self.reward.version();
        let size = (images.height(), images.width());
        let keys: Vec<String> = images
            .iter_bytes()
            .zip(prompts)
            .map(|(rgb, prompt)| self.key(&version, rgb, size, prompt))
            .collect();
        let mut open = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            match self.read(key)? {
                Some(score) => known(i, score),
                None => open.push(i),
            }
        }
        let Some(&first) = open.first() else {
            return Ok(());
        };
        if self.missing == CacheMiss::Fail {
            let (n, prompt) = (open.len(), &prompts[first].text);
            let reason = format!(
                "{n} of {} scores are not in {}, and no queries are allowed; the first is of prompt \"{prompt}\"",
                images.len(),
                self.folder.display()
            );
            return Err(RewardError::permanent(self.reward.name(), reason));
        }
        let asked: Vec<Prompt> = open.iter().map(|&i| prompts[i].clone()).collect();
        let rest = images.select(&open);
        let (mut failed, name) = (Ok(()), self.reward.name().to_owned());
        let paths: Vec<PathBuf> = open.iter().map(|&i| self.path(&keys[i])).collect();
        let asked_for = &mut |at: usize, score: Score| {
            let i = open[at];
            let cached = Kept {
                format: FORMAT,
                reward: name.clone(),
                version: version.clone(),
                prompt: prompts[i].text.clone(),
                image_sha256: image_hash(&rest, at),
                score: score.value,
                parts: score.parts.clone(),
                answer: score.answer.clone(),
                sha256: String::new(),
            };
            if failed.is_ok() && score.value.is_finite() {
                failed = write(&paths[at], cached).map_err(|error| {
                    permanent(&name, "cannot store a score in", &paths[at], error)
                });
            }
            known(i, score);
        };
        self.reward.score_each(&rest, &asked, asked_for)?;
        failed
    }

    fn version(&self) -> String {
        self.reward.version()
    }

    fn parts(&self) -> Vec<String> {
        self.reward.parts()
    }

    fn info(&self) -> RewardInfo {
        self.reward.info()
    }
}

fn permanent(reward: &str, doing: &str, path: &Path, error: std::io::Error) -> RewardError {
    RewardError::permanent(reward, format!("{doing} {}: {error}", path.display()))
}

fn image_hash(images: &Images, at: usize) -> String {
    let stride = images.height() * images.width() * 3;
    hex(&Sha256::digest(
        &images.bytes()[at * stride..(at + 1) * stride],
    ))
}

fn checksum(cached: &Kept) -> serde_json::Result<String> {
    Ok(hex(&Sha256::digest(serde_json::to_vec(cached)?)))
}

/// Writes a file atomically, even if another process writes the same one.
fn write(path: &Path, mut cached: Kept) -> std::io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    cached.sha256 = checksum(&cached)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let unique = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let temporary = folder.join(format!(".{}-{}.tmp", unique.0, unique.1));
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&cached)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
