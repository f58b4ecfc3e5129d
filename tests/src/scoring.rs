//! `ddpo score` of two pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Ended, command, ddpo, ended, golden, text, tiny_model};

/// Prompts, a line a picture.
pub const PROMPTS: [&str; 2] = ["a dog riding a bike", "a cat"];

/// Two pictures of the tiny model and a prompt for each, in a folder that is gone with this value.
pub struct Scoring {
    /// The folder.
    pub folder: tempfile::TempDir,
    /// Where the pictures are.
    pub pictures: PathBuf,
}

impl Default for Scoring {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pictures = folder.path().join("pictures");
        let model = tiny_model();
        let args = ["sample", "--model", text(&model), "--steps", "1"];
        let prompts = ["--prompt", "cat", "--prompt", "dog"];
        let out = ["--out", text(&pictures)];
        ddpo(args.into_iter().chain(prompts).chain(out)).expect(0, &[]);
        let lines = PROMPTS.join("\n") + "\n";
        fs::write(folder.path().join("prompts.txt"), lines).expect("a file");
        Self { folder, pictures }
    }
}

impl Scoring {
    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pictures and prompts of one's own; only the names' order counts.
    pub fn of(pictures: &[image::RgbImage], prompts: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("pictures");
        fs::create_dir(&there).expect("a folder");
        for (i, picture) in pictures.iter().enumerate() {
            picture
                .save(there.join(format!("{i:03}.png")))
                .expect("a file");
        }
        let lines = prompts.join("\n") + "\n";
        fs::write(folder.path().join("prompts.txt"), lines).expect("a file");
        let pictures = there;
        Self { folder, pictures }
    }

    /// `ddpo score` with `--set` for each pair; writes `out.csv`.
    pub fn command(&self, reward: &str, set: &[String]) -> Command {
        let (prompts, out) = (self.path("prompts.txt"), self.path("out.csv"));
        let mut args = vec!["score", "--reward", reward, "--images"];
        args.extend([text(&self.pictures), "--prompts", text(&prompts)]);
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
