//! The report loads nothing, runs nothing, and shows hostile text as text.

use ddpo_eval::{
    claims::{Claim, Metric, check},
    figure::{Curve, RewardFigure, Series},
    images::Png,
    report::{About, Index, IndexEntry, MetricChange, Pair, Report, RunSection, StandIn},
    runs::{MetricsTable, Run, SampleRecord},
};
use ddpo_reward::Images;

const HOSTILE: &str = "</code></pre><script>alert(1)</script><img src=x onerror='alert(2)'>&\"";

fn run(seed: u64) -> Run {
    let row = |epoch: u64, i: u64| SampleRecord {
        epoch,
        sample_id: epoch * 4 + i,
        prompt: HOSTILE.to_owned(),
        reward: (epoch * 10 + i) as f64,
        advantage: 0.0,
    };
    Run {
        algorithm: HOSTILE.to_owned(),
        seed,
        metrics: MetricsTable::default(),
        samples: (0..3)
            .flat_map(|e| (0..4).map(move |i| row(e, i)))
            .collect(),
        evals: Vec::new(),
    }
}

fn about() -> About {
    About {
        paper: HOSTILE.to_owned(),
        found: HOSTILE.to_owned(),
        replaced: HOSTILE.to_owned(),
        against: HOSTILE.to_owned(),
    }
}

fn report(n_runs: u64) -> Report {
    let runs: Vec<Run> = (0..n_runs).map(run).collect();
    let claim = Claim::Rises {
        source: HOSTILE.to_owned(),
        metric: Metric::Reward,
        standard_errors: 3.0,
        epochs: 1,
    };
    let image = || {
        let images = Images::from_bytes(1, 8, 8, vec![90; 192]).unwrap();
        Png::of_image(&images, 0).unwrap()
    };
    let section = |run: &Run| RunSection {
        title: format!("{HOSTILE} seed {}", run.seed),
        link: Some(HOSTILE.to_owned()),
        metrics: vec![MetricChange {
            name: "reward/mean".to_owned(),
            first: 1.5,
            last: f64::NAN,
        }],
        progress: Some((image(), HOSTILE.to_owned())),
        pairs: vec![Pair {
            prompt: HOSTILE.to_owned(),
            before: (image(), -2.0),
            after: (image(), 1.0),
        }],
        config: HOSTILE.to_owned(),
        manifest: HOSTILE.to_owned(),
    };
    let figure = RewardFigure {
        title: HOSTILE.to_owned(),
        note: HOSTILE.to_owned(),
        y_label: HOSTILE.to_owned(),
        series: vec![Series::of_run(HOSTILE, &Curve::of_samples(&run(0).samples))],
    };
    Report {
        title: HOSTILE.to_owned(),
        experiment: HOSTILE.to_owned(),
        preset: HOSTILE.to_owned(),
        about: about(),
        stand_ins: vec![StandIn {
            used: HOSTILE.to_owned(),
            stands_for: HOSTILE.to_owned(),
            reason: HOSTILE.to_owned(),
        }],
        facts: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        verdicts: check(&[claim], &runs),
        figures: vec![(figure.svg().unwrap(), HOSTILE.to_owned())],
        panel: vec![(figure.svg().unwrap(), HOSTILE.to_owned())],
        early_stops: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        runs: runs.iter().map(section).collect(),
        command: HOSTILE.to_owned(),
    }
}

/// The start tags of the page, without comments and text.
fn tags(html: &str) -> Vec<&str> {
    html.split('<')
        .skip(1)
        .filter_map(|part| part.split_once('>'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.starts_with(['/', '!']))
        .collect()
}

#[test]
fn hostile_text_makes_no_tag_and_no_attribute() {
    let html = report(2).html();
    for tag in tags(&html) {
        let name = tag.split([' ', '/']).next().unwrap();
        assert!(name != "script", "{tag}");
        // Every second piece between double quotes is a value: what is left are the attributes' names.
        let names: String = tag.split('"').step_by(2).collect();
        assert!(!names.contains("onerror") && !names.contains('\''), "{tag}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    for tag in tags(&report(2).html()) {
        for name in ["src", "href", "xlink:href", "data", "action", "srcset"] {
            let Some((_, value)) = tag.split_once(&format!(" {name}=\"")) else {
                continue;
            };
            let allowed = ["data:image/png;base64,", "#run-", "./"];
            assert!(allowed.iter().any(|a| value.starts_with(a)), "{tag}");
        }
    }
    let html = report(1).html();
    assert!(!html.contains("@import") && !html.contains("url("));
}

#[test]
fn a_stand_in_is_named_at_the_top_and_only_where_there_is_one() {
    let mut r = report(1);
    r.stand_ins = vec![StandIn {
        used: "colourfulness".to_owned(),
        stands_for: "the LAION aesthetic score".to_owned(),
        reason: "Its weights are not shipped.".to_owned(),
    }];
    let html = r.html();
    let notice = html.find("Stand-in reward.").unwrap();
    assert!(notice < html.find("Claims").unwrap());
    assert!(
        html[notice..].contains("<strong>colourfulness</strong>, which stands in for the LAION")
    );
    r.stand_ins.clear();
    assert!(!r.html().contains("Stand-in"));
}

#[test]
fn met_and_missed_claims_are_counted() {
    let mut r = report(3);
    r.verdicts[1].met = false;
    let html = r.html();
    assert!(html.contains("2 of 3 met"));
    assert_eq!(html.matches("✓ met").count(), 2);
    assert_eq!(html.matches("✗ not met").count(), 1);
}

#[test]
fn several_runs_get_an_index_and_one_run_none() {
    assert!(report(2).html().contains("href=\"#run-1\""));
    assert!(!report(1).html().contains("href=\"#run-0\""));
}

#[test]
fn an_empty_report_is_a_page_all_the_same() {
    let html = Report::default().html();
    assert!(html.starts_with("<!DOCTYPE html>"));
    assert!(html.contains("makes no claims"));
}

#[test]
fn an_index_has_every_figure_and_claim_and_escapes_all_text() {
    let r = report(2);
    let index = Index {
        preset: HOSTILE.to_owned(),
        entries: vec![IndexEntry {
            experiment: "aesthetic".to_owned(),
            title: HOSTILE.to_owned(),
            about: about(),
            stand_ins: r.stand_ins.clone(),
            verdicts: r.verdicts.clone(),
            figures: r.figures.clone(),
            panel: r.panel.clone(),
            early_stops: r.early_stops.clone(),
            progress: r
                .runs
                .iter()
                .filter_map(|run| run.progress.clone())
                .collect(),
            link: "aesthetic/report.html".to_owned(),
            n_runs: 2,
            seconds: 90.0,
        }],
        unfinished: vec![HOSTILE.to_owned()],
        command: HOSTILE.to_owned(),
    };
    let html = index.html();
    assert!(tags(&html).iter().all(|tag| !tag.starts_with("script")));
    assert!(html.contains("href=\"./aesthetic/report.html\""));
    assert!(html.contains("not all findings reproduced"));
    assert_eq!(
        html.matches("<svg").count(),
        r.figures.len() + r.panel.len()
    );
    assert_eq!(
        html.matches("✓ met").count(),
        r.verdicts.iter().filter(|v| v.met).count()
    );
    assert!(html.contains("Not finished: ") && html.contains("1.5"));
}
