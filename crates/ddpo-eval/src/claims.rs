//! What an experiment states must come out, and whether it did.
//!
//! A claim is data: it stands in the experiment's configuration with its source, is checked on the samples
//! that the run stored, and its verdict keeps every number that was used. A claim that fails, or that cannot
//! be decided, is reported as not met.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, runs::rewards_by_epoch, stats::Summary};

pub use crate::runs::Run;

/// Version of the layout of `claims.json`.
pub const CLAIMS_VERSION: u32 = 1;

/// A statement about an experiment's runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Claim {
    /// In every run, the mean over the last epochs lies above the mean over the first ones by at least
    /// `standard_errors` combined standard errors, `sqrt(se_first² + se_last²)`.
    Rises {
        /// Where the statement comes from, such as a figure of the paper.
        source: String,
        /// What is compared.
        metric: Metric,
        /// The margin, in combined standard errors.
        standard_errors: f64,
        /// How many epochs at either end are pooled.
        #[serde(default = "one")]
        epochs: usize,
    },
    /// For every seed that both algorithms ran, the mean over the last epochs of `better` lies above that
    /// of `worse` by at least `standard_errors` combined standard errors.
    Exceeds {
        /// Where the statement comes from.
        source: String,
        /// What is compared.
        metric: Metric,
        /// Algorithm that should end higher, such as `ddpo-is`.
        better: String,
        /// Algorithm that should end lower.
        worse: String,
        /// The margin, in combined standard errors.
        standard_errors: f64,
        /// How many epochs at the end are pooled.
        #[serde(default = "one")]
        epochs: usize,
    },
}

/// A quantity that claims speak about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Metric {
    /// Mean reward of an epoch's samples, from the rows of `samples.csv`.
    #[serde(rename = "reward/mean")]
    Reward,
}

/// Whether a claim holds for one run (or one pair of runs of the same seed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The claim itself.
    pub claim: Claim,
    /// The algorithm it was checked for.
    pub algorithm: String,
    /// The seed it was checked for.
    pub seed: u64,
    /// The claim as a sentence.
    pub statement: String,
    /// Whether it holds.
    pub met: bool,
    /// The numbers; absent if it could not be decided.
    pub comparison: Option<Comparison>,
    /// Why it could not be decided.
    pub note: Option<String>,
}

/// Two means and what lies between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The start of the run, or the algorithm that should be lower.
    pub first: Summary,
    /// The end of the run, or the algorithm that should be higher.
    pub second: Summary,
    /// Mean of the second minus mean of the first.
    pub difference: f64,
    /// `sqrt(se_first² + se_second²)`.
    pub standard_error: f64,
    /// `difference / standard_error`; absent if no value varied.
    pub standard_errors: Option<f64>,
}

/// Content of `claims.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsFile {
    /// [`CLAIMS_VERSION`].
    pub version: u32,
    /// Such as `compressibility`.
    pub experiment: String,
    /// Every claim, checked.
    pub verdicts: Vec<Verdict>,
}

/// Checks claims, in their order.
pub fn check(claims: &[Claim], runs: &[Run]) -> Vec<Verdict> {
    claims.iter().flat_map(|claim| claim.check(runs)).collect()
}

impl Claim {
    /// One verdict a run, or a pair of runs; one that is not met if there is none to check.
    pub fn check(&self, runs: &[Run]) -> Vec<Verdict> {
        match self {
            Self::Rises { epochs, .. } => runs
                .iter()
                .map(|run| self.verdict(&run.algorithm, run.seed, rise(run, *epochs)))
                .collect(),
            Self::Exceeds {
                better,
                worse,
                epochs,
                ..
            } => self.check_pairs(runs, better, worse, *epochs),
        }
    }

    /// The claim as a sentence.
    pub fn statement(&self) -> String {
        match self {
            Self::Rises {
                metric,
                standard_errors,
                ..
            } => format!(
                "{} rises above its start by at least {standard_errors} standard errors",
                metric.name()
            ),
            Self::Exceeds {
                metric,
                better,
                worse,
                standard_errors,
                ..
            } => format!(
                "{} of {better} ends above {worse} by at least {standard_errors} standard errors",
                metric.name()
            ),
        }
    }

    /// Where the statement comes from.
    pub fn source(&self) -> &str {
        match self {
            Self::Rises { source, .. } | Self::Exceeds { source, .. } => source,
        }
    }

    /// The margin, in combined standard errors.
    pub fn needed(&self) -> f64 {
        match self {
            Self::Rises {
                standard_errors, ..
            }
            | Self::Exceeds {
                standard_errors, ..
            } => *standard_errors,
        }
    }

    fn check_pairs(&self, runs: &[Run], better: &str, worse: &str, epochs: usize) -> Vec<Verdict> {
        let of = |name: &str, seed: Option<u64>| {
            runs.iter()
                .filter(move |r| seed.is_none_or(|s| s == r.seed))
                .find(|r| r.algorithm == name)
        };
        let pairs: Vec<Verdict> = runs
            .iter()
            .filter(|run| run.algorithm == better)
            .filter_map(|high| {
                let low = of(worse, Some(high.seed))?;
                let compared = lead(low, high, epochs);
                Some(self.verdict(better, high.seed, compared))
            })
            .collect();
        if !pairs.is_empty() {
            return pairs;
        }
        let reason = match (of(better, None), of(worse, None)) {
            (Some(_), Some(_)) => format!("no seed was run with both {better} and {worse}"),
            (Some(_), None) => format!("there is no run of {worse}"),
            _ => format!("there is no run of {better}"),
        };
        vec![self.verdict(better, 0, Err(reason))]
    }

    fn verdict(&self, algorithm: &str, seed: u64, compared: Result<Comparison, String>) -> Verdict {
        let (met, comparison, note) = match compared {
            Ok(c) => (c.exceeds(self.needed()), Some(c), None),
            Err(reason) => (false, None, Some(reason)),
        };
        Verdict {
            claim: self.clone(),
            algorithm: algorithm.to_owned(),
            seed,
            statement: self.statement(),
            met,
            comparison,
            note,
        }
    }
}

impl Metric {
    /// As in `metrics.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reward => "reward/mean",
        }
    }
}

impl Comparison {
    fn of(first: &[f64], second: &[f64]) -> Result<Self> {
        let (first, second) = (Summary::of(first)?, Summary::of(second)?);
        let difference = second.mean - first.mean;
        let standard_error = first.standard_error.hypot(second.standard_error);
        Ok(Self {
            first,
            second,
            difference,
            standard_error,
            standard_errors: (standard_error > 0.0).then(|| difference / standard_error),
        })
    }

    /// Whether the second is higher by that many standard errors; without any spread, higher at all.
    fn exceeds(&self, standard_errors: f64) -> bool {
        self.difference > 0.0 && self.standard_errors.is_none_or(|n| n >= standard_errors)
    }
}

impl Verdict {
    /// The numbers in one line: `-2.10 ± 0.03 → -1.80 ± 0.03, 7.1 standard errors`, or why there are none.
    pub fn numbers(&self) -> String {
        let Some(c) = &self.comparison else {
            return self.note.clone().unwrap_or_default();
        };
        let side = |s: &Summary| format!("{} ± {}", rounded(s.mean), rounded(s.standard_error));
        let margin = match c.standard_errors {
            Some(n) => format!("{n:.1} standard errors"),
            None => "no spread".to_owned(),
        };
        format!("{} → {}, {margin}", side(&c.first), side(&c.second))
    }
}

impl ClaimsFile {
    /// Of these verdicts, in the present version.
    pub fn new(experiment: impl Into<String>, verdicts: Vec<Verdict>) -> Self {
        Self {
            version: CLAIMS_VERSION,
            experiment: experiment.into(),
            verdicts,
        }
    }

    /// Whether every claim holds.
    pub fn all_met(&self) -> bool {
        self.verdicts.iter().all(|v| v.met)
    }

    /// As indented JSON.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("strings, numbers and lists have a JSON form");
        text.push('\n');
        text
    }

    /// Reads `claims.json`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Mismatch`] if the file is of another version or not of this layout.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let file: Self = serde_json::from_str(&text)
            .map_err(|e| Error::mismatch(path.display().to_string(), "a claims file", e))?;
        if file.version != CLAIMS_VERSION {
            return Err(Error::mismatch(
                format!("{}: version", path.display()),
                CLAIMS_VERSION,
                file.version,
            ));
        }
        Ok(file)
    }
}

/// Three decimals, fewer for large numbers.
pub(crate) fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn one() -> usize {
    1
}

fn rise(run: &Run, epochs: usize) -> Result<Comparison, String> {
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

fn lead(low: &Run, high: &Run, epochs: usize) -> Result<Comparison, String> {
    let (low, high) = (
        rewards_by_epoch(&low.samples),
        rewards_by_epoch(&high.samples),
    );
    let epochs = epochs.max(1);
    let n = low.len().min(high.len());
    if n < epochs {
        return Err(format!("{epochs} epochs are needed, a run has {n}"));
    }
    // At the same epoch, so that a longer run has no head start.
    compare(&low[n - epochs..n], &high[n - epochs..n])
}

fn compare(first: &[(u64, Vec<f64>)], second: &[(u64, Vec<f64>)]) -> Result<Comparison, String> {
    let pool = |epochs: &[(u64, Vec<f64>)]| -> Result<Vec<f64>, String> {
        for (epoch, rewards) in epochs {
            let bad = rewards.iter().filter(|r| !r.is_finite()).count();
            if bad > 0 {
                let n = rewards.len();
                return Err(format!(
                    "{bad} of {n} rewards of epoch {epoch} are no numbers"
                ));
            }
        }
        let pooled: Vec<f64> = epochs.iter().flat_map(|(_, r)| r).copied().collect();
        if pooled.len() < 2 {
            return Err("two samples on each side are needed, there is one".to_owned());
        }
        Ok(pooled)
    };
    Comparison::of(&pool(first)?, &pool(second)?).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
