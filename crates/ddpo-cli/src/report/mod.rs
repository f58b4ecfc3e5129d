//! Reports, figures and claims of runs, from their folders alone.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_eval::claims::ClaimsFile;
use ddpo_eval::evals::{metric_names, sets};
use ddpo_eval::hacking_onset::OnsetRule;
use ddpo_eval::images::{Png, ProgressSheet};
use ddpo_eval::report::{IndexEntry, MetricChange, Pair, Report, RunSection, StandIn};
use ddpo_eval::runs::Run;
use ddpo_reward::{Reward, RewardInfo};

use crate::failure::{Exit, Failure, OrExit, Result};
use crate::output;
use crate::rewards;
use crate::train::read_sheet;

mod figures;
mod record;

pub use record::find;

use record::{Record, check_claims};

/// All runs of one experiment.
pub fn read(folders: &[PathBuf]) -> Result<Vec<Record>> {
    let records = folders
        .iter()
        .map(|path| Record::read(path))
        .collect::<Result<Vec<_>>>()?;
    let first = &records[0].config.experiment;
    match records
        .iter()
        .find(|record| record.config.experiment != *first)
    {
        None => Ok(records),
        Some(other) => Err(Failure::config(format!(
            "{} is a run of {}, {} of {first}: one report has one experiment",
            other.path.display(),
            other.config.experiment,
            records[0].path.display(),
        ))),
    }
}

/// A report that is written, and what an index over several takes from it.
pub struct Written {
    /// Every claim, checked.
    pub claims: ClaimsFile,
    /// Its part of an index.
    pub entry: IndexEntry,
}

/// Writes claims.json and figures into `folder`, and the report to `out`.
///
/// `command` is what to type to get the runs again; each run's own arguments when empty.
pub fn write(records: &[Record], folder: &Path, out: &Path, command: &str) -> Result<Written> {
    let config = &records[0].config;
    let runs: Vec<Run> = records.iter().map(|record| record.run.clone()).collect();
    let verdicts = check_claims(&config.claims, &runs);
    let claims = ClaimsFile::new(config.experiment.clone(), verdicts.clone());
    let figures = figures::draw(records, &folder.join("figures"))?;
    let sections = records
        .iter()
        .map(|record| section(record, folder))
        .collect::<Result<_>>()?;
    let command = if command.is_empty() {
        records[0].fact("command")
    } else {
        command.to_owned()
    };
    let report = Report {
        title: config.title.clone(),
        experiment: config.experiment.clone(),
        preset: records[0].fact("preset"),
        about: config.about.clone(),
        stand_ins: stand_ins(records)?,
        facts: facts(records)?,
        verdicts,
        figures: figures.rewards,
        panel: figures.panel,
        early_stops: records.iter().filter_map(early_stop).collect(),
        runs: sections,
        command,
    };
    output::write(&folder.join("claims.json"), &claims.to_json())?;
    output::write(out, &report.html())?;
    let entry = IndexEntry {
        experiment: report.experiment,
        title: report.title,
        about: report.about,
        stand_ins: report.stand_ins,
        verdicts: report.verdicts,
        figures: report.figures,
        panel: report.panel,
        early_stops: report.early_stops,
        progress: progress(records, report.runs),
        link: String::new(),
        n_runs: records.len(),
        seconds: seconds(records),
    };
    Ok(Written { claims, entry })
}

/// Images of the first run of each algorithm.
fn progress(records: &[Record], sections: Vec<RunSection>) -> Vec<(Png, String)> {
    let mut shown = Vec::new();
    let first = |(record, section): (&Record, RunSection)| {
        let name = record.run.algorithm.clone();
        let (png, caption) = section.progress.filter(|_| !shown.contains(&name))?;
        shown.push(name);
        Some((png, format!("{}. {caption}", section.title)))
    };
    records.iter().zip(sections).filter_map(first).collect()
}

/// Wall time of these runs, added up.
fn seconds(records: &[Record]) -> f64 {
    let times = records.iter().map(|it| it.manifest["seconds"].as_f64());
    times.flatten().sum()
}

/// What the run's reward measures.
fn reward_info(record: &Record) -> Result<RewardInfo> {
    let kind = &record.config.reward.kind;
    rewards::info(kind)
        .ok_or_else(|| Failure::new(Exit::Data, format!("the run's reward `{kind}` is unknown")))
}

/// Whether and where reward hacking begins, as a sentence; `None` without a held-out judge.
fn early_stop(record: &Record) -> Option<(String, String)> {
    let eval = &record.config.eval;
    let stop_rule = eval.stop_rule.as_ref()?;
    let rule = OnsetRule {
        // A run on prompts of its own names no set.
        set: sets(&record.run.evals).first()?,
        judge: &stop_rule.judge,
        standard_errors: stop_rule.standard_errors,
    };
    let statement = match rule.apply(&record.run.evals) {
        Ok(found) => found.statement(&rule),
        Err(reason) => reason,
    };
    let is_measured = metric_names(&record.run.evals).contains(&rule.judge);
    is_measured.then(|| (title(record), statement))
}

fn title(record: &Record) -> String {
    format!("{}, seed {}", record.run.algorithm, record.run.seed)
}

fn section(record: &Record, folder: &Path) -> Result<RunSection> {
    let doing = "cannot draw the images of the run";
    let prompts = &record.config.progress.prompts;
    let sheet = read_sheet(&record.path, prompts).or_exit(Exit::Data, doing)?;
    let (mut progress, mut pairs) = (None, Vec::new());
    if let Some(sheet) = &sheet {
        let png = sheet.png().or_exit(Exit::Other, doing)?;
        fs::write(record.path.join("samples/progress.png"), png.bytes())
            .or_exit(Exit::Other, doing)?;
        progress = Some((
            png,
            "The same prompts from the same noise through training.".into(),
        ));
        // Only what needs no service and no weights of its own is scored again.
        if let Some(mut reward) = rewards::at_hand(&record.config.reward.kind)? {
            pairs = before_and_after(sheet, reward.as_mut())?;
        }
    }
    let link = record
        .path
        .strip_prefix(folder)
        .ok()
        .filter(|path| !path.as_os_str().is_empty());
    Ok(RunSection {
        title: title(record),
        link: link.map(|path| path.join("report.html").display().to_string()),
        metrics: MetricChange::of(&record.run.metrics),
        progress,
        pairs,
        config: record.config_text.clone(),
        manifest: serde_json::to_string_pretty(&record.manifest).unwrap_or_default(),
    })
}

fn before_and_after(sheet: &ProgressSheet, reward: &mut dyn Reward) -> Result<Vec<Pair>> {
    let (Some((_, first)), Some((_, last))) = (sheet.columns.first(), sheet.columns.last()) else {
        return Ok(Vec::new());
    };
    let prompts = ddpo_reward::prompts::numbered(sheet.prompts.iter().cloned());
    let mut score = |images| {
        reward
            .score(images, &prompts)
            .or_exit(Exit::Reward, "cannot score images")
    };
    let (before, after) = (score(first)?, score(last)?);
    let png = |images, at| Png::of_image(images, at).or_exit(Exit::Other, "cannot draw an image");
    let pair = |(at, prompt): (usize, &String)| {
        Ok(Pair {
            prompt: prompt.clone(),
            before: (png(first, at)?, f64::from(before[at])),
            after: (png(last, at)?, f64::from(after[at])),
        })
    };
    sheet.prompts.iter().enumerate().map(pair).collect()
}

/// One notice for each reward that is not the paper's.
fn stand_ins(records: &[Record]) -> Result<Vec<StandIn>> {
    let of = |record: &Record| {
        let paper = record.config.reward.stands_in_for.as_ref()?;
        let preset = record.fact("preset");
        Some(reward_info(record).map(|info| StandIn {
            used: info.quantity,
            stands_for: format!("the paper's reward “{paper}”"),
            reason: format!("That reward cannot run on the preset {preset}."),
        }))
    };
    let all: Result<Vec<StandIn>> = records.iter().filter_map(of).collect();
    Ok(distinct(all?))
}

/// Each once, in the order in which they first appear.
fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

fn facts(records: &[Record]) -> Result<Vec<(String, String)>> {
    let first = &records[0];
    let queries: usize = records.iter().map(|record| record.run.samples.len()).sum();
    let labels: Result<Vec<String>> = records
        .iter()
        .map(|record| Ok(reward_info(record)?.label()))
        .collect();
    let mut facts = vec![
        ("Reward".to_owned(), distinct(labels?).join("; ")),
        ("Reward queries".to_owned(), queries.to_string()),
        ("Time".to_owned(), format!("{:.0} s", seconds(records))),
    ];
    for (label, name) in [
        ("Model", "model"),
        ("Trained parameters", "trained_parameters"),
        ("Device", "device"),
        ("ddpo", "ddpo"),
        ("Commit", "commit"),
    ] {
        let value = first.fact(name);
        if !value.is_empty() {
            facts.push((label.to_owned(), value));
        }
    }
    Ok(facts)
}
