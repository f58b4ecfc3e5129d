//! The figures of a report, with their captions.

use std::fs;
use std::path::Path;

use ddpo_eval::Svg;
use ddpo_eval::evals::metric_names;
use ddpo_eval::figure::RewardFigure;
use ddpo_eval::runs::Run;

use super::record::Record;
use super::{distinct, reward_info};
use crate::config::Measure;
use crate::failure::{Exit, OrExit, Result};

/// What a report shows over reward queries.
pub struct Figures {
    /// Rewards: of training's samples, and of evaluations; a pair for each reward of the experiment.
    pub rewards: Vec<(Svg, String)>,
    /// What else was measured of evaluations.
    pub panel: Vec<(Svg, String)>,
}

/// Draws all of them, and writes them into `folder` as SVG and PNG.
pub fn draw(records: &[Record], folder: &Path) -> Result<Figures> {
    fs::create_dir_all(folder).or_exit(Exit::Other, DOING)?;
    let kinds = distinct(records.iter().map(|it| it.config.reward.kind.as_str()));
    let mut rewards = Vec::new();
    for kind in &kinds {
        let of_kind: Vec<&Record> = records
            .iter()
            .filter(|record| record.config.reward.kind == *kind)
            .collect();
        // One reward: the names of files that have always been.
        let suffix = match kinds.len() {
            1 => String::new(),
            _ => format!("-{kind}"),
        };
        rewards.extend(of_reward(&of_kind, &suffix, folder)?);
    }
    Ok(Figures {
        rewards,
        panel: panel(records, folder)?,
    })
}

const DOING: &str = "cannot draw the report";

fn of_reward(records: &[&Record], suffix: &str, folder: &Path) -> Result<Vec<(Svg, String)>> {
    let first = records[0];
    let mut title = title(first);
    if first.config.reward.stands_in_for.is_some() {
        title += &format!(": {}, a stand-in", first.config.reward.kind);
    }
    let runs = runs(records.iter().copied());
    let label = reward_info(first)?.label();
    let mut drawn = vec![write(
        &RewardFigure::of_runs(&title, &label, &runs),
        &format!("reward{suffix}"),
        folder,
        "Mean reward of each epoch's training samples over reward queries.",
    )?];
    if let Some(of_evals) = RewardFigure::of_evals(&title, &label, &runs, None) {
        drawn.push(write(
            &of_evals,
            &format!("evaluation{suffix}"),
            folder,
            "Mean reward on the evaluation's prompts, which are drawn from the same noise each time.",
        )?);
    }
    Ok(drawn)
}

fn panel(records: &[Record], folder: &Path) -> Result<Vec<(Svg, String)>> {
    let runs = runs(records);
    let mut drawn = Vec::new();
    for name in distinct(runs.iter().flat_map(|run| metric_names(&run.evals))) {
        let label = match Measure::by_name(name) {
            Some(measure) => measure.label(),
            None => name,
        };
        let title = title(&records[0]);
        if let Some(figure) = RewardFigure::of_evals(title, label, &runs, Some(name)) {
            let caption = format!("The evaluation's images by {name}.");
            drawn.push(write(&figure, &format!("panel-{name}"), folder, &caption)?);
        }
    }
    Ok(drawn)
}

fn title(record: &Record) -> String {
    format!("{}, {}", record.config.experiment, record.fact("preset"))
}

fn runs<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Run> {
    records.into_iter().map(|it| it.run.clone()).collect()
}

fn write(figure: &RewardFigure, name: &str, folder: &Path, caption: &str) -> Result<(Svg, String)> {
    let svg = figure.svg().or_exit(Exit::Other, DOING)?;
    crate::output::write(&folder.join(format!("{name}.svg")), svg.as_str())?;
    let png = svg.png(2.0).or_exit(Exit::Other, DOING)?;
    fs::write(folder.join(format!("{name}.png")), png).or_exit(Exit::Other, DOING)?;
    Ok((svg, caption.to_owned()))
}
