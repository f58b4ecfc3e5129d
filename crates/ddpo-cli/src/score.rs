//! `ddpo score`: pictures in files, one reward each.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_reward::{Images, Prompt, Reward};

use crate::args::ScoreArgs;
use crate::config::RewardPlan;
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::folder;
use crate::rewards;

/// Endings of files that are pictures.
const PICTURES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Scores every picture and writes a CSV file with a row each: file, prompt, reward.
pub fn run(args: &ScoreArgs) -> Result<Exit> {
    let plan = RewardPlan::alone(&args.reward, &args.set)?;
    let files = files(&args.images)?;
    let prompts = prompts(args.prompts.as_deref(), files.len())?;
    let mut reward = rewards::make(&plan.kind)?;
    let mut table = csv::Writer::from_writer(Vec::new());
    let doing = || format!("cannot write {}", args.out.display());
    table
        .write_record(["file", "prompt", "reward"])
        .or_exit(Exit::Other, doing())?;
    let mut sum = 0.0;
    for (file, prompt) in files.iter().zip(&prompts) {
        let score = score(reward.as_mut(), file, prompt)?;
        sum += f64::from(score);
        let row = [
            &file.display().to_string(),
            &prompt.text,
            &score.to_string(),
        ];
        table.write_record(row).or_exit(Exit::Other, doing())?;
    }
    let bytes = table
        .into_inner()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let text = String::from_utf8(bytes).or_exit(Exit::Other, doing())?;
    folder::write(&args.out, &text)?;
    println!(
        "{} pictures, mean {} {:.4}, written to {}",
        files.len(),
        reward.info().label(),
        sum / files.len() as f64,
        args.out.display()
    );
    Ok(Exit::Done)
}

fn score(reward: &mut dyn Reward, file: &Path, prompt: &Prompt) -> Result<f32> {
    let doing = || format!("cannot read picture {}", file.display());
    let picture = image::open(file).or_exit(Exit::Data, doing())?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let images =
        Images::from_bytes(1, height, width, picture.into_raw()).or_exit(Exit::Data, doing())?;
    let scores = reward
        .score(&images, std::slice::from_ref(prompt))
        .or_exit(Exit::Reward, format!("cannot score {}", file.display()))?;
    Ok(scores[0])
}

/// Pictures in the order given, those of a folder by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path)
            .or_exit(Exit::Data, format!("cannot read folder {}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| is_picture(path))
            .collect();
        inside.sort();
        files.extend(inside);
    }
    if files.is_empty() {
        let message = format!(
            "no pictures ({}) in what --images names",
            PICTURES.join(", ")
        );
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(files)
}

fn is_picture(path: &Path) -> bool {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    PICTURES.contains(&extension.as_str())
}

/// A prompt a picture; empty ones without a file.
fn prompts(file: Option<&Path>, n: usize) -> Result<Vec<Prompt>> {
    let Some(file) = file else {
        return Ok(ddpo_reward::prompts::numbered(vec![String::new(); n]));
    };
    let shown = file.display();
    let text = fs::read_to_string(file).or_exit(Exit::Data, format!("cannot read {shown}"))?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() != n {
        let message = format!(
            "{shown} has {} lines, one for each of {n} pictures is needed",
            lines.len()
        );
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(ddpo_reward::prompts::numbered(lines))
}
