//! The terminal, shared by all runs of a process: a bar for each run, one for the whole, lines above them.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where runs show themselves. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Screen {
    all: MultiProgress,
    total: Option<ProgressBar>,
}

impl Screen {
    /// For one run.
    pub fn new() -> Self {
        Self::default()
    }

    /// For several runs with so many epochs in all, `done` of which are done.
    pub fn of_several(name: &str, n_runs: usize, n_epochs: u64) -> Self {
        let screen = Self::new();
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {pos}/{len} epochs, {elapsed} gone, {eta} left",
        );
        let total = screen.all.add(ProgressBar::new(n_epochs));
        total.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        total.set_prefix(format!("{name}: {n_runs} runs"));
        total.enable_steady_tick(Duration::from_secs(1));
        Self {
            total: Some(total),
            ..screen
        }
    }

    /// A bar for one run.
    pub fn bar(&self) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(1));
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }

    /// One epoch of some run is done.
    pub fn epochs_done(&self, n: u64) {
        if let Some(total) = &self.total {
            total.inc(n);
        }
    }

    /// Prints a result above the bars, to standard output.
    pub fn result(&self, text: &str) {
        self.all.suspend(|| println!("{text}"));
    }

    /// Prints above the bars.
    pub fn line(&self, text: &str) {
        self.all.suspend(|| eprintln!("{text}"));
    }
}
