//! Writes the report of made-up runs: `cargo run -p ddpo-eval --example demo_report [-- FOLDER]`.

use std::{error::Error, fs, path::PathBuf};

use ddpo_eval::{
    claims::{Claim, ClaimsFile, Metric, check},
    figure::{Curve, RewardFigure},
    images::{Png, ProgressSheet},
    report::{MetricChange, Pair, Report, RunSection, StandIn},
    runs::{MetricsTable, Run, SampleRecord},
};
use ddpo_reward::Images;

const PROMPTS: [&str; 4] = [
    "cat",
    "a fox",
    "a butterfly",
    "a hedgehog washing the dishes",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).map(PathBuf::from);
    let out = out.unwrap_or_else(|| std::env::temp_dir().join("demo_report"));
    fs::create_dir_all(&out)?;
    let runs: Vec<Run> = [
        ("ddpo-is", 0, 0.9),
        ("ddpo-is", 1, 0.8),
        ("ddpo-sf", 0, 0.2),
        ("ddpo-sf", 1, 0.3),
    ]
    .map(|(algorithm, seed, slope)| made_up(algorithm, seed, slope))
    .into();

    let claims = claims();
    let verdicts = check(&claims, &runs);
    let file = ClaimsFile::new("aesthetic", verdicts.clone());
    fs::write(out.join("claims.json"), file.to_json())?;

    let title = "aesthetic on pocket, stand-in: colourfulness";
    let figure = RewardFigure::of_runs(title, "colourfulness", &runs);
    let svg = figure.svg()?;
    fs::write(out.join("reward.svg"), svg.as_str())?;
    fs::write(out.join("reward.png"), svg.png(2.0)?)?;

    let sheet = ProgressSheet {
        prompts: PROMPTS.map(str::to_owned).into(),
        columns: [0, 4, 8, 12, 16, 19]
            .map(|epoch| (format!("epoch {epoch}"), images(epoch)))
            .into(),
    };
    let progress = sheet.png()?;
    fs::write(out.join("progress.png"), progress.bytes())?;

    let sections = runs.iter().map(|run| section(run, &progress));
    let report = Report {
        title: "Aesthetic quality".to_owned(),
        experiment: "aesthetic".to_owned(),
        preset: "pocket".to_owned(),
        stand_ins: vec![StandIn {
            used: "colourfulness (Hasler and Süsstrunk 2003)".to_owned(),
            stands_for: "the LAION aesthetic score".to_owned(),
            reason: "That needs CLIP ViT-L/14, which is not shipped.".to_owned(),
        }],
        facts: [
            ("Model", "made up"),
            ("Reward", "colourfulness"),
            ("Duration", "6 min 12 s"),
        ]
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .into(),
        verdicts,
        figures: vec![(svg, "Mean reward of each epoch's samples.".to_owned())],
        runs: sections.collect::<Result<_, _>>()?,
        command: "cargo xtask reproduce aesthetic --algorithms ddpo-is,ddpo-sf --seeds 2"
            .to_owned(),
        ..Report::default()
    };
    fs::write(out.join("report.html"), report.html())?;
    println!("report: {}", out.join("report.html").display());
    Ok(())
}

fn claims() -> [Claim; 2] {
    let source = "Black et al. 2023, Fig. 4".to_owned();
    let metric = Metric::Reward;
    [
        Claim::Rises {
            source: source.clone(),
            metric: metric.clone(),
            standard_errors: 3.0,
            epochs: 1,
        },
        Claim::Exceeds {
            source,
            metric,
            better: "ddpo-is".to_owned(),
            worse: "ddpo-sf".to_owned(),
            standard_errors: 1.0,
            epochs: 2,
        },
    ]
}

fn made_up(algorithm: &str, seed: u64, slope: f64) -> Run {
    let wave = |i: u64| ((i * 7919 + seed * 104_729) % 1000) as f64 / 500.0 - 1.0;
    let row = |epoch: u64, i: u64| SampleRecord {
        epoch,
        sample_id: epoch * 64 + i,
        prompt: PROMPTS[i as usize % 4].to_owned(),
        reward: 40.0 + slope * epoch as f64 + 12.0 * wave(epoch * 64 + i),
        advantage: 0.0,
    };
    Run {
        algorithm: algorithm.to_owned(),
        seed,
        metrics: MetricsTable::default(),
        samples: (0..20)
            .flat_map(|epoch| (0..64).map(move |i| row(epoch, i)))
            .collect(),
        evals: Vec::new(),
    }
}

/// Discs whose colour grows stronger with the epoch.
fn images(epoch: usize) -> Images {
    let mut bytes = Vec::new();
    for i in 0..PROMPTS.len() {
        for (y, x) in (0..64_i32).flat_map(|y| (0..64_i32).map(move |x| (y, x))) {
            let inside = (x - 32).pow(2) + (y - 32).pow(2) < 500 + 100 * i as i32;
            let grey = if inside { 120 } else { 230 };
            let strong = if inside { 12 * epoch as i32 } else { 0 };
            bytes.extend(
                [grey + strong / 2, grey - strong / 3, grey - strong / 2]
                    .map(|v| v.clamp(0, 255) as u8),
            );
        }
    }
    Images::from_bytes(PROMPTS.len(), 64, 64, bytes).expect("four images")
}

fn section(run: &Run, progress: &Png) -> Result<RunSection, Box<dyn Error>> {
    let curve = Curve::of_samples(&run.samples).0;
    let pairs = PROMPTS.iter().enumerate().map(|(i, prompt)| {
        Ok::<_, ddpo_eval::Error>(Pair {
            prompt: (*prompt).to_owned(),
            before: (Png::of_image(&images(0), i)?, 40.0),
            after: (Png::of_image(&images(19), i)?, 57.1),
        })
    });
    Ok(RunSection {
        title: format!("{}, seed {}", run.algorithm, run.seed),
        link: Some(format!("{}-{}/report.html", run.algorithm, run.seed)),
        metrics: vec![
            MetricChange {
                name: "reward/mean".to_owned(),
                first: curve[0].mean,
                last: curve[19].mean,
            },
            MetricChange {
                name: "policy/approx_kl".to_owned(),
                first: 0.0,
                last: 3.2e-9,
            },
        ],
        progress: Some((
            progress.clone(),
            "The same prompts and noise through training.".to_owned(),
        )),
        pairs: pairs.collect::<Result<_, _>>()?,
        config: "[rl]\nalgorithm = \"ddpo-is\"   # where it came from\nlr = 1e-4\n".to_owned(),
        manifest: "{\n  \"seed\": 0\n}\n".to_owned(),
    })
}
