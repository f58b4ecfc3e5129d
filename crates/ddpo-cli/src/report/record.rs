//! A run as its folder tells it, for reports: nothing here needs a model.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_eval::claims::{Claim, ClaimResult};
use ddpo_eval::evals::EvalRow;
use ddpo_eval::report::About;
use ddpo_eval::runs::{MetricsTable, Run, read_samples};
use serde::Deserialize;
use serde_json::Value;

use crate::config::ClaimRow;
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::output::{CONFIG, MANIFEST};

/// A run that was read from its folder.
#[derive(Debug)]
pub struct Record {
    /// Its folder.
    pub path: PathBuf,
    /// What it was, as far as reports need it.
    pub config: RunConfig,
    /// `config.toml` as written.
    pub config_text: String,
    /// `manifest.json`.
    pub manifest: Value,
    /// Its tables.
    pub run: Run,
}

/// Keys of `config.toml` that reports need; all others are shown as text only.
#[derive(Debug, Clone, Deserialize)]
pub struct RunConfig {
    /// Name of the experiment.
    pub experiment: String,
    /// Its title.
    pub title: String,
    /// The variant of the experiment that the run is.
    #[serde(alias = "arm")]
    pub variant: Option<String>,
    /// `[run]`.
    pub run: RunPart,
    /// `[rl]`.
    pub rl: RlPart,
    /// `[reward]`.
    pub reward: RewardPart,
    /// `[about]`.
    #[serde(default)]
    pub about: About,
    /// `[progress]`.
    pub progress: ProgressPart,
    /// `[eval]`.
    #[serde(default)]
    pub eval: EvalPart,
    /// `[[claims]]`.
    #[serde(default)]
    pub claims: Vec<ClaimRow>,
}

/// Part of `[run]`.
#[derive(Debug, Clone, Deserialize)]
pub struct RunPart {
    /// Of all randomness.
    pub seed: u64,
}

/// Part of `[rl]`.
#[derive(Debug, Clone, Deserialize)]
pub struct RlPart {
    /// Which estimator.
    pub algorithm: String,
}

/// Part of `[reward]`.
#[derive(Debug, Clone, Deserialize)]
pub struct RewardPart {
    /// Which reward.
    pub kind: String,
    /// The paper's reward that it stands in for.
    pub stands_in_for: Option<String>,
}

/// Part of `[progress]`.
#[derive(Debug, Clone, Deserialize)]
pub struct ProgressPart {
    /// Fixed prompts.
    pub prompts: Vec<String>,
}

/// Part of `[eval]`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EvalPart {
    /// When reward and judge have parted.
    pub stop_rule: Option<StopRulePart>,
}

/// `[eval.stop_rule]`.
#[derive(Debug, Clone, Deserialize)]
pub struct StopRulePart {
    /// The measure that should not fall.
    pub judge: String,
    /// How many standard errors of the paired difference make a change.
    pub standard_errors: f64,
}

impl Record {
    /// Reads a run's folder.
    pub fn read(path: &Path) -> Result<Self> {
        let config_text = text(&path.join(CONFIG))?;
        let config: RunConfig = toml::from_str(&config_text).or_exit(
            Exit::Data,
            format!("{} is damaged", path.join(CONFIG).display()),
        )?;
        let manifest = serde_json::from_str(&text(&path.join(MANIFEST))?).or_exit(
            Exit::Data,
            format!("{} is damaged", path.join(MANIFEST).display()),
        )?;
        let run = Run {
            algorithm: config
                .variant
                .as_ref()
                .unwrap_or(&config.rl.algorithm)
                .clone(),
            seed: config.run.seed,
            metrics: MetricsTable::read(&path.join("metrics.csv"))
                .or_exit(Exit::Data, "cannot read the run's metrics")?,
            samples: read_samples(&path.join("samples.csv"))
                .or_exit(Exit::Data, "cannot read the run's samples")?,
            evals: evals(&path.join("eval.csv"))?,
        };
        Ok(Self {
            path: path.to_owned(),
            config,
            config_text,
            manifest,
            run,
        })
    }

    /// A field of the manifest as text.
    pub fn fact(&self, name: &str) -> String {
        match &self.manifest[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// Run folders at these paths or one or two levels below, in order of their names.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        search(path, 2, &mut found);
        if found.len() == before {
            let message = format!(
                "{} is no run: it has no {CONFIG}, nor has a folder in it",
                path.display()
            );
            return Err(Failure::new(Exit::Data, message));
        }
    }
    Ok(found)
}

fn search(path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if path.join(CONFIG).is_file() {
        found.push(path.to_owned());
        return;
    }
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    if depth > 0 {
        folders
            .iter()
            .for_each(|folder| search(folder, depth - 1, found));
    }
}

/// Every claim against the runs it speaks of; none about algorithms that are not there, as no one asked for them.
pub fn check_claims(claims: &[ClaimRow], runs: &[Run]) -> Vec<ClaimResult> {
    let ran = |name: &str| runs.iter().any(|run| run.algorithm == name);
    let asked_for = claims.iter().filter(|row| row.names().all(ran));
    let verdicts = asked_for.flat_map(|row| {
        let speaks_of = |run: &&Run| {
            row.algorithm
                .as_ref()
                .is_none_or(|name| *name == run.algorithm)
        };
        let runs: Vec<Run> = runs.iter().filter(speaks_of).cloned().collect();
        let check: &Claim = &row.check;
        check.check(&runs)
    });
    verdicts.collect()
}

/// A run without evaluation has no such table.
fn evals(path: &Path) -> Result<Vec<EvalRow>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    ddpo_eval::evals::read(path).or_exit(Exit::Data, "cannot read the run's evaluations")
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).or_exit(Exit::Data, format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_on_algorithms_that_did_not_run_are_not_checked() {
        let claims: Vec<ClaimRow> = ["rwr", "ddpo-sf"]
            .map(|worse| ClaimRow {
                algorithm: None,
                check: Claim::Exceeds {
                    source: "Fig. 4".to_owned(),
                    metric: ddpo_eval::claims::Metric::Reward,
                    better: "ddpo-is".to_owned(),
                    worse: worse.to_owned(),
                    standard_errors: 3.0,
                    epochs: 1,
                },
            })
            .into();
        let run = |algorithm: &str| Run {
            algorithm: algorithm.to_owned(),
            seed: 42,
            metrics: MetricsTable::default(),
            samples: Vec::new(),
            evals: Vec::new(),
        };
        assert!(check_claims(&claims, &[run("ddpo-is")]).is_empty());
        // Those that ran have no samples: a claim that is checked is not met.
        let verdicts = check_claims(&claims, &[run("ddpo-is"), run("rwr")]);
        assert_eq!(verdicts.len(), 1);
        assert!(!verdicts[0].met);
    }
}
