//! What is finished of several experiments: reports as they become whole, an index over them, a summary at the end.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ddpo_eval::report::{Index, IndexEntry};
use ddpo_eval::table::Table;

use super::{Experiment, source};
use crate::commands::args::ReproduceArgs;
use crate::failure::{Exit, Result};
use crate::screen::Screen;
use crate::{output, report};

/// Experiments with how many of their runs are still to be done.
pub struct Ledger<'a> {
    experiments: &'a [Experiment],
    args: &'a ReproduceArgs,
    state: Mutex<Vec<State>>,
}

#[derive(Default)]
struct State {
    runs_left: usize,
    /// Once it is reported on: its part of the index, and whether every claim is met.
    concluded: Option<(IndexEntry, bool)>,
}

impl<'a> Ledger<'a> {
    pub fn new(experiments: &'a [Experiment], args: &'a ReproduceArgs) -> Self {
        let state = |it: &Experiment| State {
            runs_left: it.runs.len(),
            concluded: None,
        };
        Self {
            experiments,
            args,
            state: Mutex::new(experiments.iter().map(state).collect()),
        }
    }

    /// One more run of this experiment is done; after its last, its report is written, and the index anew.
    pub fn run_done(&self, at: usize, screen: &Screen) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state[at].runs_left -= 1;
        if state[at].runs_left > 0 {
            return Ok(());
        }
        let Experiment {
            name, out, folders, ..
        } = &self.experiments[at];
        let records = report::read(folders)?;
        let file = out.join("report.html");
        let report::Written { claims, mut entry } =
            report::write(&records, out, &file, &self.command(name))?;
        let table = Table::of_verdicts(&claims.verdicts).for_terminal();
        screen.result(&format!(
            "{name}: {} runs\n{table}\nreport: {}",
            records.len(),
            file.display()
        ));
        entry.link = format!("{name}/report.html");
        state[at].concluded = Some((entry, claims.all_met()));
        match self.experiments.len() {
            1 => Ok(()),
            _ => output::write(&self.index_file(), &self.index(&state).html()),
        }
    }

    /// Prints what came out; the exit code of the whole.
    pub fn summary(&self) -> Exit {
        let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let concluded = state.iter().filter_map(|it| it.concluded.as_ref());
        let header = ["experiment", "paper", "claims met", "runs", "minutes", ""];
        let mut table = Table::new(header);
        let mut all_met = true;
        for (entry, met) in concluded {
            let n_met = entry.verdicts.iter().filter(|v| v.met).count();
            table = table.row([
                entry.experiment.clone(),
                entry.about.paper.clone(),
                format!("{n_met} of {}", entry.verdicts.len()),
                entry.n_runs.to_string(),
                format!("{:.1}", entry.seconds / 60.0),
                if *met { "met" } else { "NOT MET" }.to_owned(),
            ]);
            all_met &= met;
        }
        if self.experiments.len() > 1 {
            println!("{}", table.for_terminal());
            println!("index: {}", self.index_file().display());
        }
        match all_met {
            true => Exit::Done,
            false => Exit::Claim,
        }
    }

    fn index(&self, state: &[State]) -> Index {
        let concluded = state.iter().filter_map(|it| it.concluded.as_ref());
        let unfinished = self.experiments.iter().zip(state);
        Index {
            preset: source(Path::new(""), self.args).preset().to_owned(),
            entries: concluded.map(|(entry, _)| entry.clone()).collect(),
            unfinished: unfinished
                .filter(|(_, state)| state.concluded.is_none())
                .map(|(it, _)| it.name.clone())
                .collect(),
            command: self.command("all"),
        }
    }

    fn index_file(&self) -> PathBuf {
        let out = self.args.out.clone();
        out.unwrap_or_else(|| PathBuf::from("runs"))
            .join("index.html")
    }

    /// What to type to get this again.
    fn command(&self, experiment: &str) -> String {
        let args = self.args;
        let mut command = format!("cargo xtask reproduce {experiment}");
        if let Some(preset) = &args.preset {
            command += &format!(" --preset {preset}");
        }
        if !args.algorithms.is_empty() {
            command += &format!(" --algorithms {}", args.algorithms.join(","));
        }
        if let Some(seeds) = args.seeds {
            command += &format!(" --seeds {seeds}");
        }
        for pair in &args.set {
            command += &format!(" --set {pair}");
        }
        command
    }
}
