//! The difference of two means, from the samples of training or of evaluations.

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::evals::{EvalRows, evaluations, paired, sets};
use crate::runs::{Run, rewards_by_epoch};
use crate::stats::{Summary, paired_difference};
use crate::{Error, Result};

/// Two means and their difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The start of the run, or the algorithm that should be lower.
    pub first: Summary,
    /// The end of the run, or the algorithm that should be higher.
    pub second: Summary,
    /// Whether both sides are the same prompts from the same noise.
    pub paired: bool,
    /// Mean of the second minus mean of the first.
    pub difference: f64,
    /// Standard error of the difference: `sqrt(se_first² + se_second²)`, or that of the mean of the paired differences.
    pub standard_error: f64,
    /// `difference / standard_error`; absent if no value varied.
    pub standard_errors: Option<f64>,
}

impl Comparison {
    fn unpaired(first: &[f64], second: &[f64]) -> Result<Self> {
        let (first, second) = (Summary::of(first)?, Summary::of(second)?);
        let standard_error = first.standard_error.hypot(second.standard_error);
        Ok(Self::of(first, second, false, standard_error))
    }

    fn paired(first: &[f64], second: &[f64]) -> Result<Self> {
        if first.len() < 2 {
            return Err(Error::TooFew {
                what: "paired samples".into(),
                needed: 2,
                n: first.len(),
            });
        }
        let between = paired_difference(first, second)?;
        let (first, second) = (Summary::of(first)?, Summary::of(second)?);
        Ok(Self::of(first, second, true, between.standard_error))
    }

    fn of(first: Summary, second: Summary, paired: bool, standard_error: f64) -> Self {
        let difference = second.mean - first.mean;
        Self {
            first,
            second,
            paired,
            difference,
            standard_error,
            standard_errors: (standard_error > 0.0).then(|| difference / standard_error),
        }
    }

    /// Whether the second is higher by that many standard errors; without any spread, higher at all.
    pub fn exceeds(&self, standard_errors: f64) -> bool {
        self.difference > 0.0 && self.standard_errors.is_none_or(|n| n >= standard_errors)
    }

    /// Whether the second is lower by that many standard errors; without any spread, lower at all.
    pub fn falls_short(&self, standard_errors: f64) -> bool {
        self.difference < 0.0 && self.standard_errors.is_none_or(|n| n <= -standard_errors)
    }
}

/// The end of a run against its start.
pub(super) fn rise(run: &Run, metric: &Metric, epochs: usize) -> Result<Comparison, String> {
    if let Some((set, name)) = metric.evaluated() {
        let all = evaluations(&run.evals, set);
        return match &all[..] {
            [first, .., last] => compare_paired(first, last, name),
            _ => Err(format!(
                "two evaluations of `{set}` are needed, {}",
                evaluated(run, set, all.len())
            )),
        };
    }
    let all = rewards_by_epoch(&run.samples);
    let epochs = epochs.max(1);
    if all.len() < 2 * epochs {
        return Err(format!(
            "{} epochs are needed, the run has {}",
            2 * epochs,
            all.len()
        ));
    }
    compare(&all[..epochs], &all[all.len() - epochs..])
}

/// One run against another at the same number of reward queries, so that the longer one has no advantage.
pub(super) fn lead(
    low: &Run,
    high: &Run,
    metric: &Metric,
    epochs: usize,
) -> Result<Comparison, String> {
    if let Some((set, name)) = metric.evaluated() {
        let (low, high) = (evaluations(&low.evals, set), evaluations(&high.evals, set));
        let mut pairs = high.iter().filter_map(|b| {
            let same = |a: &&EvalRows<'_>| a.reward_queries == b.reward_queries;
            Some((low.iter().find(same)?, b))
        });
        return match pairs.next_back() {
            Some((a, b)) if b.epoch > 0 => compare_paired(a, b, name),
            _ => Err(format!(
                "there are no evaluations of `{set}` after the same number of reward queries"
            )),
        };
    }
    let (low, high) = (
        rewards_by_epoch(&low.samples),
        rewards_by_epoch(&high.samples),
    );
    let epochs = epochs.max(1);
    let (low, high) = same_queries(&low, &high);
    let n = low.len().min(high.len());
    if n < epochs {
        return Err(format!("{epochs} epochs are needed, a run has {n}"));
    }
    compare(&low[low.len() - epochs..], &high[high.len() - epochs..])
}

type Epochs = [(u64, Vec<f64>)];

/// The longest prefixes of two runs that made the same number of reward queries.
fn same_queries<'a>(a: &'a Epochs, b: &'a Epochs) -> (&'a Epochs, &'a Epochs) {
    let totals = |epochs: &Epochs| -> Vec<usize> {
        let sum = |total: &mut usize, (_, rewards): &(u64, Vec<f64>)| {
            *total += rewards.len();
            Some(*total)
        };
        epochs.iter().scan(0, sum).collect()
    };
    let (ours, theirs) = (totals(a), totals(b));
    let common = ours.iter().rposition(|n| theirs.contains(n));
    let Some(i) = common else {
        return (&[], &[]);
    };
    let j = theirs.iter().position(|n| *n == ours[i]).unwrap_or(0);
    (&a[..=i], &b[..=j])
}

fn compare(first: &Epochs, second: &Epochs) -> Result<Comparison, String> {
    let pool = |epochs: &Epochs| -> Result<Vec<f64>, String> {
        for (epoch, rewards) in epochs {
            let bad = rewards.iter().filter(|r| !r.is_finite()).count();
            if bad > 0 {
                let n = rewards.len();
                return Err(format!(
                    "{bad} of {n} rewards of epoch {epoch} are not finite"
                ));
            }
        }
        let pooled: Vec<f64> = epochs.iter().flat_map(|(_, r)| r).copied().collect();
        if pooled.len() < 2 {
            return Err("two samples on each side are needed, there is one".to_owned());
        }
        Ok(pooled)
    };
    Comparison::unpaired(&pool(first)?, &pool(second)?).map_err(|e| e.to_string())
}

/// Two evaluations of the same set, image by image.
pub(crate) fn compare_paired(
    first: &EvalRows<'_>,
    second: &EvalRows<'_>,
    metric: Option<&str>,
) -> Result<Comparison, String> {
    let (before, after) = paired(first, second, metric)?;
    Comparison::paired(&before, &after).map_err(|e| e.to_string())
}

/// What the run evaluated instead, for a message.
fn evaluated(run: &Run, set: &str, n: usize) -> String {
    let known = sets(&run.evals);
    match known.is_empty() || known.contains(&set) {
        true => format!("the run has {n}"),
        false => format!("the run evaluated {}", known.join(", ")),
    }
}
