//! The tables that a run writes: one row per epoch in `metrics.csv`, one row per sample in `samples.csv`; see
//! [`evals`](crate::evals) for `eval.csv`.
//!
//! A damaged table is an error that names file, line and column, never a silently shorter run.

use std::{io::Read, path::Path};

use crate::{
    Result,
    csv_file::{column_indices, count, each_record, header, number, open, reader},
    evals::EvalRow,
};

/// Columns of `samples.csv`, in this order.
pub const SAMPLE_COLUMNS: [&str; 5] = ["epoch", "sample_id", "prompt", "reward", "advantage"];

/// First columns of `metrics.csv`; the others depend on the algorithm.
pub const METRIC_COLUMNS: [&str; 4] = ["epoch", "reward_queries", "reward/mean", "reward/std"];

/// One training run, as far as claims and figures need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Such as `ddpo-is`, or the name of the run's variant.
    pub algorithm: String,
    /// Its seed.
    pub seed: u64,
    /// Rows of `metrics.csv`.
    pub metrics: MetricsTable,
    /// Rows of `samples.csv`.
    pub samples: Vec<SampleRecord>,
    /// Rows of `eval.csv`; empty for a run that evaluated nothing.
    pub evals: Vec<EvalRow>,
}

/// One sampled image.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRecord {
    /// Outer iteration, from 0: sampled before that epoch's updates.
    pub epoch: u64,
    /// Index of the sample within the run.
    pub sample_id: u64,
    /// The text that the model was given.
    pub prompt: String,
    /// Its score, in the reward's unit; NaN where there was none.
    pub reward: f64,
    /// The advantage that training used; NaN where there was none.
    pub advantage: f64,
}

/// The metrics of every epoch, by column.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsTable {
    columns: Vec<String>,
    /// `values[row][column]`; NaN for an empty cell.
    values: Vec<Vec<f64>>,
}

impl MetricsTable {
    /// Reads `metrics.csv`.
    ///
    /// # Errors
    /// [`crate::Error::Io`], or [`crate::Error::Csv`] if one of [`METRIC_COLUMNS`] is missing, a row is short or
    /// long, or
    /// a cell is not a number.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(open(path)?, path)
    }

    /// Like [`read`](Self::read), from any reader; `path` is only used in messages.
    ///
    /// # Errors
    /// Same as [`read`](Self::read).
    pub fn parse(from: impl Read, path: &Path) -> Result<Self> {
        let mut reader = reader(from);
        let columns: Vec<String> = header(&mut reader, path, &METRIC_COLUMNS)?
            .iter()
            .map(str::to_owned)
            .collect();
        let mut values = Vec::new();
        each_record(&mut reader, path, |record, line| {
            let row = columns
                .iter()
                .zip(record)
                .map(|(column, cell)| number(cell, path, line, column))
                .collect::<Result<Vec<f64>>>()?;
            values.push(row);
            Ok(())
        })?;
        Ok(Self { columns, values })
    }

    /// Number of epochs.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no epoch.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Names, in the order of the file.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// A column's values, one per epoch; NaN for an empty cell. `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<Vec<f64>> {
        let at = self.columns.iter().position(|c| c == name)?;
        Some(self.values.iter().map(|row| row[at]).collect())
    }
}

/// Reads `samples.csv`.
///
/// # Errors
/// [`crate::Error::Io`], or [`crate::Error::Csv`] if one of [`SAMPLE_COLUMNS`] is missing, a row is short or long, or a
/// value is not a number.
pub fn read_samples(path: &Path) -> Result<Vec<SampleRecord>> {
    parse_samples(open(path)?, path)
}

/// Like [`read_samples`], from any reader; `path` is only used in messages.
///
/// # Errors
/// Same as [`read_samples`].
pub fn parse_samples(from: impl Read, path: &Path) -> Result<Vec<SampleRecord>> {
    let mut reader = reader(from);
    let columns = column_indices(&mut reader, path, SAMPLE_COLUMNS)?;
    let mut rows = Vec::new();
    each_record(&mut reader, path, |record, line| {
        let [epoch, sample_id, prompt, reward, advantage] = columns.map(|at| &record[at]);
        rows.push(SampleRecord {
            epoch: count(epoch, path, line, "epoch")?,
            sample_id: count(sample_id, path, line, "sample_id")?,
            prompt: prompt.to_owned(),
            reward: number(reward, path, line, "reward")?,
            advantage: number(advantage, path, line, "advantage")?,
        });
        Ok(())
    })?;
    Ok(rows)
}

/// Rewards by epoch, in the order of the epochs.
pub fn rewards_by_epoch(samples: &[SampleRecord]) -> Vec<(u64, Vec<f64>)> {
    let mut epochs = std::collections::BTreeMap::<u64, Vec<f64>>::new();
    for row in samples {
        epochs.entry(row.epoch).or_default().push(row.reward);
    }
    epochs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(text: &str) -> Result<MetricsTable> {
        MetricsTable::parse(text.as_bytes(), Path::new("metrics.csv"))
    }

    fn samples(text: &str) -> Result<Vec<SampleRecord>> {
        parse_samples(text.as_bytes(), Path::new("samples.csv"))
    }

    const HEAD: &str = "epoch,reward_queries,reward/mean,reward/std,policy/clip_fraction\n";

    #[test]
    fn metrics_are_read_by_column_and_an_empty_cell_is_not_a_number() {
        let m = metrics(&format!("{HEAD}0,64,-2.1,0.3,0.0\n1,128,-2.0,0.3,\n")).unwrap();
        assert_eq!(m.len(), 2);
        assert_eq!(m.column("reward/mean").unwrap(), [-2.1, -2.0]);
        assert!(m.column("policy/clip_fraction").unwrap()[1].is_nan());
        assert_eq!(m.column("eval/mean"), None);
    }

    #[test]
    fn a_header_alone_is_a_run_without_epochs() {
        assert!(metrics(HEAD).unwrap().is_empty());
        assert_eq!(
            samples("epoch,sample_id,prompt,reward,advantage\n").unwrap(),
            []
        );
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let message = |text: &str| metrics(text).unwrap_err().to_string();
        assert_eq!(
            message(&format!("{HEAD}0,64,x,0.3,0.0\n")),
            "metrics.csv: line 2, column `reward/mean`: `x` is not a number"
        );
        assert_eq!(
            message(&format!("{HEAD}0,64,1,0.3,0.0\n1,64\n")),
            "metrics.csv: line 3: 2 cells instead of 5"
        );
        assert_eq!(
            message("epoch,reward_queries\n"),
            "metrics.csv: line 1, column `reward/mean`: missing; the columns are: epoch, reward_queries"
        );
        assert!(message("").contains("column `epoch`: missing"));
        let error = samples("epoch,sample_id,prompt,reward,advantage\n0,-1,cat,1,0\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "samples.csv: line 2, column `sample_id`: `-1` is not a whole number"
        );
        let error = MetricsTable::read(Path::new("nowhere/metrics.csv")).unwrap_err();
        assert!(error.to_string().starts_with("nowhere/metrics.csv: "));
    }

    #[test]
    fn prompts_keep_commas_quotes_and_line_breaks() {
        let rows = samples(
            "epoch,sample_id,prompt,reward,advantage\n3,7,\"tench, \"\"Tinca\"\"\ntinca\",-1.5,NaN\n",
        )
        .unwrap();
        assert_eq!(rows[0].prompt, "tench, \"Tinca\"\ntinca");
        assert_eq!(
            (rows[0].epoch, rows[0].sample_id, rows[0].reward),
            (3, 7, -1.5)
        );
        assert!(rows[0].advantage.is_nan());
    }

    #[test]
    fn rewards_are_gathered_by_epoch_whatever_the_order_of_rows() {
        let row = |epoch, reward| SampleRecord {
            epoch,
            sample_id: 0,
            prompt: String::new(),
            reward,
            advantage: 0.0,
        };
        let gathered = rewards_by_epoch(&[row(1, 5.0), row(0, 1.0), row(1, 6.0)]);
        assert_eq!(gathered, [(0, vec![1.0]), (1, vec![5.0, 6.0])]);
    }
}
