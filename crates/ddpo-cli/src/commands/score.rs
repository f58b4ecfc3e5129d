//! `ddpo score`: images in files, one reward each.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpo_reward::{Images, Prompt, Score};
use ddpo_train::RewardWorker;

use crate::commands::args::ScoreArgs;
use crate::config::{RewardKind, RewardPlan};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::output;
use crate::rewards;

/// Endings of files that are images.
const IMAGES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Images that are scored as one batch, if they have one size.
const BATCH: usize = 32;

/// Scores every image and writes a CSV file with a row each: file, prompt, reward; then a column for each part
/// of a sum, and one for what a server or a program said.
pub fn run(args: &ScoreArgs) -> Result<Exit> {
    let plan = plan(args)?;
    let files = files(&args.images)?;
    let prompts = prompts(args.prompts.as_deref(), files.len())?;
    let copies = rewards::copies(&plan, BATCH)?;
    let n_threads = copies.len();
    let worker = RewardWorker::new(copies, plan.retry())?;
    let scores = score(&worker, n_threads, &files, &prompts)?;

    let parts = worker.parts().iter().map(|name| format!("reward/{name}"));
    let answer = plan.kind.has_answers().then(|| "answer".to_owned());
    let fixed = ["file", "prompt", "reward"].map(str::to_owned);
    let header: Vec<String> = fixed.into_iter().chain(parts).chain(answer).collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    let doing = || format!("cannot write {}", args.out.display());
    table.write_record(&header).or_exit(Exit::Other, doing())?;
    for ((file, prompt), score) in files.iter().zip(&prompts).zip(&scores) {
        let mut row = vec![
            file.display().to_string(),
            prompt.text.clone(),
            score.value.to_string(),
        ];
        row.extend(score.parts.iter().map(f32::to_string));
        row.extend(plan.kind.has_answers().then(|| score.answer.clone()));
        table.write_record(row).or_exit(Exit::Other, doing())?;
    }
    let bytes = table
        .into_inner()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let text = String::from_utf8(bytes).or_exit(Exit::Other, doing())?;
    output::write(&args.out, &text)?;
    let sum: f64 = scores.iter().map(|score| f64::from(score.value)).sum();
    println!(
        "{} images, mean {} {:.4}, written to {}",
        files.len(),
        worker.info().label(),
        sum / files.len() as f64,
        args.out.display()
    );
    Ok(Exit::Done)
}

/// What `--reward`, `--model` and `--set` say together.
fn plan(args: &ScoreArgs) -> Result<RewardPlan> {
    let mut set = Vec::new();
    if let Some(model) = &args.model {
        let key = RewardKind::weights_key(&args.reward).map_err(Failure::config)?;
        set.push(format!("{key}={}", toml::Value::String(model.clone())));
    }
    set.extend(args.set.iter().cloned());
    RewardPlan::alone(&args.reward, &set)
}

/// A score for each image. Few batches are in memory at a time: one a thread, and one that is next.
fn score(
    worker: &RewardWorker,
    n_threads: usize,
    files: &[PathBuf],
    prompts: &[Prompt],
) -> Result<Vec<Score>> {
    let mut scores = Vec::with_capacity(files.len());
    let mut waiting = VecDeque::new();
    let mut next = 0;
    while next < files.len() || !waiting.is_empty() {
        if next < files.len() && waiting.len() <= n_threads {
            let images = batch(&files[next..])?;
            let end = next + images.len();
            let ticket = worker.submit(Arc::new(images), prompts[next..end].to_vec());
            waiting.push_back(ticket);
            next = end;
        } else if let Some(ticket) = waiting.pop_front() {
            let answered = ticket.settle(&|| true);
            if let Some(error) = answered.error {
                let first = answered
                    .scores
                    .iter()
                    .position(Option::is_none)
                    .unwrap_or(0);
                let file = files[scores.len() + first].display();
                let mut failed = Failure::from(error);
                failed.error = failed.error.context(format!("cannot score {file}"));
                return Err(failed);
            }
            scores.extend(answered.scores.into_iter().flatten());
        }
    }
    Ok(scores)
}

/// The next images, as many as have the first one's size.
fn batch(files: &[PathBuf]) -> Result<Images> {
    let mut size = None;
    let (mut n, mut bytes) = (0, Vec::new());
    for file in files.iter().take(BATCH) {
        let doing = || format!("cannot read image {}", file.display());
        let its_size = image::image_dimensions(file).or_exit(Exit::Data, doing())?;
        if *size.get_or_insert(its_size) != its_size {
            break;
        }
        let image = image::open(file).or_exit(Exit::Data, doing())?.into_rgb8();
        bytes.extend_from_slice(image.as_raw());
        n += 1;
    }
    let (width, height) = size.unwrap_or_default();
    Images::from_bytes(n, height as usize, width as usize, bytes).or_exit(
        Exit::Data,
        format!("cannot read image {}", files[0].display()),
    )
}

/// Images in the order given, those of a folder by name.
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
            .filter(|path| is_image(path))
            .collect();
        inside.sort();
        files.extend(inside);
    }
    if files.is_empty() {
        let message = format!("no images ({}) in what --images names", IMAGES.join(", "));
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(files)
}

fn is_image(path: &Path) -> bool {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    IMAGES.contains(&extension.as_str())
}

/// A prompt an image; empty ones without a file.
fn prompts(file: Option<&Path>, n: usize) -> Result<Vec<Prompt>> {
    let Some(file) = file else {
        return Ok(ddpo_reward::prompts::numbered(vec![String::new(); n]));
    };
    let shown = file.display();
    let text = fs::read_to_string(file).or_exit(Exit::Data, format!("cannot read {shown}"))?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() != n {
        let message = format!(
            "{shown} has {} lines, one for each of {n} images is needed",
            lines.len()
        );
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(ddpo_reward::prompts::numbered(lines))
}
