//! Reward over reward queries: as SVG for the report and the browser, and as PNG of the same drawing.
//!
//! Colours are those of Okabe and Ito (2008), which remain apart under the common colour-vision
//! deficiencies. The SVG uses any sans-serif font; the PNG uses Noto Sans, which is compiled into the binary.

use plotters::{
    chart::{ChartBuilder, LabelAreaPosition},
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Circle, Polygon, Rectangle},
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color, IntoFont, RGBColor, TextStyle, WHITE},
};

use crate::{
    Error, Result, Svg,
    evals::{EvalRows, evaluations, sets},
    runs::{Run, SampleRecord, rewards_by_epoch},
    stats::Summary,
};

/// Width and height of a figure in SVG units.
pub const SIZE: (u32, u32) = (680, 420);

/// Okabe and Ito's palette without black and yellow (which is faint on white).
const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Mean reward of each epoch of one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve(pub Vec<CurvePoint>);

/// One epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Reward queries up to and with this epoch.
    pub queries: f64,
    /// Mean reward of its samples.
    pub mean: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
}

/// One line with its band.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub label: String,
    /// From left to right: x, lower edge of the band, y, upper edge.
    pub points: Vec<[f64; 4]>,
}

/// Reward over reward queries, a line for each algorithm.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardFigure {
    /// Such as `compressibility, pocket`.
    pub title: String,
    /// What the bands show, and other remarks.
    pub note: String,
    /// Quantity and unit, such as `negative JPEG size (kB)`.
    pub y_label: String,
    /// The lines.
    pub series: Vec<Series>,
}

impl Curve {
    /// From a run's samples; rewards that are not finite count as queries but not towards the mean.
    pub fn of_samples(samples: &[SampleRecord]) -> Self {
        let mut queries = 0.0;
        let mut points = Vec::new();
        for (_, mut rewards) in rewards_by_epoch(samples) {
            queries += rewards.len() as f64;
            rewards.retain(|r| r.is_finite());
            if let Ok(s) = Summary::of(&rewards) {
                points.push(CurvePoint {
                    queries,
                    mean: s.mean,
                    standard_error: s.standard_error,
                });
            }
        }
        Self(points)
    }

    /// From a run's evaluations of one prompt set: the reward, or another metric by name. Empty if there are none.
    pub fn of_set(run: &Run, set: &str, metric: Option<&str>) -> Self {
        let point = |evaluation: EvalRows<'_>| {
            let values = evaluation.rows.values();
            let values: Vec<f64> = values
                .filter_map(|row| row.value(metric))
                .filter(|value| value.is_finite())
                .collect();
            let summary = Summary::of(&values).ok()?;
            Some(CurvePoint {
                queries: evaluation.reward_queries as f64,
                mean: summary.mean,
                standard_error: summary.standard_error,
            })
        };
        let all = evaluations(&run.evals, set);
        Self(all.into_iter().filter_map(point).collect())
    }
}

/// One line per algorithm, its label followed by `suffix`.
fn lines(runs: &[Run], suffix: &str, curve: &dyn Fn(&Run) -> Curve) -> Vec<Series> {
    let several = has_several_seeds(runs);
    let series = |algorithm: &str| {
        let of_algorithm = runs.iter().filter(|run| run.algorithm == algorithm);
        let curves: Vec<Curve> = of_algorithm.map(curve).collect();
        let label = format!("{algorithm}{suffix}");
        match curves.len() {
            1 if !several => Series::of_run(label, &curves[0]),
            1 => Series::over_seeds(format!("{label}, 1 seed"), &curves),
            n => Series::over_seeds(format!("{label}, {n} seeds"), &curves),
        }
    };
    algorithms(runs).into_iter().map(series).collect()
}

/// In the order in which they first appear.
fn algorithms(runs: &[Run]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.algorithm.as_str()) {
            names.push(&run.algorithm);
        }
    }
    names
}

fn has_several_seeds(runs: &[Run]) -> bool {
    algorithms(runs).len() < runs.len()
}

fn note(runs: &[Run], of_what: &str) -> String {
    match has_several_seeds(runs) {
        true => "line: mean over seeds; band: lowest to highest seed".to_owned(),
        false => format!("line: mean of {of_what}; band: ± 1 standard error"),
    }
}

impl Series {
    /// One run: the band is the mean ± one standard error.
    pub fn of_run(label: impl Into<String>, curve: &Curve) -> Self {
        let band = |p: &CurvePoint| {
            [
                p.queries,
                p.mean - p.standard_error,
                p.mean,
                p.mean + p.standard_error,
            ]
        };
        Self {
            label: label.into(),
            points: curve.0.iter().map(band).collect(),
        }
    }

    /// Several runs of one algorithm: the line is the mean over seeds, the band goes from the lowest to the
    /// highest seed. It ends where the shortest run ends.
    pub fn over_seeds(label: impl Into<String>, curves: &[Curve]) -> Self {
        let n = curves.iter().map(|c| c.0.len()).min().unwrap_or(0);
        let at = |i: usize| {
            let means = || curves.iter().map(move |c| c.0[i].mean);
            [
                curves[0].0[i].queries,
                means().fold(f64::INFINITY, f64::min),
                means().sum::<f64>() / curves.len() as f64,
                means().fold(f64::NEG_INFINITY, f64::max),
            ]
        };
        Self {
            label: label.into(),
            points: (0..n).map(at).collect(),
        }
    }
}

impl RewardFigure {
    /// Rewards of the samples that training saw: a line for each algorithm, in the order in which they first
    /// appear, with a band over its seeds; where no algorithm has several seeds, with a band of one standard error.
    pub fn of_runs(title: impl Into<String>, y_label: impl Into<String>, runs: &[Run]) -> Self {
        Self {
            title: title.into(),
            note: note(runs, "an epoch's samples"),
            y_label: y_label.into(),
            series: lines(runs, "", &|run| Curve::of_samples(&run.samples)),
        }
    }

    /// Rewards on the prompt sets of `eval.csv`, or another metric by name: a line for each algorithm and set, bands as
    /// in [`of_runs`](Self::of_runs). `None` if no run evaluated anything.
    pub fn of_evals(
        title: impl Into<String>,
        y_label: impl Into<String>,
        runs: &[Run],
        metric: Option<&str>,
    ) -> Option<Self> {
        let mut names: Vec<&str> = Vec::new();
        for set in runs.iter().flat_map(|run| sets(&run.evals)) {
            if !names.contains(&set) {
                names.push(set);
            }
        }
        let of_set = |set: &&str| {
            lines(runs, &format!(" on {set}"), &|run| {
                Curve::of_set(run, set, metric)
            })
        };
        (!names.is_empty()).then(|| Self {
            title: title.into(),
            note: note(runs, "an evaluation, the same prompts and noise each time"),
            y_label: y_label.into(),
            series: names.iter().flat_map(of_set).collect(),
        })
    }

    /// Draws it. Points that are not finite are skipped; a figure without points says so.
    ///
    /// # Errors
    /// [`Error::Figure`] if the drawing fails.
    pub fn svg(&self) -> Result<Svg> {
        let mut markup = String::new();
        {
            let root = SVGBackend::with_string(&mut markup, SIZE).into_drawing_area();
            root.fill(&WHITE).map_err(Error::figure)?;
            let lines: Vec<Series> = self.series.iter().map(finite).collect();
            let top = self.draw_header(&root)?;
            match extent(&lines) {
                Some(extent) => self.draw_chart(&root, top, &lines, extent)?,
                None => text(&root, "no data", 16, FAINT, (300, 200))?,
            }
            root.present().map_err(Error::figure)?;
        }
        Ok(Svg::own(markup))
    }

    /// Title, note, legend and the label of the y axis; returns the height that they take.
    ///
    /// The label is above the axis: rotated, a long one would be longer than the axis.
    fn draw_header(&self, root: &Area<'_>) -> Result<i32> {
        const LEFT: i32 = 16;
        text(root, &self.title, 24, INK, (LEFT, 10))?;
        text(root, &self.note, 17, FAINT, (LEFT, 38))?;
        let (mut x, mut y) = (LEFT, 66);
        for (series, colour) in self.series.iter().zip(PALETTE.iter().cycle()) {
            // Plotters has no font metrics here: 9 units per letter is generous for 16 point text.
            let width = 36 + 9 * series.label.chars().count() as i32;
            if x > LEFT && x + width > SIZE.0 as i32 {
                (x, y) = (LEFT, y + 22);
            }
            let swatch = Rectangle::new([(x, y + 7), (x + 22, y + 10)], colour.filled());
            root.draw(&swatch).map_err(Error::figure)?;
            text(root, &series.label, 18, INK, (x + 28, y))?;
            x += width;
        }
        text(root, &self.y_label, 18, INK, (LEFT, y + 30))?;
        Ok(y + 54)
    }

    fn draw_chart(
        &self,
        root: &Area<'_>,
        top: i32,
        lines: &[Series],
        [x0, x1, y0, y1]: [f64; 4],
    ) -> Result<()> {
        let (_, area) = root.split_vertically(top);
        let mut chart = ChartBuilder::on(&area)
            .margin_left(6)
            .margin_right(24)
            .margin_bottom(8)
            .set_label_area_size(LabelAreaPosition::Left, 60)
            .set_label_area_size(LabelAreaPosition::Bottom, 56)
            .build_cartesian_2d(x0..x1, y0..y1)
            .map_err(Error::figure)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(FAINT)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|v| thousands(*v))
            .y_label_formatter(&|v| tick(*v, y1 - y0))
            .label_style(("sans-serif", 18).into_font().color(&INK))
            .axis_desc_style(("sans-serif", 19).into_font().color(&INK))
            .x_desc("reward queries")
            .draw()
            .map_err(Error::figure)?;
        for (series, colour) in lines.iter().zip(PALETTE.iter().cycle()) {
            let upper = series.points.iter().map(|p| (p[0], p[3]));
            let lower = series.points.iter().rev().map(|p| (p[0], p[1]));
            let band: Vec<_> = upper.chain(lower).collect();
            let middle = series.points.iter().map(|p| (p[0], p[2]));
            chart
                .draw_series([Polygon::new(band, colour.mix(0.18))])
                .map_err(Error::figure)?;
            chart
                .draw_series(LineSeries::new(middle.clone(), colour.stroke_width(2)))
                .map_err(Error::figure)?;
            if series.points.len() <= 40 {
                chart
                    .draw_series(middle.map(|at| Circle::new(at, 3, colour.filled())))
                    .map_err(Error::figure)?;
            }
        }
        Ok(())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn text(root: &Area<'_>, text: &str, size: u32, colour: RGBColor, at: (i32, i32)) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&colour);
    root.draw_text(text, &style, at).map_err(Error::figure)
}

fn finite(series: &Series) -> Series {
    let mut series = series.clone();
    series.points.retain(|p| p.iter().all(|v| v.is_finite()));
    series
}

/// Ranges of x and y with a margin; of width 1 where all values are equal.
fn extent(series: &[Series]) -> Option<[f64; 4]> {
    let points = || series.iter().flat_map(|s| &s.points);
    points().next()?;
    let range = |low: &dyn Fn(&[f64; 4]) -> f64, high: &dyn Fn(&[f64; 4]) -> f64| {
        let a = points().map(low).fold(f64::INFINITY, f64::min);
        let b = points().map(high).fold(f64::NEG_INFINITY, f64::max);
        // Far from zero a margin of one would be lost in rounding.
        let least = 1e-6 * a.abs().max(b.abs());
        if b - a > least {
            (a, b)
        } else {
            let half = least.max(0.5);
            (a - half, b + half)
        }
    };
    let (_, x1) = range(&|p| p[0], &|p| p[0]);
    let (y0, y1) = range(&|p| p[1], &|p| p[3]);
    let margin = 0.05 * (y1 - y0);
    Some([0.0, x1.max(1.0) * 1.02, y0 - margin, y1 + margin])
}

fn thousands(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{}k", value / 1000.0)
    } else {
        format!("{value}")
    }
}

/// As many decimals as ticks over `range` need, with a true minus sign.
fn tick(value: f64, range: f64) -> String {
    let decimals = (range / 6.0).log10().floor().clamp(-8.0, 0.0).abs() as usize;
    let text = format!("{:.decimals$}", value.abs());
    let is_zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
    if value < 0.0 && !is_zero {
        format!("\u{2212}{text}")
    } else {
        text
    }
}
