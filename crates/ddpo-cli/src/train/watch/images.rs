//! The same prompts from the same noise, drawn again through training.
//!
//! `samples/epoch-NNNNNN.png` is a strip of all images side by side in their own size; the report reads them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ddpo_eval::images::ProgressSheet;
use ddpo_reward::{Images, Prompt};
use ddpo_sched::{KeyedNoise, Seeds, Stream};
use ddpo_train::{Boundary, Error, Event, Observer};
use image::RgbImage;

use crate::config::ProgressPlan;

/// Draws the strips.
#[derive(Debug)]
pub struct ProgressImages {
    folder: PathBuf,
    plan: ProgressPlan,
    seeds: Seeds,
}

impl ProgressImages {
    /// In `samples` of this folder.
    pub fn new(folder: &Path, plan: &ProgressPlan, seeds: Seeds) -> Self {
        Self {
            folder: folder.join("samples"),
            plan: plan.clone(),
            seeds,
        }
    }

    fn draw(&self, boundary: &Boundary<'_>) -> Result<()> {
        let prompts: Vec<Prompt> =
            ddpo_reward::prompts::numbered(self.plan.prompts.iter().cloned());
        let sample_ids: Vec<u64> = prompts.iter().map(|prompt| prompt.id).collect();
        let noise = KeyedNoise::of_stream(self.seeds, Stream::Evaluation, 0);
        let images = boundary.draw(&prompts, &sample_ids, &noise, &mut |_| {})?;
        fs::create_dir_all(&self.folder)?;
        let path = self
            .folder
            .join(format!("epoch-{:06}.png", boundary.epochs_done));
        strip(&images)?
            .save(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Observer for ProgressImages {
    fn on(&mut self, _event: &Event<'_>) -> ddpo_train::Result<()> {
        Ok(())
    }

    fn at_boundary(&mut self, boundary: &Boundary<'_>) -> ddpo_train::Result<()> {
        let due = boundary.last || boundary.epochs_done.is_multiple_of(self.plan.every);
        if !due || self.plan.prompts.is_empty() {
            return Ok(());
        }
        self.draw(boundary)
            .map_err(|error| match error.downcast::<Error>() {
                // A run that is asked to stop is no failure.
                Ok(known) => known,
                Err(other) => Error::observer(other.into_boxed_dyn_error()),
            })
    }
}

/// ProgressImages side by side.
fn strip(images: &Images) -> Result<RgbImage> {
    let (width, height) = (images.width() as u32, images.height() as u32);
    let mut strip = RgbImage::new(width * images.len() as u32, height);
    for (at, bytes) in (0..).zip(images.iter_bytes()) {
        let one = RgbImage::from_raw(width, height, bytes.to_vec()).context("an image is short")?;
        image::imageops::replace(&mut strip, &one, i64::from(at * width), 0);
    }
    Ok(strip)
}

/// All strips of a run as a sheet, oldest first; none where there are no images.
pub fn read_sheet(folder: &Path, prompts: &[String]) -> Result<Option<ProgressSheet>> {
    let Ok(entries) = fs::read_dir(folder.join("samples")) else {
        return Ok(None);
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut columns = Vec::new();
    for path in files {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(epoch) = stem
            .strip_prefix("epoch-")
            .and_then(|n| n.parse::<u64>().ok())
        else {
            continue;
        };
        let images = read_strip(&path, prompts.len())
            .with_context(|| format!("{} is no strip of images", path.display()))?;
        columns.push((format!("epoch {epoch}"), images));
    }
    let prompts = prompts.to_vec();
    Ok((!columns.is_empty()).then_some(ProgressSheet { prompts, columns }))
}

fn read_strip(path: &Path, n: usize) -> Result<Images> {
    let strip = image::open(path)?.into_rgb8();
    let (width, height) = (strip.width() / n.max(1) as u32, strip.height());
    ensure!(
        width > 0 && width * n as u32 == strip.width(),
        "it has not {n} images"
    );
    let mut bytes = Vec::with_capacity(strip.len());
    for at in 0..n as u32 {
        let one = image::imageops::crop_imm(&strip, at * width, 0, width, height).to_image();
        bytes.extend(one.into_raw());
    }
    Ok(Images::from_bytes(
        n,
        height as usize,
        width as usize,
        bytes,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let images = Images::from_bytes(3, 2, 4, (0..72).collect()).expect("images");
        let samples = folder.path().join("samples");
        fs::create_dir(&samples).expect("a folder");
        strip(&images)
            .and_then(|s| Ok(s.save(samples.join("epoch-000004.png"))?))
            .expect("a file");
        let prompts = ["a", "b", "c"].map(str::to_owned);
        let sheet = read_sheet(folder.path(), &prompts)
            .expect("readable")
            .expect("a sheet");
        assert_eq!(sheet.columns, [("epoch 4".to_owned(), images)]);
        assert!(read_sheet(folder.path(), &prompts[..1]).is_ok());
        assert!(read_sheet(folder.path(), &vec!["a".to_owned(); 5]).is_err());
    }
}
