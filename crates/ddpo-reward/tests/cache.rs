//! Cached scores are not computed again, and damaged files are reported.
#![cfg(feature = "cache")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ddpo_reward::{
    CacheMiss, Cached, Images, Prompt, Result, Reward, RewardError, Score, check_batch, prompts,
};

/// The first byte; counts what it is asked, and fails at an image that begins with 13.
#[derive(Debug)]
struct FirstByte {
    asked: Arc<AtomicUsize>,
    version: &'static str,
}

impl Reward for FirstByte {
    fn name(&self) -> &str {
        "first-byte"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        ddpo_reward::collect(self, images, prompts)
    }

    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> Result<()> {
        check_batch(images, prompts)?;
        for (i, rgb) in images.iter_bytes().enumerate() {
            if rgb[0] == 13 {
                return Err(RewardError::transient("first-byte", "thirteen"));
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            let score = Score {
                // Neither exact in decimal nor in few bits.
                value: f32::from(rgb[0]) / 7.0,
                parts: vec![0.1, f32::MIN_POSITIVE],
                answer: format!("\"{}\", I see", rgb[0]),
            };
            known(i, score);
        }
        Ok(())
    }

    fn version(&self) -> String {
        self.version.to_owned()
    }
}

struct Case {
    folder: tempfile::TempDir,
    asked: Arc<AtomicUsize>,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            asked: Arc::default(),
        }
    }

    fn cached(&self, missing: CacheMiss, version: &'static str) -> Cached<FirstByte> {
        let asked = Arc::clone(&self.asked);
        let reward = Box::new(FirstByte { asked, version });
        Cached::new(self.folder.path(), missing, reward).unwrap()
    }

    fn n_asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    fn files(&self) -> Vec<PathBuf> {
        let below = |path: &Path| -> Vec<PathBuf> {
            fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect()
        };
        below(self.folder.path())
            .iter()
            .flat_map(|folder| below(folder))
            .collect()
    }
}

fn images(first_bytes: &[u8]) -> (Images, Vec<Prompt>) {
    let bytes = first_bytes.iter().flat_map(|&b| [b, 1, 2]).collect();
    let images = Images::from_bytes(first_bytes.len(), 1, 1, bytes).unwrap();
    (images, prompts::numbered(vec!["p"; first_bytes.len()]))
}

fn each(reward: &mut dyn Reward, first_bytes: &[u8]) -> (Result<()>, Vec<(usize, Score)>) {
    let (images, prompts) = images(first_bytes);
    let mut scores = Vec::new();
    let result = reward.score_each(&images, &prompts, &mut |i, score| scores.push((i, score)));
    scores.sort_by_key(|&(i, _)| i);
    (result, scores)
}

#[test]
fn a_replay_has_the_recorded_scores_to_the_bit_and_asks_nothing() {
    let case = Case::new();
    let (result, recorded) = each(&mut case.cached(CacheMiss::Compute, "1"), &[5, 6, 250]);
    result.unwrap();
    assert_eq!(case.n_asked(), 3);
    let (result, replayed) = each(&mut case.cached(CacheMiss::Fail, "1"), &[5, 6, 250]);
    result.unwrap();
    assert_eq!(replayed, recorded);
    assert_eq!(case.n_asked(), 0);
}

#[test]
fn only_what_is_missing_is_asked_for_also_after_a_failure() {
    let case = Case::new();
    let mut reward = case.cached(CacheMiss::Compute, "1");
    let (result, known) = each(&mut reward, &[1, 2, 13, 4]);
    assert!(result.unwrap_err().is_transient());
    assert_eq!((known.len(), case.n_asked()), (2, 2));
    let (result, known) = each(&mut reward, &[4, 2, 1]);
    result.unwrap();
    assert_eq!((known.len(), case.n_asked()), (3, 1));
    assert_eq!(known[0].1.value, 4.0 / 7.0);
}

#[test]
fn image_size_prompt_name_and_version_tell_scores_apart() {
    let case = Case::new();
    each(&mut case.cached(CacheMiss::Compute, "1"), &[1, 2])
        .0
        .unwrap();
    let missing = |images: &Images, prompts: &[Prompt], version| {
        let error = case
            .cached(CacheMiss::Fail, version)
            .score(images, prompts)
            .unwrap_err();
        assert!(matches!(error, RewardError::Permanent { .. }));
        assert!(
            error.to_string().contains("1 of 1 scores are not in"),
            "{error}"
        );
    };
    let (one, same) = images(&[1]);
    case.cached(CacheMiss::Fail, "1")
        .score(&one, &same)
        .unwrap();
    missing(&one, &same, "2");
    missing(&one, &prompts::numbered(["q"]), "1");
    missing(&images(&[3]).0, &same, "1");
    // The same bytes as two images of one pixel.
    let wide = Images::from_bytes(1, 1, 2, vec![1, 1, 2, 2, 1, 2]).unwrap();
    missing(&wide, &same, "1");
}

#[test]
fn damage_is_named_and_never_a_score() {
    let case = Case::new();
    each(&mut case.cached(CacheMiss::Compute, "1"), &[5])
        .0
        .unwrap();
    let [file] = case.files().try_into().unwrap();
    let whole = fs::read_to_string(&file).unwrap();
    let damaged = [
        whole[..whole.len() / 2].to_owned(),
        String::new(),
        whole.replacen("\"score\":0.7", "\"score\":0.8", 1),
        whole.replacen("\"format\":1", "\"format\":2", 1),
        whole.replacen("I see", "I saw", 1),
    ];
    for text in damaged {
        assert_ne!(text, whole);
        fs::write(&file, text).unwrap();
        let (result, scores) = each(&mut case.cached(CacheMiss::Compute, "1"), &[5]);
        let error = result.unwrap_err().to_string();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            error.contains(name) && error.contains("is damaged"),
            "{error}"
        );
        assert!(scores.is_empty());
    }
    fs::remove_file(&file).unwrap();
    each(&mut case.cached(CacheMiss::Compute, "1"), &[5])
        .0
        .unwrap();
    assert_eq!(case.files(), [file]);
}
