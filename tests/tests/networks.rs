//! `ddpo score` with rewards that networks compute here: with the small networks of the golden files, and without any.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_tests::{Ended, ddpo, root, text, tiny_model};

struct Case {
    folder: tempfile::TempDir,
    pictures: PathBuf,
}

impl Case {
    /// Two pictures of the tiny model, and a prompt for each.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pictures = folder.path().join("pictures");
        let model = tiny_model();
        let args = ["sample", "--model", text(&model), "--steps", "1"];
        let prompts = ["--prompt", "cat", "--prompt", "dog"];
        let out = ["--out", text(&pictures)];
        ddpo(args.into_iter().chain(prompts).chain(out)).expect(0, &[]);
        let lines = "a dog riding a bike\na cat\n";
        fs::write(folder.path().join("prompts.txt"), lines).expect("a file");
        Self { folder, pictures }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn score(&self, reward: &str, set: &[String]) -> Ended {
        let (prompts, out) = (self.path("prompts.txt"), self.path("out.csv"));
        let mut args = vec![
            "score",
            "--reward",
            reward,
            "--images",
            text(&self.pictures),
        ];
        args.extend(["--prompts", text(&prompts), "--out", text(&out)]);
        args.extend(set.iter().flat_map(|pair| ["--set", pair.as_str()]));
        ddpo(args)
    }

    /// The column `reward`.
    fn scores(&self) -> Vec<f64> {
        let table = fs::read_to_string(self.path("out.csv")).expect("a table");
        let cell = |line: &str| line.split(',').nth(2).and_then(|cell| cell.parse().ok());
        let rows = table.lines().skip(1);
        rows.map(|line| cell(line).expect("a number")).collect()
    }
}

fn golden(path: &str) -> PathBuf {
    root().join("tests/golden").join(path)
}

fn key(name: &str, folder: &Path) -> String {
    format!("reward.weights.{name}={}", folder.display())
}

#[test]
fn without_weights_the_command_says_which_files_from_where_how_large_and_where_to_put_them() {
    let case = Case::new();
    let nowhere = case.path("weights");
    let place = nowhere.display().to_string();
    for (kind, name, parts) in [
        (
            "aesthetic",
            "aesthetic",
            [
                "model.safetensors",
                "1.7 GB",
                "openai/clip-vit-large-patch14",
                "sac+logos+ava1",
            ],
        ),
        (
            "image-reward",
            "image_reward",
            ["ImageReward.pt", "1.8 GB", "THUDM/ImageReward", "vocab.txt"],
        ),
    ] {
        let ended = case.score(kind, &[key(name, &nowhere)]);
        ended.expect(3, &[&parts[..], &[place.as_str()]].concat());
        assert!(!case.path("out.csv").exists());
    }
}

#[test]
fn the_aesthetic_score_comes_from_the_folder_that_is_named() {
    let (case, weights) = (Case::new(), tempfile::tempdir().expect("a folder"));
    for (from, to) in [
        ("clip_vision/config.json", "config.json"),
        ("clip_vision/model.safetensors", "model.safetensors"),
        (
            "aesthetic/head.safetensors",
            "sac+logos+ava1-l14-linearMSE.pth",
        ),
    ] {
        fs::copy(golden(from), weights.path().join(to)).expect("a copy");
    }
    let set = vec![key("aesthetic", weights.path())];
    let ended = case.score("aesthetic", &set).expect(0, &[]);
    assert!(
        ended.stdout.contains("mean LAION aesthetic score"),
        "{}",
        ended.stdout
    );
    let once = case.scores();
    assert!(once.len() == 2 && once[0] != once[1], "{once:?}");
    let twice = [set, vec!["reward.twice_rescaled=true".to_owned()]].concat();
    case.score("aesthetic", &twice).expect(0, &[]);
    assert_ne!(case.scores(), once);
}
