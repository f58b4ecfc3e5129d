//! Figures are well-formed, show what they are given, and survive degenerate input.

use ddpo_eval::{
    Svg,
    figure::{Curve, CurvePoint, RewardFigure, Series},
    runs::{MetricsTable, Run, SampleRecord},
};

fn curve(start: f64, slope: f64, wobble: f64) -> Curve {
    let point = |i: u32| CurvePoint {
        queries: f64::from(64 * (i + 1)),
        mean: start + slope * f64::from(i) + wobble * f64::from(i * 7919 % 13) / 13.0,
        standard_error: 0.03,
    };
    Curve((0..20).map(point).collect())
}

fn figure(series: Vec<Series>) -> RewardFigure {
    RewardFigure {
        title: "compressibility, pocket".to_owned(),
        note: "band: lowest to highest of 3 seeds".to_owned(),
        y_label: "negative JPEG size (kB)".to_owned(),
        series,
    }
}

fn two_algorithms() -> RewardFigure {
    figure(vec![
        Series::over_seeds(
            "ddpo-is, 3 seeds",
            &[
                curve(-2.1, 0.03, 0.05),
                curve(-2.05, 0.028, 0.1),
                curve(-2.12, 0.035, 0.07),
            ],
        ),
        Series::of_run("ddpo-sf", &curve(-2.08, 0.015, 0.05)),
    ])
}

/// Parses the markup as XML and gives back all of its text.
fn texts(svg: &Svg) -> Vec<String> {
    let document = roxmltree::Document::parse(svg.as_str()).unwrap();
    document
        .descendants()
        .filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "text")))
        .filter_map(|n| n.text().map(|t| t.trim().to_owned()))
        .collect()
}

/// Width and height as the PNG itself states them.
fn png_size(png: &[u8]) -> (u32, u32) {
    let image = image::load_from_memory(png).unwrap();
    (image.width(), image.height())
}

#[test]
fn a_figure_names_axes_units_and_series() {
    let svg = two_algorithms().svg().unwrap();
    let texts = texts(&svg);
    for needed in [
        "compressibility, pocket",
        "band: lowest to highest of 3 seeds",
        "negative JPEG size (kB)",
        "reward queries",
        "ddpo-is, 3 seeds",
        "ddpo-sf",
    ] {
        assert!(texts.iter().any(|t| t == needed), "{needed} in {texts:?}");
    }
    assert!(texts.iter().any(|t| t.starts_with('\u{2212}')), "{texts:?}");
    assert!(svg.as_str().contains("#0072B2") && svg.as_str().contains("#D55E00"));
}

#[test]
fn the_png_is_the_svg_at_the_scale_asked_for() {
    let svg = two_algorithms().svg().unwrap();
    let png = svg.png(2.0).unwrap();
    assert_eq!(png_size(&png), (1360, 840));
    assert!(svg.png(0.0).is_err());
    assert!(svg.png(1e9).is_err());

    // Text was set: dark pixels in the title's corner, where there is nothing else.
    let image = image::load_from_memory(&png).unwrap().to_luma8();
    let dark = (32..400).flat_map(|x| (20..60).map(move |y| (x, y)));
    let dark = dark
        .filter(|&(x, y)| image.get_pixel(x, y).0[0] < 100)
        .count();
    assert!(dark > 500, "{dark} dark pixels");
}

#[test]
fn hostile_labels_stay_text() {
    let mut f = two_algorithms();
    f.title = "<script>alert(1)</script> & \"quotes\"".to_owned();
    f.series[0].label = "</svg><img src=x onerror=alert(1)>".to_owned();
    let svg = f.svg().unwrap();
    assert!(!svg.as_str().contains("<script") && !svg.as_str().contains("<img"));
    assert!(texts(&svg).contains(&f.title), "{:?}", texts(&svg));
}

#[test]
fn degenerate_runs_still_make_a_figure() {
    let point = |mean| CurvePoint {
        queries: 64.0,
        mean,
        standard_error: 0.0,
    };
    let cases = [
        vec![],
        vec![Series::of_run("empty", &Curve::default())],
        vec![Series::over_seeds("none", &[])],
        vec![Series::of_run("one point", &Curve(vec![point(1.0)]))],
        vec![Series::of_run("all equal", &Curve(vec![point(3.0); 9]))],
        vec![Series::of_run("huge", &Curve(vec![point(1e17); 2]))],
        vec![Series::of_run(
            "NaN",
            &Curve(vec![point(f64::NAN), point(f64::INFINITY)]),
        )],
    ];
    for series in cases {
        let f = figure(series);
        let svg = f.svg().unwrap();
        roxmltree::Document::parse(svg.as_str()).unwrap();
        assert!(!svg.as_str().contains("NaN\""), "{:?}", f.series);
        svg.png(1.0).unwrap();
    }
    let empty = figure(vec![]).svg().unwrap();
    assert!(texts(&empty).iter().any(|t| t == "no data"));
}

#[test]
fn a_curve_counts_every_query_and_averages_what_is_a_number() {
    let row = |epoch, reward| SampleRecord {
        epoch,
        sample_id: 0,
        prompt: "cat".to_owned(),
        reward,
        advantage: 0.0,
    };
    let samples = [row(0, 1.0), row(0, 3.0), row(1, f64::NAN), row(1, 5.0)];
    let c = Curve::of_samples(&samples);
    let means: Vec<_> = c.0.iter().map(|p| (p.queries, p.mean)).collect();
    assert_eq!(means, [(2.0, 2.0), (4.0, 5.0)]);
    assert_eq!(c.0[0].standard_error, 1.0);
}

#[test]
fn several_seeds_end_with_the_shortest_and_span_lowest_to_highest() {
    let mut short = curve(0.0, 1.0, 0.0);
    short.0.truncate(2);
    let series = Series::over_seeds("x", &[short, curve(4.0, 1.0, 0.0)]);
    assert_eq!(
        series.points,
        [[64.0, 0.0, 2.0, 4.0], [128.0, 1.0, 3.0, 5.0]]
    );
}

#[test]
fn bands_are_over_seeds_where_there_are_several() {
    let run = |algorithm: &str, seed: u64| Run {
        algorithm: algorithm.to_owned(),
        seed,
        metrics: MetricsTable::default(),
        samples: Vec::new(),
        evals: Vec::new(),
    };
    let labels = |runs: &[Run]| {
        let f = RewardFigure::of_runs("title", "kB", runs);
        let labels: Vec<_> = f.series.into_iter().map(|s| s.label).collect();
        (labels, f.note.contains("seed"))
    };
    let runs = [run("ddpo-is", 0), run("ddpo-sf", 0), run("ddpo-is", 1)];
    let (names, over_seeds) = labels(&runs);
    assert_eq!(names, ["ddpo-is, 2 seeds", "ddpo-sf, 1 seed"]);
    assert!(over_seeds);
    let (names, over_seeds) = labels(&runs[..2]);
    assert_eq!(names, ["ddpo-is", "ddpo-sf"]);
    assert!(!over_seeds);
    assert!(labels(&[]).0.is_empty());
}
