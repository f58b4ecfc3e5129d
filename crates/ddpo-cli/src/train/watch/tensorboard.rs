//! Every epoch's metrics for TensorBoard; a step is a reward query.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ddpo_eval::tensorboard::EventFile;
use ddpo_train::{Error, Event, Observer};

/// Writes `events.out.tfevents.*`, a file for each start of the run.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    first_step: u64,
    file: Option<EventFile>,
}

impl TensorBoard {
    /// In this folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            first_step: 0,
            file: None,
        }
    }

    fn add(&mut self, step: u64, values: &[(&str, f64)]) -> ddpo_eval::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = now.as_secs_f64();
        let file = match self.file.take() {
            Some(file) => file,
            None => EventFile::create(&self.folder, now, self.first_step)?,
        };
        self.file.insert(file).scalars(now, step, values)
    }
}

impl Observer for TensorBoard {
    fn on(&mut self, event: &Event<'_>) -> ddpo_train::Result<()> {
        match event {
            Event::Resumed { reward_queries, .. } => self.first_step = reward_queries + 1,
            Event::EpochDone {
                reward_queries,
                report,
                ..
            } => {
                let metrics = report.metrics.iter();
                let metrics: Vec<(&str, f64)> =
                    metrics.map(|(name, v)| (name.as_str(), *v)).collect();
                self.add(*reward_queries, &metrics)
                    .map_err(Error::observer)?;
            }
            _ => {}
        }
        Ok(())
    }
}
