//! The experiments of the paper by name, and which of them run.

use std::process::ExitCode;

use anyhow::Result;

use crate::{Reproduce, ddpo, shell};

/// A row of `reproduce list`.
struct Experiment {
    name: &'static str,
    paper: &'static str,
    shows: &'static str,
    /// What the preset `pocket` puts in the place of a reward that it cannot run.
    stand_in: Option<&'static str>,
}

const EXPERIMENTS: [Experiment; 11] = [
    row(
        "compressibility",
        "Fig. 4",
        "JPEG size falls: reward over reward queries",
        None,
    ),
    row(
        "incompressibility",
        "Fig. 4",
        "JPEG size grows: reward over reward queries",
        None,
    ),
    row(
        "aesthetic",
        "Fig. 4",
        "reward over reward queries",
        Some("colourfulness"),
    ),
    row(
        "alignment",
        "Fig. 5",
        "what the picture shows is what the prompt says",
        Some("judge"),
    ),
    row(
        "generalization",
        "Figs. 6, 12, 15, 16",
        "reward on unseen animals and objects",
        None,
    ),
    row(
        "overoptimization",
        "Fig. 7",
        "incompressibility past the useful point; counting",
        None,
    ),
    row(
        "guidance",
        "Table 1",
        "base, universal guidance, DDPO-IS on one prompt",
        None,
    ),
    row(
        "dpok",
        "Figs. 8, 9",
        "one LoRA model on four prompts",
        Some("judge"),
    ),
    row(
        "cfg-ablation",
        "Fig. 10",
        "sparse RWR with and without guidance in training",
        None,
    ),
    row(
        "interleaving",
        "Fig. 11",
        "RWR with more, smaller rounds",
        None,
    ),
    row(
        "samples",
        "Figs. 1, 3, 13, 14",
        "progressions for fixed prompts and noise",
        None,
    ),
];

const fn row(
    name: &'static str,
    paper: &'static str,
    shows: &'static str,
    stand_in: Option<&'static str>,
) -> Experiment {
    Experiment {
        name,
        paper,
        shows,
        stand_in,
    }
}

impl Experiment {
    fn config(&self) -> String {
        format!("configs/{}.toml", self.name)
    }

    /// An experiment runs when its configuration is there.
    fn is_available(&self) -> bool {
        shell::root().join(self.config()).is_file()
    }
}

/// `cargo xtask reproduce`.
pub fn reproduce(args: &Reproduce) -> Result<ExitCode> {
    match args.experiment.as_str() {
        "list" => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        "all" => all(args),
        name => match EXPERIMENTS
            .iter()
            .find(|experiment| experiment.name == name)
        {
            Some(experiment) if experiment.is_available() => start(&[experiment], args),
            Some(_) => Ok(shell::usage(&format!(
                "`{name}` is not available yet; what runs: {}",
                available().join(", ")
            ))),
            None => Ok(unknown(name)),
        },
    }
}

fn available() -> Vec<&'static str> {
    EXPERIMENTS
        .iter()
        .filter(|row| row.is_available())
        .map(|row| row.name)
        .collect()
}

fn unknown(name: &str) -> ExitCode {
    let names = EXPERIMENTS
        .iter()
        .map(|row| row.name)
        .chain(["list", "all"]);
    let hint = match shell::nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`cargo xtask reproduce list` names them".into(),
    };
    shell::usage(&format!("unknown experiment `{name}`: {hint}"))
}

fn list() {
    println!(
        "{:<18} {:<20} {:<15} what comes out",
        "experiment", "paper", "status"
    );
    for row in &EXPERIMENTS {
        let status = if row.is_available() {
            "runs"
        } else {
            "not available"
        };
        let stand_in = row
            .stand_in
            .map(|name| format!(" (preset pocket: {name}, a stand-in for the paper's reward)"))
            .unwrap_or_default();
        println!(
            "{:<18} {:<20} {:<15} {}{}",
            row.name, row.paper, status, row.shows, stand_in
        );
    }
}

/// Every row that there is; says which there is not.
fn all(args: &Reproduce) -> Result<ExitCode> {
    let (there, missing): (Vec<&Experiment>, Vec<&Experiment>) = EXPERIMENTS
        .iter()
        .partition(|experiment| experiment.is_available());
    let missing: Vec<&str> = missing.iter().map(|experiment| experiment.name).collect();
    if !missing.is_empty() {
        eprintln!(
            "reproduce all: not available yet, left out: {}",
            missing.join(", ")
        );
    }
    start(&there, args)
}

fn start(experiments: &[&Experiment], args: &Reproduce) -> Result<ExitCode> {
    let mut words: Vec<String> = experiments
        .iter()
        .map(|experiment| experiment.config())
        .collect();
    let mut add = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
    if let Some(preset) = &args.preset {
        add("--preset", preset);
    }
    if let Some(algorithms) = &args.algorithms {
        add("--algorithms", algorithms);
    }
    if let Some(seeds) = args.seeds {
        add("--seeds", &seeds.to_string());
    }
    if let Some(jobs) = args.jobs {
        add("--jobs", &jobs.to_string());
    }
    if let Some(out) = &args.out {
        add("--out", out);
    }
    for pair in &args.set {
        add("--set", pair);
    }
    ddpo::start("reproduce", &words)
}
