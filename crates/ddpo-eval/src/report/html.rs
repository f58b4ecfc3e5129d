//! The elements of HTML that reports and the index share.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::about::StandIn;
use crate::{Svg, claims::ClaimResult, images::Png};

/// A whole HTML file around its body.
pub(super) fn page(title: &str, body: Markup) -> String {
    let style = PreEscaped(include_str!("style.css"));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing is fetched and nothing runs, even if some text were not escaped.
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

pub(super) fn figure(svg: &Svg, caption: &str) -> Markup {
    html! { figure { div.scroll { (PreEscaped(svg.as_str())) } figcaption { (caption) } } }
}

/// Metrics other than the reward, and where reward hacking begins.
pub(super) fn other_metrics(panel: &[(Svg, String)], early_stops: &[(String, String)]) -> Markup {
    html! {
        @if !early_stops.is_empty() {
            ul { @for (run, statement) in early_stops { li { strong { (run) } ": " (statement) "." } } }
        }
        div.panel { @for (svg, caption) in panel { (figure(svg, caption)) } }
    }
}

pub(super) fn sheet(png: &Png, caption: &str) -> Markup {
    html! {
        figure {
            div.scroll { img src=(png.data_uri()) alt=(caption); }
            figcaption { (caption) }
        }
    }
}

pub(super) fn notice(stand_in: &StandIn) -> Markup {
    html! {
        div.notice role="note" {
            strong { "Stand-in reward. " }
            "This run was trained and evaluated on " strong { (stand_in.used) } ", which stands in for "
            (stand_in.stands_for) ". " (stand_in.reason)
        }
    }
}

pub(super) fn verdict_table(verdicts: &[ClaimResult]) -> Markup {
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
pub(super) fn met_of(verdicts: &[ClaimResult]) -> Markup {
    let met = verdicts.iter().filter(|v| v.met).count();
    html! { span class=(verdict_class(met == verdicts.len())) { (met) " of " (verdicts.len()) " met" } }
}

fn verdict_class(met: bool) -> &'static str {
    if met { "good" } else { "bad" }
}

fn verdict_word(met: bool) -> Markup {
    html! { span class=(verdict_class(met)) { @if met { "✓ met" } @else { "✗ not met" } } }
}

/// A link that cannot leave the report's folder or run a script.
pub(super) fn relative(link: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
