//! The report of one or several runs of an experiment: a single HTML file that loads nothing.
//!
//! Images are `data:` addresses, figures inline SVG, the style sheet is part of the file, and there is no
//! script. Every text is escaped where it is inserted; prompts, configurations and file names may be hostile.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    Svg,
    claims::{Verdict, rounded},
    images::Png,
    runs::Metrics,
};

mod about;
mod index;

pub use about::About;
pub use index::{Entry, Index};

/// Everything that a report shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Headline, such as `Compressibility`.
    pub title: String,
    /// Name of the experiment, such as `compressibility`.
    pub experiment: String,
    /// Name of the preset, such as `pocket`.
    pub preset: String,
    /// What the paper has, and what becomes of it here.
    pub about: About,
    /// Named in notices at the top where rewards are not the paper's.
    pub stand_ins: Vec<StandIn>,
    /// A few words and their values: model, reward, device, duration.
    pub facts: Vec<(String, String)>,
    /// Claims, checked; with several runs, of all of them.
    pub verdicts: Vec<Verdict>,
    /// Figures with captions.
    pub figures: Vec<(Svg, String)>,
    /// Figures of what else was measured, with captions; smaller.
    pub panel: Vec<(Svg, String)>,
    /// Runs, and whether their reward and a judge have parted, in a sentence.
    pub useful: Vec<(String, String)>,
    /// One run, or several of one experiment.
    pub runs: Vec<RunSection>,
    /// What to type to get this again.
    pub command: String,
}

/// A reward that takes the place of the paper's, which cannot run on the preset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StandIn {
    /// What was trained on, such as `colourfulness (Hasler and Süsstrunk 2003)`.
    pub used: String,
    /// What it stands in for, such as `the LAION aesthetic score`.
    pub stands_for: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// One run's part of the report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunSection {
    /// Such as `ddpo-is, seed 0`.
    pub title: String,
    /// The run's own report relative to this file, where there is one.
    pub link: Option<String>,
    /// Names and values of the first and the last epoch.
    pub metrics: Vec<MetricChange>,
    /// Images through training, and what they are.
    pub progress: Option<(Png, String)>,
    /// The same prompts before and after.
    pub pairs: Vec<Pair>,
    /// The resolved configuration as written.
    pub config: String,
    /// The manifest as written.
    pub manifest: String,
}

/// A logged number at the start and at the end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricChange {
    /// Such as `reward/mean`.
    pub name: String,
    /// In the first epoch.
    pub first: f64,
    /// In the last epoch.
    pub last: f64,
}

/// What one prompt gave before and after training, from the same noise.
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
    /// Every column but the epoch's number; nothing for a run without epochs.
    pub fn of(metrics: &Metrics) -> Vec<Self> {
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
                h2 { "Beside the reward" }
                (beside(&self.panel, &self.useful))
            }
            @if self.runs.len() > 1 { (index(&self.runs)) }
            @for (i, run) in self.runs.iter().enumerate() { (section(run, i)) }
            h2 { "Reproduce" }
            pre { code { (self.command) } }
        }
    }
}

/// A whole file around what is in it.
fn page(title: &str, body: Markup) -> String {
    let style = PreEscaped(include_str!("report/style.css"));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing is fetched and nothing runs, even if some text were to slip through.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
                title { (title) " · ddpo" }
                style { (style) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

fn figure(svg: &Svg, caption: &str) -> Markup {
    html! { figure { div.scroll { (PreEscaped(svg.as_str())) } figcaption { (caption) } } }
}

/// What else was measured, and whether reward and judge have parted.
fn beside(panel: &[(Svg, String)], useful: &[(String, String)]) -> Markup {
    html! {
        @if !useful.is_empty() {
            ul { @for (run, statement) in useful { li { strong { (run) } ": " (statement) "." } } }
        }
        div.panel { @for (svg, caption) in panel { (figure(svg, caption)) } }
    }
}

fn sheet(png: &Png, caption: &str) -> Markup {
    html! {
        figure {
            div.scroll { img src=(png.data_uri()) alt=(caption); }
            figcaption { (caption) }
        }
    }
}

fn notice(stand_in: &StandIn) -> Markup {
    html! {
        div.notice role="note" {
            strong { "Stand-in reward. " }
            "This run was trained and is measured on " strong { (stand_in.used) } ", which stands in for "
            (stand_in.stands_for) ". " (stand_in.reason)
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

fn claims(verdicts: &[Verdict]) -> Markup {
    html! {
        h2 { "Claims" }
        @if verdicts.is_empty() {
            p.soft { "This run states no claims." }
        } @else {
            (verdict_table(verdicts))
            p.soft {
                "Means ± their standard error; paired: the same prompts from the same noise on both sides, and "
                "then the mean difference ± its standard error."
            }
        }
    }
}

fn verdict_table(verdicts: &[Verdict]) -> Markup {
    html! {
        p { (met_of(verdicts)) }
        table.cards {
            thead { tr { th { "" } th { "Claim" } th { "Run" } th { "Measured" } th { "Source" } } }
            tbody {
                @for v in verdicts {
                    tr {
                        td data-label="Result" { (verdict_word(v.met)) }
                        td data-label="Claim" { (v.statement) }
                        td data-label="Run" { (v.algorithm) ", seed " (v.seed) }
                        td data-label="Measured" { (v.numbers()) }
                        td data-label="Source" { (v.claim.source()) }
                    }
                }
            }
        }
    }
}

/// "2 of 3 met".
fn met_of(verdicts: &[Verdict]) -> Markup {
    let met = verdicts.iter().filter(|v| v.met).count();
    html! { span class=(verdict_class(met == verdicts.len())) { (met) " of " (verdicts.len()) " met" } }
}

fn verdict_class(met: bool) -> &'static str {
    if met { "good" } else { "bad" }
}

fn verdict_word(met: bool) -> Markup {
    html! { span class=(verdict_class(met)) { @if met { "✓ met" } @else { "✗ not met" } } }
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
        @if let Some(link) = &run.link { p { a href=(relative(link)) { "Report of this run alone" } } }
        @if let Some((png, caption)) = &run.progress { (sheet(png, caption)) }
        @if !run.pairs.is_empty() {
            h3 { "Before and after, from the same noise" }
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

/// A link that cannot leave the folder of the report or run anything.
fn relative(link: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let encoded: String = link
        .chars()
        .map(|c| {
            if safe(c) {
                return c.to_string();
            }
            let mut bytes = [0; 4];
            let utf8 = c.encode_utf8(&mut bytes).bytes();
            utf8.map(|b| format!("%{b:02X}")).collect()
        })
        .collect();
    format!("./{}", encoded.trim_start_matches('/'))
}

/// Small numbers keep three significant digits, others three decimals; no number is a dash.
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
        let changes = MetricChange::of(&Metrics::parse(csv.as_bytes(), path).unwrap());
        let names: Vec<_> = changes.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["reward_queries", "reward/mean", "reward/std"]);
        assert_eq!((changes[1].first, changes[1].last), (-2.0, -1.5));
        assert!(changes[2].last.is_nan());
        assert_eq!(MetricChange::of(&Metrics::default()), []);
    }

    #[test]
    fn links_stay_inside_the_folder() {
        assert_eq!(relative("seed-0/report.html"), "./seed-0/report.html");
        assert_eq!(
            relative("javascript:alert(1)"),
            "./javascript%3Aalert%281%29"
        );
        assert_eq!(relative("//elsewhere/ä b"), "./elsewhere/%C3%A4%20b");
    }
}
