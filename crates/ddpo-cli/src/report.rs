//! Reports, figures and claims of runs, from their folders alone.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_eval::Svg;
use ddpo_eval::claims::ClaimsFile;
use ddpo_eval::figure::RewardFigure;
use ddpo_eval::pictures::{Png, ProgressSheet};
use ddpo_eval::report::{MetricChange, Pair, Report, RunSection, StandIn};
use ddpo_eval::runs::Run;
use ddpo_eval::table::Table;
use ddpo_reward::{Reward, RewardInfo};

use crate::args::ReportArgs;
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::folder;
use crate::record::{Record, check_claims, find};
use crate::rewards;
use crate::watch::read_sheet;

/// `ddpo report`.
pub fn run(args: &ReportArgs) -> Result<Exit> {
    let folders = find(&args.runs)?;
    let records = read(&folders)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| args.runs[0].join("report.html"));
    let folder = out.parent().unwrap_or(Path::new(""));
    let claims = write(&records, folder, &out, "")?;
    println!("{} runs, report in {}", records.len(), out.display());
    println!("{}", Table::of_verdicts(&claims.verdicts).for_terminal());
    Ok(Exit::Done)
}

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

/// Writes claims.json and figures into `folder`, and the report to `out`.
///
/// `command` is what to type to get the runs again; each run's own arguments when empty.
pub fn write(records: &[Record], folder: &Path, out: &Path, command: &str) -> Result<ClaimsFile> {
    let config = &records[0].config;
    let verdicts = check_claims(&config.claims, records);
    let claims = ClaimsFile::new(config.experiment.clone(), verdicts.clone());
    let info = rewards::info(&config.reward.kind).ok_or_else(|| {
        Failure::new(
            Exit::Data,
            format!("the run's reward `{}` is unknown", config.reward.kind),
        )
    })?;
    // Only what needs no service and no weights is scored again.
    let mut reward = rewards::at_hand(&config.reward.kind)?;
    let figures = figures(records, &info, &folder.join("figures"))?;
    let mut sections = Vec::new();
    for record in records {
        sections.push(section(record, folder, reward.as_deref_mut())?);
    }
    let command = if command.is_empty() {
        records[0].fact("command")
    } else {
        command.to_owned()
    };
    let report = Report {
        title: config.title.clone(),
        experiment: config.experiment.clone(),
        preset: records[0].fact("preset"),
        stand_in: stand_in(&records[0], &info),
        facts: facts(records, &info),
        verdicts,
        figures,
        runs: sections,
        command,
    };
    folder::write(&folder.join("claims.json"), &claims.to_json())?;
    folder::write(out, &report.html())?;
    Ok(claims)
}

/// The figures with their captions, written into `folder` as SVG and PNG.
fn figures(records: &[Record], reward: &RewardInfo, folder: &Path) -> Result<Vec<(Svg, String)>> {
    let first = &records[0];
    let mut title = format!("{}, {}", first.config.experiment, first.fact("preset"));
    if first.config.reward.stands_in_for.is_some() {
        title += &format!(": {}, a stand-in", first.config.reward.kind);
    }
    let runs: Vec<Run> = records.iter().map(|record| record.run.clone()).collect();
    let label = reward.label();
    let of_samples = RewardFigure::of_runs(&title, &label, &runs);
    let mut all = vec![(
        "reward",
        of_samples,
        "Mean reward of each epoch's training samples over reward queries.",
    )];
    if let Some(of_evals) = RewardFigure::of_evals(&title, &label, &runs) {
        all.push((
            "evaluation",
            of_evals,
            "Mean reward on the evaluation's prompts, which are drawn from the same noise each time.",
        ));
    }
    let doing = "cannot draw the report";
    fs::create_dir_all(folder).or_exit(Exit::Other, doing)?;
    let mut drawn = Vec::new();
    for (name, figure, caption) in all {
        let svg = figure.svg().or_exit(Exit::Other, doing)?;
        folder::write(&folder.join(format!("{name}.svg")), svg.as_str())?;
        let png = svg.png(2.0).or_exit(Exit::Other, doing)?;
        fs::write(folder.join(format!("{name}.png")), png).or_exit(Exit::Other, doing)?;
        drawn.push((svg, caption.to_owned()));
    }
    Ok(drawn)
}

fn section(
    record: &Record,
    folder: &Path,
    reward: Option<&mut (dyn Reward + '_)>,
) -> Result<RunSection> {
    let doing = "cannot draw the pictures of the run";
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
        if let Some(reward) = reward {
            pairs = before_and_after(sheet, reward)?;
        }
    }
    let link = record
        .path
        .strip_prefix(folder)
        .ok()
        .filter(|path| !path.as_os_str().is_empty());
    Ok(RunSection {
        title: format!("{}, seed {}", record.run.algorithm, record.run.seed),
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
            .or_exit(Exit::Reward, "cannot score pictures")
    };
    let (before, after) = (score(first)?, score(last)?);
    let png = |images, at| Png::of_image(images, at).or_exit(Exit::Other, "cannot draw a picture");
    let pair = |(at, prompt): (usize, &String)| {
        Ok(Pair {
            prompt: prompt.clone(),
            before: (png(first, at)?, f64::from(before[at])),
            after: (png(last, at)?, f64::from(after[at])),
        })
    };
    sheet.prompts.iter().enumerate().map(pair).collect()
}

fn stand_in(record: &Record, reward: &RewardInfo) -> Option<StandIn> {
    let paper = record.config.reward.stands_in_for.as_ref()?;
    Some(StandIn {
        used: reward.quantity.clone(),
        stands_for: format!("the paper's reward “{paper}”"),
        reason: format!(
            "That reward cannot run on the preset {}.",
            record.fact("preset")
        ),
    })
}

fn facts(records: &[Record], reward: &RewardInfo) -> Vec<(String, String)> {
    let first = &records[0];
    let seconds: f64 = records
        .iter()
        .filter_map(|record| record.manifest["seconds"].as_f64())
        .sum();
    let queries: usize = records.iter().map(|record| record.run.samples.len()).sum();
    let mut facts = vec![
        ("Reward".to_owned(), reward.label()),
        ("Reward queries".to_owned(), queries.to_string()),
        ("Time".to_owned(), format!("{:.0} s", seconds)),
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
    facts
}
