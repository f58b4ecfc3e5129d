//! `ddpo score` of two images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Ended, command, ddpo, ended, golden, text, tiny_model};

/// Prompts, a line an image.
pub const PROMPTS: [&str; 2] = ["a dog riding a bike", "a cat"];

/// Two images of the tiny model and a prompt for each, in a folder that is gone with this value.
pub struct Scoring {
    /// The folder.
    pub folder: tempfile::TempDir,
    /// Where the images are.
    pub images: PathBuf,
}

impl Default for Scoring {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let images = folder.path().join("images");
        let model = tiny_model();
        let args = ["sample", "--model", text(&model), "--steps", "1"];
        let prompts = ["--prompt", "cat", "--prompt", "dog"];
        let out = ["--out", text(&images)];
        ddpo(args.into_iter().chain(prompts).chain(out)).expect(0, &[]);
        let lines = PROMPTS.join("\n") + "\n";
        fs::write(folder.path().join("prompts.txt"), lines).expect("a file");
        Self { folder, images }
    }
}

impl Scoring {
    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Images and prompts of one's own; only the names' order counts.
    pub fn of(images: &[image::RgbImage], prompts: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("images");
        fs::create_dir(&there).expect("a folder");
        for (i, image) in images.iter().enumerate() {
            image
                .save(there.join(format!("{i:03}.png")))
                .expect("a file");
        }
        let lines = prompts.join("\n") + "\n";
        fs::write(folder.path().join("prompts.txt"), lines).expect("a file");
        let images = there;
        Self { folder, images }
    }

    /// `ddpo score` with `--set` for each pair; writes `out.csv`.
    pub fn command(&self, reward: &str, set: &[String]) -> Command {
        let (prompts, out) = (self.path("prompts.txt"), self.path("out.csv"));
        let mut args = vec!["score", "--reward", reward, "--images"];
        args.extend([text(&self.images), "--prompts", text(&prompts)]);
        args.extend(["--out", text(&out)]);
        args.extend(set.iter().flat_map(|pair| ["--set", pair.as_str()]));
        command(args)
    }

    /// Runs [`command`](Self::command) to its end.
    pub fn score(&self, reward: &str, set: &[String]) -> Ended {
        ended(&mut self.command(reward, set))
    }

    /// The column `reward` of what was written.
    pub fn scores(&self) -> Vec<f64> {
        let mut table = csv::Reader::from_path(self.path("out.csv")).expect("a table");
        let rows = table.records().map(|row| row.expect("a row"));
        rows.map(|row| row[2].parse().expect("a number")).collect()
    }
}

/// Copies the small image tower and the small head of the golden files to a folder, under their published names.
pub fn small_aesthetic(to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for (from, name) in [
        ("clip_vision/config.json", "config.json"),
        ("clip_vision/model.safetensors", "model.safetensors"),
        (
            "aesthetic/head.safetensors",
            "sac+logos+ava1-l14-linearMSE.pth",
        ),
    ] {
        fs::copy(golden(from), to.join(name)).expect("a copy");
    }
}
