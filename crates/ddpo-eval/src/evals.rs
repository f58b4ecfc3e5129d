//! Evaluation on fixed prompts from fixed noise: one row per image in `eval.csv`.
//!
//! A sample of a set has the same prompt and the same noise at every evaluation of a seed, before training and
//! after, whatever the algorithm. Two evaluations are therefore compared image by image, which removes
//! the variance due to prompts and noise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::Result;
use crate::csv_file::{column_indices, count, each_record, header, number, open, reader};

/// First columns of `eval.csv`, in this order; the columns after them are further metrics (`eval.panel`), by name.
pub const EVAL_COLUMNS: [&str; 6] = [
    "epoch",
    "reward_queries",
    "set",
    "sample_id",
    "prompt",
    "reward",
];

/// One image drawn for evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalRow {
    /// Epochs that the policy had been trained for; 0 is the policy before training.
    pub epoch: u64,
    /// Reward queries that training had made; those of evaluations do not count.
    pub reward_queries: u64,
    /// Name of the prompt set, such as `animals`.
    pub set: String,
    /// Index of the sample within the set, which determines its prompt and its noise.
    pub sample_id: u64,
    /// The text that the model was given.
    pub prompt: String,
    /// Its score, in the reward's unit; NaN where there was none.
    pub reward: f64,
    /// Other metrics of the image, by name; NaN where there was no value.
    pub metrics: BTreeMap<String, f64>,
}

impl EvalRow {
    /// The reward (`None`), or another metric by name.
    pub fn value(&self, metric: Option<&str>) -> Option<f64> {
        match metric {
            None => Some(self.reward),
            Some(name) => self.metrics.get(name).copied(),
        }
    }
}

/// Reads `eval.csv`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io), or [`Error::Csv`](crate::Error::Csv) if one of [`EVAL_COLUMNS`] is missing,
/// a row is short or long, or a value is not a number.
pub fn read(path: &Path) -> Result<Vec<EvalRow>> {
    parse(open(path)?, path)
}

/// Like [`read`], from any reader; `path` is only used in messages.
///
/// # Errors
/// Same as [`read`].
pub fn parse(from: impl std::io::Read, path: &Path) -> Result<Vec<EvalRow>> {
    let mut reader = reader(from);
    let fixed = column_indices(&mut reader, path, EVAL_COLUMNS)?;
    let header = header(&mut reader, path, &EVAL_COLUMNS)?;
    let panel: Vec<(usize, &str)> = header
        .iter()
        .enumerate()
        .filter(|(at, _)| !fixed.contains(at))
        .collect();
    let mut rows = Vec::new();
    each_record(&mut reader, path, |record, line| {
        let [epoch, queries, set, sample_id, prompt, reward] = fixed.map(|at| &record[at]);
        rows.push(EvalRow {
            epoch: count(epoch, path, line, "epoch")?,
            reward_queries: count(queries, path, line, "reward_queries")?,
            set: set.to_owned(),
            sample_id: count(sample_id, path, line, "sample_id")?,
            prompt: prompt.to_owned(),
            reward: number(reward, path, line, "reward")?,
            metrics: panel
                .iter()
                .map(|&(at, name)| Ok((name.to_owned(), number(&record[at], path, line, name)?)))
                .collect::<Result<_>>()?,
        });
        Ok(())
    })?;
    Ok(rows)
}

/// The rows of one evaluation of one prompt set.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalRows<'a> {
    /// Epochs that the policy had been trained for.
    pub epoch: u64,
    /// Reward queries that training had made.
    pub reward_queries: u64,
    /// The rows, by sample id.
    pub rows: BTreeMap<u64, &'a EvalRow>,
}

/// All evaluations of a set, the earliest first.
pub fn evaluations<'a>(rows: &'a [EvalRow], set: &str) -> Vec<EvalRows<'a>> {
    let mut by_epoch = BTreeMap::<u64, EvalRows<'a>>::new();
    for row in rows.iter().filter(|row| row.set == set) {
        let evaluation = by_epoch.entry(row.epoch).or_insert_with(|| EvalRows {
            epoch: row.epoch,
            reward_queries: row.reward_queries,
            rows: BTreeMap::new(),
        });
        evaluation.rows.insert(row.sample_id, row);
    }
    by_epoch.into_values().collect()
}

/// Names of the sets that were evaluated, in the order in which they first appear.
pub fn sets(rows: &[EvalRow]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.set.as_str()) {
            names.push(&row.set);
        }
    }
    names
}

/// Names of the metrics other than the reward, sorted.
pub fn metric_names(rows: &[EvalRow]) -> Vec<&str> {
    let names: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row.metrics.keys().map(String::as_str))
        .collect();
    names.into_iter().collect()
}

/// Rewards of the same samples in two evaluations, or the values of another metric.
///
/// # Errors
/// A message, if the two evaluations did not draw the same samples or a value is not finite.
pub fn paired(
    first: &EvalRows<'_>,
    second: &EvalRows<'_>,
    metric: Option<&str>,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    if !first.rows.keys().eq(second.rows.keys()) {
        return Err(format!(
            "the evaluations have {} and {} samples that are not the same",
            first.rows.len(),
            second.rows.len()
        ));
    }
    let name = metric.unwrap_or("reward");
    let mut values = (Vec::new(), Vec::new());
    for (a, b) in first.rows.values().zip(second.rows.values()) {
        if a.prompt != b.prompt {
            return Err(format!(
                "sample {} has the prompts `{}` and `{}`",
                a.sample_id, a.prompt, b.prompt
            ));
        }
        let (Some(before), Some(after)) = (a.value(metric), b.value(metric)) else {
            return Err(format!("the evaluations have no `{name}`"));
        };
        if !(before.is_finite() && after.is_finite()) {
            return Err(format!(
                "the {name} of sample {} is not finite",
                a.sample_id
            ));
        }
        values.0.push(before);
        values.1.push(after);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "epoch,reward_queries,set,sample_id,prompt,reward\n\
        0,0,animals,0,cat,1\n0,0,animals,1,dog,2\n0,0,objects,0,chair,5\n\
        6,384,animals,1,dog,4\n6,384,animals,0,cat,3.5\n";

    fn rows(text: &str) -> Result<Vec<EvalRow>> {
        parse(text.as_bytes(), Path::new("eval.csv"))
    }

    #[test]
    fn evaluations_are_paired_by_sample_whatever_the_order_of_rows() {
        let rows = rows(TABLE).unwrap();
        assert_eq!(sets(&rows), ["animals", "objects"]);
        let animals = evaluations(&rows, "animals");
        let at: Vec<_> = animals
            .iter()
            .map(|e| (e.epoch, e.reward_queries))
            .collect();
        assert_eq!(at, [(0, 0), (6, 384)]);
        let (before, after) = paired(&animals[0], &animals[1], None).unwrap();
        assert_eq!((before, after), (vec![1.0, 2.0], vec![3.5, 4.0]));
    }

    #[test]
    fn other_samples_other_prompts_and_missing_values_are_not_paired() {
        let message = |line: &str| {
            let rows = rows(&format!("{TABLE}{line}")).unwrap();
            let all = evaluations(&rows, "animals");
            paired(&all[0], all.last().unwrap(), None).unwrap_err()
        };
        assert!(message("6,384,animals,2,fox,1\n").contains("not the same"));
        assert!(message("6,384,animals,1,fox,1\n").contains("`dog` and `fox`"));
        assert!(message("6,384,animals,1,dog,\n").contains("sample 1 is not finite"));
    }

    #[test]
    fn columns_after_the_fixed_ones_are_metrics() {
        let table = "epoch,reward_queries,set,sample_id,prompt,reward,edges,judge\n\
            0,0,animals,0,cat,1,4,-1\n0,0,animals,1,dog,2,5,-2\n\
            6,384,animals,0,cat,3,6,-3\n6,384,animals,1,dog,4,7,\n";
        let rows = rows(table).unwrap();
        assert_eq!(metric_names(&rows), ["edges", "judge"]);
        let all = evaluations(&rows, "animals");
        let of = |metric| paired(&all[0], &all[1], Some(metric));
        assert_eq!(of("edges").unwrap(), (vec![4.0, 5.0], vec![6.0, 7.0]));
        assert!(of("judge").unwrap_err().contains("judge of sample 1"));
        assert!(of("size").unwrap_err().contains("no `size`"));
    }

    #[test]
    fn a_damaged_table_names_line_and_column() {
        let error = rows("epoch,reward_queries,set,sample_id,prompt,reward\n0,x,a,0,cat,1\n");
        assert_eq!(
            error.unwrap_err().to_string(),
            "eval.csv: line 2, column `reward_queries`: `x` is not a whole number"
        );
    }
}
