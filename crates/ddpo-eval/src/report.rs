//! The report of one or several runs of an experiment: a single HTML file that loads nothing.
//!
//! Images are `data:` URLs, figures are inline SVG, the style sheet is part of the file, and there is no
//! script. Every text is escaped where it is inserted, since prompts, configurations and file names may be hostile.

use maud::{Markup, html};

use crate::{
    Svg,
    claims::{ClaimResult, rounded},
    images::Png,
    runs::MetricsTable,
};

mod about;
mod html;
mod index;

pub use about::{About, StandIn};
pub use index::{Index, IndexEntry};

use html::{figure, notice, other_metrics, page, relative, sheet, verdict_table};

/// Everything that a report shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Headline, such as `Compressibility`.
    pub title: String,
    /// Name of the experiment, such as `compressibility`.
    pub experiment: String,
    /// Name of the preset, such as `pocket`.
    pub preset: String,
    /// The experiment in the paper and here.
    pub about: About,
    /// Rewards that are not the paper's, shown as notices at the top.
    pub stand_ins: Vec<StandIn>,
    /// Names and values, such as model, reward, device and duration.
    pub facts: Vec<(String, String)>,
    /// The results of all claims, over all runs.
    pub verdicts: Vec<ClaimResult>,
    /// Figures with captions.
    pub figures: Vec<(Svg, String)>,
    /// Figures of other metrics than the reward, with captions; smaller.
    pub panel: Vec<(Svg, String)>,
    /// For each run, whether and where reward hacking begins, as a sentence.
    pub early_stops: Vec<(String, String)>,
    /// One run, or several of one experiment.
    pub runs: Vec<RunSection>,
    /// The command that reproduces this report.
    pub command: String,
}

/// One run's part of the report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunSection {
    /// The algorithm and seed, such as `ddpo-is, seed 0`.
    pub title: String,
    /// The run's own report relative to this file, where there is one.
    pub link: Option<String>,
    /// Metrics in the first and the last epoch.
    pub metrics: Vec<MetricChange>,
    /// Images through training, with a caption.
    pub progress: Option<(Png, String)>,
    /// The same prompts before and after.
    pub pairs: Vec<Pair>,
    /// The resolved configuration as written.
    pub config: String,
    /// The manifest as written.
    pub manifest: String,
}

/// A metric in the first and in the last epoch of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricChange {
    /// Such as `reward/mean`.
    pub name: String,
    /// In the first epoch.
    pub first: f64,
    /// In the last epoch.
    pub last: f64,
}

/// Images of one prompt before and after training, from the same noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The prompt.
    pub prompt: String,
    /// Image and reward before.
    pub before: (Png, f64),
    /// Image and reward after.
    pub after: (Png, f64),
}

impl MetricChange {
    /// Every column except `epoch`; empty for a run without epochs.
    pub fn of(metrics: &MetricsTable) -> Vec<Self> {
        let change = |name: &String| {
            let values = metrics.column(name)?;
            Some(Self {
                name: name.clone(),
                first: *values.first()?,
                last: *values.last()?,
            })
        };
        let columns = metrics.columns().iter().filter(|name| *name != "epoch");
        columns.filter_map(change).collect()
    }
}

impl Report {
    /// The whole file.
    pub fn html(&self) -> String {
        page(&self.title, self.body())
    }

    fn body(&self) -> Markup {
        html! {
            h1 { (self.title) }
            p.soft { "Experiment " code { (self.experiment) }
                @if !self.about.paper.is_empty() { ", " (self.about.paper) } ", preset " code { (self.preset) }
                @if self.runs.len() > 1 { ", " (self.runs.len()) " runs" } }
            @for stand_in in &self.stand_ins { (notice(stand_in)) }
            (self.about.list())
            (facts(&self.facts))
            (claims(&self.verdicts))
            @for (svg, caption) in &self.figures { (figure(svg, caption)) }
            @if !self.panel.is_empty() {
                h2 { "Other metrics" }
                (other_metrics(&self.panel, &self.early_stops))
            }
            @if self.runs.len() > 1 { (index(&self.runs)) }
            @for (i, run) in self.runs.iter().enumerate() { (section(run, i)) }
            h2 { "Reproduce" }
            pre { code { (self.command) } }
        }
    }
}

fn facts(facts: &[(String, String)]) -> Markup {
    html! {
        @if !facts.is_empty() {
            dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } }
        }
    }
}

fn claims(verdicts: &[ClaimResult]) -> Markup {
    html! {
        h2 { "Claims" }
        @if verdicts.is_empty() {
            p.soft { "This run makes no claims." }
        } @else {
            (verdict_table(verdicts))
            p.soft {
                "Means ± standard error. Paired: both sides have the same prompts and the same noise; the mean "
                "difference ± its standard error."
            }
        }
    }
}

fn index(runs: &[RunSection]) -> Markup {
    html! {
        h2 { "Runs" }
        ul { @for (i, run) in runs.iter().enumerate() {
            li {
                a href=(format!("#run-{i}")) { (run.title) }
                @if let Some(reward) = run.metrics.iter().find(|m| m.name == "reward/mean") {
                    span.soft { ": " (number(reward.first)) " → " (number(reward.last)) }
                }
            }
        } }
    }
}

fn section(run: &RunSection, i: usize) -> Markup {
    html! {
        h2 id=(format!("run-{i}")) { (run.title) }
        @if let Some(link) = &run.link { p { a href=(relative(link)) { "Report of this run" } } }
        @if let Some((png, caption)) = &run.progress { (sheet(png, caption)) }
        @if !run.pairs.is_empty() {
            h3 { "Before and after training, from the same noise" }
            div.pairs { @for pair in &run.pairs { (before_and_after(pair)) } }
        }
        @if !run.metrics.is_empty() { h3 { "First and last epoch" } (metrics(&run.metrics)) }
        @if !run.config.is_empty() { (folded("Configuration", &run.config)) }
        @if !run.manifest.is_empty() { (folded("Manifest", &run.manifest)) }
    }
}

fn before_and_after(pair: &Pair) -> Markup {
    let one = |(png, reward): &(Png, f64), when: &str| {
        html! {
            div {
                img src=(png.data_uri()) alt=(format!("{}, {when} training", pair.prompt));
                span { (when) ": " (number(*reward)) }
            }
        }
    };
    html! {
        div.pair {
            p { (pair.prompt) }
            div.two { (one(&pair.before, "before")) (one(&pair.after, "after")) }
        }
    }
}

fn metrics(rows: &[MetricChange]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { "Metric" } th.number { "First" } th.number { "Last" } } }
            tbody { @for row in rows {
                tr { td { (row.name) } td.number { (number(row.first)) } td.number { (number(row.last)) } }
            } }
        } }
    }
}

fn folded(title: &str, text: &str) -> Markup {
    html! { details { summary { (title) } pre { code { (text) } } } }
}

/// Three significant digits for small numbers, otherwise three decimals; a dash for what is not finite.
fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_owned()
    } else if size > 0.0 && size < 0.01 {
        format!("{value:.2e}")
    } else if value.fract() == 0.0 && size < 1e15 {
        format!("{value}")
    } else {
        rounded(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_a_missing_one_is_a_dash() {
        let shown = [0.0, 64.0, -2.0987, 12.3456, 0.00012, f64::NAN].map(number);
        assert_eq!(shown, ["0", "64", "-2.099", "12.35", "1.20e-4", "–"]);
    }

    #[test]
    fn metrics_change_from_the_first_to_the_last_epoch() {
        let csv = "epoch,reward_queries,reward/mean,reward/std\n0,64,-2,0.3\n1,128,-1.5,\n";
        let path = std::path::Path::new("metrics.csv");
        let changes = MetricChange::of(&MetricsTable::parse(csv.as_bytes(), path).unwrap());
        let names: Vec<_> = changes.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["reward_queries", "reward/mean", "reward/std"]);
        assert_eq!((changes[1].first, changes[1].last), (-2.0, -1.5));
        assert!(changes[2].last.is_nan());
        assert_eq!(MetricChange::of(&MetricsTable::default()), []);
    }
}
