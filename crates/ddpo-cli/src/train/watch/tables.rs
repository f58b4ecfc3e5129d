//! `metrics.csv` and `samples.csv`.
//!
//! A resumed run writes the rows that an uninterrupted one has: rows of epochs that are done over again are
//! taken out before the new ones are added.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ddpo_eval::runs::{METRIC_COLUMNS, SAMPLE_COLUMNS};
use ddpo_train::{Error, Event, Metrics, Observer, ScoredSample};

use crate::output::{append, cut};

/// Writes both tables.
#[derive(Debug)]
pub struct Tables {
    metrics: PathBuf,
    samples: PathBuf,
    /// Columns of `samples.csv` after the fixed ones.
    more: Vec<String>,
}

impl Tables {
    /// In this folder, with a column for each part of the reward, and one for what it is told about images.
    pub fn new(folder: &Path, parts: &[String], has_answers: bool) -> Self {
        let parts = parts.iter().map(|name| format!("reward/{name}"));
        let answer = has_answers.then(|| "answer".to_owned());
        Self {
            metrics: folder.join("metrics.csv"),
            samples: folder.join("samples.csv"),
            more: parts.chain(answer).collect(),
        }
    }

    fn write(&self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Resumed { epochs_done, .. } => {
                // An interrupted epoch has its samples already, and no metrics.
                cut(&self.metrics, *epochs_done)?;
                cut(&self.samples, epochs_done + 1)
            }
            Event::Rewarded { epoch, samples } => {
                cut(&self.samples, *epoch)?;
                let more = self.more.iter().map(String::as_str);
                let columns: Vec<&str> = SAMPLE_COLUMNS.into_iter().chain(more).collect();
                let width = columns.len();
                append(
                    &self.samples,
                    &columns,
                    samples.iter().map(|row| sample_cells(*epoch, row, width)),
                )
            }
            Event::EpochDone {
                epoch,
                reward_queries,
                report,
            } => {
                cut(&self.metrics, *epoch)?;
                let (columns, cells) = metric_cells(*epoch, *reward_queries, report);
                append(&self.metrics, &columns, std::iter::once(cells))
            }
            _ => Ok(()),
        }
    }
}

impl Observer for Tables {
    fn on(&mut self, event: &Event<'_>) -> ddpo_train::Result<()> {
        self.write(event)
            .map_err(|error| Error::observer(error.into_boxed_dyn_error()))
    }
}

fn sample_cells(epoch: u64, row: &ScoredSample, width: usize) -> Vec<String> {
    let mut cells = vec![
        epoch.to_string(),
        row.sample_id.to_string(),
        row.prompt.text.clone(),
        row.reward.to_string(),
        row.advantage.to_string(),
    ];
    cells.extend(row.parts.iter().map(f32::to_string));
    if cells.len() < width {
        cells.push(row.answer.clone());
    }
    cells
}

/// The fixed columns first, then the algorithm's in its order, times last.
fn metric_cells(epoch: u64, queries: u64, report: &Metrics) -> (Vec<&str>, Vec<String>) {
    let mut columns = METRIC_COLUMNS.to_vec();
    let value = |name: &str| report.get(name).map_or_else(String::new, |v| v.to_string());
    let mut cells = vec![epoch.to_string(), queries.to_string()];
    cells.extend(METRIC_COLUMNS[2..].iter().map(|name| value(name)));
    let is_time = |name: &&str| name.starts_with("time/");
    let names = || report.metrics.iter().map(|(name, _)| name.as_str());
    let others = names()
        .filter(|name| !is_time(name))
        .chain(names().filter(is_time));
    for name in others.filter(|name| !METRIC_COLUMNS.contains(name)) {
        columns.push(name);
        cells.push(value(name));
    }
    (columns, cells)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use ddpo_reward::Prompt;

    fn of_two(folder: &Path) -> Tables {
        Tables::new(folder, &["a", "b"].map(str::to_owned), true)
    }

    fn epoch(tables: &Tables, epoch: u64, reward: f32) {
        let samples = [ScoredSample {
            sample_id: epoch,
            prompt: Prompt::new(0, "a \"cat\", asleep"),
            reward,
            advantage: 0.5,
            parts: vec![reward, 0.25],
            answer: "it says:\n\"a cat\"".to_owned(),
        }];
        let mut report = Metrics::default();
        report.push("time/epoch_s", 1.0);
        report.push("reward/mean", f64::from(reward));
        report.push("reward/std", 0.0);
        report.push("policy/grad_norm", 0.1);
        let reward_queries = epoch + 1;
        tables
            .write(&Event::Rewarded {
                epoch,
                samples: &samples,
            })
            .expect("samples");
        tables
            .write(&Event::EpochDone {
                epoch,
                reward_queries,
                report: &report,
            })
            .expect("metrics");
    }

    fn read(tables: &Tables) -> [String; 2] {
        [&tables.metrics, &tables.samples].map(|path| fs::read_to_string(path).expect("a table"))
    }

    #[test]
    fn a_resumed_run_has_the_rows_of_an_uninterrupted_one() {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let [whole, resumed] = [0, 1].map(|i| of_two(folders[i].path()));
        for e in 0..4 {
            epoch(&whole, e, e as f32);
        }
        for e in 0..3 {
            epoch(&resumed, e, if e == 2 { 9.0 } else { e as f32 });
        }
        let event = Event::Resumed {
            epochs_done: 2,
            reward_queries: 2,
        };
        resumed.write(&event).expect("cut");
        for e in 2..4 {
            epoch(&resumed, e, e as f32);
        }
        assert_eq!(read(&whole), read(&resumed));
    }

    #[test]
    fn columns_begin_with_the_fixed_ones_and_end_with_times() {
        let folder = tempfile::tempdir().expect("a folder");
        let tables = of_two(folder.path());
        epoch(&tables, 0, 2.0);
        let [metrics, samples] = read(&tables);
        assert_eq!(
            metrics.lines().next(),
            Some("epoch,reward_queries,reward/mean,reward/std,policy/grad_norm,time/epoch_s")
        );
        assert_eq!(
            samples.lines().next(),
            Some("epoch,sample_id,prompt,reward,advantage,reward/a,reward/b,answer")
        );
        let rows = ddpo_eval::runs::parse_samples(samples.as_bytes(), &tables.samples);
        assert_eq!(rows.expect("samples")[0].prompt, "a \"cat\", asleep");
    }
}
