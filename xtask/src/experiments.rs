//! The experiments of the paper by name.
//!
//! The description of an experiment, its place in the paper and its duration are read from its configuration.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result};
use toml::Value;

use crate::{Reproduce, ddpo, shell};

/// In the order of the paper.
const NAMES: [&str; 11] = [
    "compressibility",
    "incompressibility",
    "aesthetic",
    "alignment",
    "generalization",
    "overoptimization",
    "guidance",
    "dpok",
    "cfg-ablation",
    "interleaving",
    "samples",
];

/// A row of `reproduce list`.
struct Experiment {
    name: &'static str,
    /// Its configuration; `None` if there is no such file.
    config: Option<Value>,
}

impl Experiment {
    fn all() -> Result<Vec<Self>> {
        NAMES.into_iter().map(Self::read).collect()
    }

    fn read(name: &'static str) -> Result<Self> {
        let file = shell::root().join(file_of(name));
        if !file.is_file() {
            return Ok(Self { name, config: None });
        }
        let text = std::fs::read_to_string(&file)?;
        let config = toml::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(Self {
            name,
            config: Some(config),
        })
    }

    /// A value by its dotted path.
    fn get(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(self.config.as_ref()?, |value, key| value.get(key))
    }

    fn text(&self, path: &str) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The rewards that the preset `pocket` uses instead of those that it cannot run: "judge for image-reward".
    fn stand_ins(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if let Some(pocket) = self.get("presets.pocket") {
            find_stand_ins(pocket, &mut found);
        }
        found
    }
}

fn find_stand_ins(value: &Value, found: &mut BTreeSet<String>) {
    let Some(table) = value.as_table() else {
        return;
    };
    let text = |key| table.get(key).and_then(Value::as_str);
    if let (Some(kind), Some(paper)) = (text("kind"), text("stands_in_for")) {
        found.insert(format!("{kind} for {paper}"));
    }
    for inner in table.values() {
        find_stand_ins(inner, found);
    }
}

fn file_of(name: &str) -> String {
    format!("configs/{name}.toml")
}

/// `cargo xtask reproduce`.
pub fn reproduce(args: &Reproduce) -> Result<ExitCode> {
    let all = Experiment::all()?;
    match args.experiment.as_str() {
        "list" => {
            list(&all);
            Ok(ExitCode::SUCCESS)
        }
        "all" => start_all(&all, args),
        name => match all.iter().find(|it| it.name == name) {
            Some(it) if it.config.is_some() => start(&[it], args),
            Some(_) => {
                let there: Vec<&str> = available(&all).map(|it| it.name).collect();
                Ok(shell::usage(&format!(
                    "`{name}` is not available yet; available: {}",
                    there.join(", ")
                )))
            }
            None => Ok(unknown(name)),
        },
    }
}

fn available(all: &[Experiment]) -> impl Iterator<Item = &Experiment> {
    all.iter().filter(|it| it.config.is_some())
}

fn unknown(name: &str) -> ExitCode {
    let names = NAMES.into_iter().chain(["list", "all"]);
    let hint = match shell::nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`cargo xtask reproduce list` names them".into(),
    };
    shell::usage(&format!("unknown experiment `{name}`: {hint}"))
}

fn list(all: &[Experiment]) {
    println!(
        "{:<18} {:<20} {:>7}  what comes out",
        "experiment", "paper", "pocket"
    );
    for it in all {
        let minutes = it.get("presets.pocket.about.minutes");
        let time = match minutes.and_then(Value::as_integer) {
            Some(minutes) => format!("{minutes} min"),
            None => "–".to_owned(),
        };
        let shows = match it.config {
            Some(_) => it.text("about.shows"),
            None => "not available yet",
        };
        let paper = it.text("about.paper");
        println!("{:<18} {paper:<20} {time:>7}  {shows}", it.name);
        for stand_in in it.stand_ins() {
            println!("{:<48} stand-in on pocket: {stand_in}", "");
        }
    }
    println!();
    println!("presets: pocket (the default), lora, paper; each experiment has all three.");
    println!(
        "pocket's time is for one seed on two cores, once built. Stand-ins are named in every report."
    );
    println!("lora and paper train Stable Diffusion on a GPU: docs/reproduce.md says how long.");
}

/// All rows; prints which experiments are missing.
fn start_all(all: &[Experiment], args: &Reproduce) -> Result<ExitCode> {
    let missing: Vec<&str> = all
        .iter()
        .filter(|it| it.config.is_none())
        .map(|it| it.name)
        .collect();
    if !missing.is_empty() {
        eprintln!(
            "reproduce all: not available yet, skipped: {}",
            missing.join(", ")
        );
    }
    start(&available(all).collect::<Vec<_>>(), args)
}

fn start(experiments: &[&Experiment], args: &Reproduce) -> Result<ExitCode> {
    let mut words: Vec<String> = experiments
        .iter()
        .map(|experiment| file_of(experiment.name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_that_there_is_says_where_it_stands_and_how_long_it_takes() {
        let all = Experiment::all().expect("configurations");
        let there: Vec<&Experiment> = available(&all).collect();
        assert_eq!(there.len(), NAMES.len());
        for it in there {
            assert_eq!(it.text("experiment"), it.name);
            for key in [
                "about.paper",
                "about.shows",
                "about.found",
                "presets.pocket.about.replaced",
            ] {
                assert!(!it.text(key).is_empty(), "{}: {key}", it.name);
            }
            let minutes = it.get("presets.pocket.about.minutes");
            assert!(minutes.and_then(Value::as_integer).is_some(), "{}", it.name);
        }
    }

    #[test]
    fn stand_ins_are_found_wherever_they_stand() {
        let all = Experiment::all().expect("configurations");
        let of = |name| {
            all.iter()
                .find(|it| it.name == name)
                .expect(name)
                .stand_ins()
        };
        assert!(of("compressibility").is_empty());
        assert!(of("aesthetic").contains("colourfulness for aesthetic"));
        assert_eq!(of("samples").len(), 2);
    }
}
