//! The claims of an experiment, and whether its runs meet them.
//!
//! A claim is data: it is part of the experiment's configuration, names its source, and is checked on the samples
//! that the run stored. The result records every number that was used. A claim that fails, or that cannot
//! be decided, is reported as not met.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, stats::Summary};

mod compare;
mod metric;

pub use crate::runs::Run;
pub use compare::Comparison;
pub use metric::Metric;

pub(crate) use compare::compare_paired;
use compare::{lead, rise};

/// Version of the layout of `claims.json`.
pub const CLAIMS_VERSION: u32 = 2;

/// A statement about an experiment's runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Claim {
    /// In every run, the metric at the end lies above that at the start by at least `standard_errors`
    /// standard errors of the difference.
    Rises {
        /// Where the statement comes from, such as a figure of the paper.
        source: String,
        /// What is compared.
        metric: Metric,
        /// The margin, in standard errors of the difference.
        standard_errors: f64,
        /// How many epochs at either end are pooled; ignored for evaluations.
        #[serde(default = "one")]
        epochs: usize,
    },
    /// In every run, the metric at the end lies below that at the start by at least `standard_errors`
    /// standard errors of the difference: reward hacking, as a held-out judge sees it.
    Falls {
        /// Where the statement comes from.
        source: String,
        /// What is compared.
        metric: Metric,
        /// The margin, in standard errors of the difference.
        standard_errors: f64,
        /// How many epochs at either end are pooled; ignored for evaluations.
        #[serde(default = "one")]
        epochs: usize,
    },
    /// For every seed that both algorithms ran, the metric of `better` ends above that of `worse` at the same
    /// number of reward queries, by at least `standard_errors` standard errors of the difference.
    Exceeds {
        /// Where the statement comes from.
        source: String,
        /// What is compared.
        metric: Metric,
        /// Algorithm that should end higher, such as `ddpo-is`.
        better: String,
        /// Algorithm that should end lower.
        worse: String,
        /// The margin, in standard errors of the difference.
        standard_errors: f64,
        /// How many epochs at the end are pooled; ignored for evaluations.
        #[serde(default = "one")]
        epochs: usize,
    },
}

/// Whether a claim holds for one run (or one pair of runs of the same seed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimResult {
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
    /// Why it could not be decided, if so.
    pub note: Option<String>,
}

/// Content of `claims.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsFile {
    /// [`CLAIMS_VERSION`].
    pub version: u32,
    /// The experiment's name, such as `compressibility`.
    pub experiment: String,
    /// Every claim, checked.
    pub verdicts: Vec<ClaimResult>,
}

/// Checks claims, in their order.
pub fn check(claims: &[Claim], runs: &[Run]) -> Vec<ClaimResult> {
    claims.iter().flat_map(|claim| claim.check(runs)).collect()
}

impl Claim {
    /// One result per run or pair of runs; a single one that is not met if there is no run to check.
    pub fn check(&self, runs: &[Run]) -> Vec<ClaimResult> {
        match self {
            Self::Rises { metric, epochs, .. } | Self::Falls { metric, epochs, .. } => runs
                .iter()
                .map(|run| self.verdict(&run.algorithm, run.seed, rise(run, metric, *epochs)))
                .collect(),
            Self::Exceeds {
                metric,
                better,
                worse,
                epochs,
                ..
            } => self.check_pairs(runs, (better, worse), &|low, high| {
                lead(low, high, metric, *epochs)
            }),
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
            Self::Falls {
                metric,
                standard_errors,
                ..
            } => format!(
                "{} falls below its start by at least {standard_errors} standard errors",
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

    /// The two algorithms whose runs it compares, if it compares two.
    pub fn compared(&self) -> Option<[&str; 2]> {
        match self {
            Self::Exceeds { better, worse, .. } => Some([better, worse]),
            Self::Rises { .. } | Self::Falls { .. } => None,
        }
    }

    /// Where the statement comes from.
    pub fn source(&self) -> &str {
        match self {
            Self::Rises { source, .. }
            | Self::Falls { source, .. }
            | Self::Exceeds { source, .. } => source,
        }
    }

    /// The margin, in standard errors of the difference.
    pub fn needed(&self) -> f64 {
        match self {
            Self::Rises {
                standard_errors, ..
            }
            | Self::Falls {
                standard_errors, ..
            }
            | Self::Exceeds {
                standard_errors, ..
            } => *standard_errors,
        }
    }

    fn check_pairs(
        &self,
        runs: &[Run],
        (better, worse): (&str, &str),
        compare: &dyn Fn(&Run, &Run) -> Result<Comparison, String>,
    ) -> Vec<ClaimResult> {
        let of = |name: &str, seed: Option<u64>| {
            runs.iter()
                .filter(move |r| seed.is_none_or(|s| s == r.seed))
                .find(|r| r.algorithm == name)
        };
        let pairs: Vec<ClaimResult> = runs
            .iter()
            .filter(|run| run.algorithm == better)
            .filter_map(|high| {
                let low = of(worse, Some(high.seed))?;
                Some(self.verdict(better, high.seed, compare(low, high)))
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

    fn verdict(
        &self,
        algorithm: &str,
        seed: u64,
        compared: Result<Comparison, String>,
    ) -> ClaimResult {
        let (met, comparison, note) = match compared {
            Ok(c) => {
                let met = match self {
                    Self::Falls { .. } => c.falls_short(self.needed()),
                    _ => c.exceeds(self.needed()),
                };
                (met, Some(c), None)
            }
            Err(reason) => (false, None, Some(reason)),
        };
        ClaimResult {
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

impl ClaimResult {
    /// The numbers in one line: `-2.10 ± 0.03 → -1.80 ± 0.03, 7.1 standard errors`, for paired samples with the
    /// difference and its own standard error, or why there are none.
    pub fn numbers(&self) -> String {
        let Some(c) = &self.comparison else {
            return self.note.clone().unwrap_or_default();
        };
        let side = |s: &Summary| format!("{} ± {}", rounded(s.mean), rounded(s.standard_error));
        let margin = match c.standard_errors {
            Some(n) => format!("{n:.1} standard errors"),
            None => "no spread".to_owned(),
        };
        let by = match c.paired {
            true => {
                let error = rounded(c.standard_error);
                format!("paired {} ± {error}, ", signed(c.difference))
            }
            false => String::new(),
        };
        format!("{} → {}, {by}{margin}", side(&c.first), side(&c.second))
    }
}

impl ClaimsFile {
    /// From these results, in the current version.
    pub fn new(experiment: impl Into<String>, verdicts: Vec<ClaimResult>) -> Self {
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

/// [`rounded`], always with a sign.
fn signed(value: f64) -> String {
    let sign = if value >= 0.0 { "+" } else { "" };
    format!("{sign}{}", rounded(value))
}

fn one() -> usize {
    1
}

#[cfg(test)]
mod tests;
