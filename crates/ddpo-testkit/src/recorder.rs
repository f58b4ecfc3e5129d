//! An observer that remembers.

use ddpo_reward::Images;
use ddpo_train::{Event, Metrics, Observer, Result, ScoredSample, StopFlag};

/// Remembers what a run said.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Reports of epochs, with the times taken out.
    pub epochs: Vec<Metrics>,
    /// Reports of single updates.
    pub updates: Vec<Metrics>,
    /// |ratio − 1| of each step, from each check.
    pub ratios: Vec<Vec<f64>>,
    /// Reasons of updates that were skipped.
    pub skipped: Vec<String>,
    /// (epoch, sample id, reward, advantage) of each sample.
    pub samples: Vec<(u64, u64, f32, f32)>,
    /// Images with their epochs and sample ids.
    pub images: Vec<(u64, Vec<u64>, Images)>,
    /// Request this when the given number of updates has been taken.
    pub stop_after: Option<(usize, StopFlag)>,
}

impl Observer for Recorder {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match *event {
            Event::EpochDone { report, .. } => {
                let mut report = report.clone();
                report
                    .metrics
                    .retain(|(name, _)| !name.starts_with("time/"));
                self.epochs.push(report);
            }
            Event::UpdateDone { report, .. } => {
                self.updates.push(report.clone());
                if let Some((n, stop)) = &self.stop_after
                    && self.updates.len() == *n
                {
                    stop.request();
                }
            }
            Event::UpdateSkipped { reason, .. } => self.skipped.push(reason.to_owned()),
            Event::RatioChecked { by_step, .. } => self.ratios.push(by_step.to_vec()),
            Event::Rewarded { epoch, samples } => {
                let row = |s: &ScoredSample| (epoch, s.sample_id, s.reward, s.advantage);
                self.samples.extend(samples.iter().map(row));
            }
            Event::BatchSampled {
                epoch,
                sample_ids,
                images,
                ..
            } => self
                .images
                .push((epoch, sample_ids.to_vec(), images.clone())),
            _ => {}
        }
        Ok(())
    }
}
