//! One file over several experiments: each figure next to the paper's finding, what the preset replaces, and whether
//! the claims are met.

use maud::{Markup, html};

use super::about::{About, StandIn};
use super::html::{figure, met_of, notice, other_metrics, page, relative, sheet, verdict_table};
use crate::Svg;
use crate::claims::ClaimResult;
use crate::images::Png;

/// Experiments of the paper, one after the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Index {
    /// Name of the preset, such as `pocket`.
    pub preset: String,
    /// Experiments that are finished, in the order of the paper.
    pub entries: Vec<IndexEntry>,
    /// Names of those that are not.
    pub unfinished: Vec<String>,
    /// The command that reproduces this file.
    pub command: String,
}

/// One experiment of an index.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IndexEntry {
    /// Name, such as `compressibility`.
    pub experiment: String,
    /// Headline.
    pub title: String,
    /// The experiment in the paper and here.
    pub about: About,
    /// Rewards that are not the paper's.
    pub stand_ins: Vec<StandIn>,
    /// The results of its claims.
    pub verdicts: Vec<ClaimResult>,
    /// Figures with captions.
    pub figures: Vec<(Svg, String)>,
    /// Figures of other metrics than the reward, with captions; folded.
    pub panel: Vec<(Svg, String)>,
    /// For each run, whether and where reward hacking begins, as a sentence.
    pub early_stops: Vec<(String, String)>,
    /// Images through training of one run per algorithm, with captions; folded.
    pub progress: Vec<(Png, String)>,
    /// Its own report, relative to this file.
    pub link: String,
    /// How many runs it has.
    pub n_runs: usize,
    /// Total wall time of its runs, in seconds.
    pub seconds: f64,
}

impl Index {
    /// The whole file.
    pub fn html(&self) -> String {
        page("The paper's experiments", self.body())
    }

    fn body(&self) -> Markup {
        html! {
            h1 { "The paper's experiments" }
            p.soft { "Black et al. 2023, \u{201c}Training Diffusion Models with Reinforcement Learning\u{201d}; preset "
                code { (self.preset) } ", " (self.entries.len()) " experiments" }
            @if !self.unfinished.is_empty() {
                div.notice role="note" { strong { "Not finished: " } (self.unfinished.join(", ")) "." }
            }
            table.cards {
                thead { tr { th { "Experiment" } th { "Paper" } th { "Claims" } th.number { "Runs" }
                    th.number { "Minutes" } } }
                tbody { @for entry in &self.entries { tr {
                    td data-label="Experiment" { a href=(format!("#run-{}", entry.experiment)) { (entry.experiment) } }
                    td data-label="Paper" { (entry.about.paper) }
                    td data-label="Claims" { (met_of(&entry.verdicts))
                        @if !entry.about.against.is_empty() { span.soft { ", not all findings reproduced" } } }
                    td.number data-label="Runs" { (entry.n_runs) }
                    td.number data-label="Minutes" { (format!("{:.1}", entry.seconds / 60.0)) }
                } } }
            }
            p.soft { "Minutes are the sum over all runs; several run in parallel." }
            @for entry in &self.entries { (section(entry)) }
            h2 { "Reproduce" }
            pre { code { (self.command) } }
        }
    }
}

fn section(entry: &IndexEntry) -> Markup {
    html! {
        h2 id=(format!("run-{}", entry.experiment)) { (entry.title) }
        p.soft { code { (entry.experiment) } ", " (entry.about.paper) ", "
            a href=(relative(&entry.link)) { "full report" } }
        @for stand_in in &entry.stand_ins { (notice(stand_in)) }
        (entry.about.list())
        @if !entry.verdicts.is_empty() { (verdict_table(&entry.verdicts)) }
        @for (svg, caption) in &entry.figures { (figure(svg, caption)) }
        @if !entry.panel.is_empty() {
            details { summary { "Other metrics" } (other_metrics(&entry.panel, &entry.early_stops)) }
        }
        @if !entry.progress.is_empty() {
            details {
                summary { "Images through training" }
                @for (png, caption) in &entry.progress { (sheet(png, caption)) }
            }
        }
    }
}
