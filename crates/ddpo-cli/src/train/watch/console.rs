//! What the terminal shows: a bar for the phase that runs, a line for each epoch.

use std::time::{Duration, Instant};

use ddpo_train::{Event, Metrics, Observer, Phase, Result};
use indicatif::{HumanDuration, ProgressBar};

use crate::screen::Screen;

/// A bar on a terminal, lines anywhere.
#[derive(Debug)]
pub struct Console {
    screen: Screen,
    bar: ProgressBar,
    title: String,
    n_epochs: u64,
    /// Start and end of the epochs of this process.
    begin: Instant,
    epoch_begin: Instant,
    epochs_here: u32,
}

impl Console {
    /// Of a run called `title`.
    pub fn new(screen: &Screen, title: String, n_epochs: u64) -> Self {
        let now = Instant::now();
        Self {
            screen: screen.clone(),
            bar: screen.bar(),
            title,
            n_epochs,
            begin: now,
            epoch_begin: now,
            epochs_here: 0,
        }
    }

    /// The bar, for work that is not told of in events.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    fn line(&self, text: &str) {
        self.screen.line(&format!("{}: {text}", self.title));
    }

    /// Time to the end at the mean pace of this process's epochs.
    fn left(&self, epoch: u64) -> Option<Duration> {
        let to_do = u32::try_from(self.n_epochs.saturating_sub(epoch)).ok()?;
        (self.epochs_here > 0).then(|| self.begin.elapsed() / self.epochs_here * to_do)
    }

    fn progress(&self, epoch: u64, phase: Phase, done: u64, total: u64) {
        let what = match phase {
            Phase::Sample => "sampling",
            Phase::Reward => "scoring ",
            Phase::Update => "training",
            _ => "working ",
        };
        let n = self.n_epochs;
        self.bar
            .set_prefix(format!("{}: epoch {}/{n} {what}", self.title, epoch + 1));
        self.bar.set_length(total);
        self.bar.set_position(done);
        if let Some(left) = self.left(epoch) {
            self.bar
                .set_message(format!("about {} left", HumanDuration(left)));
        }
    }

    fn epoch_done(&mut self, epoch: u64, report: &Metrics) {
        self.epochs_here += 1;
        self.screen.epochs_done(1);
        let seconds = self.epoch_begin.elapsed().as_secs_f64();
        let rate = report.reward_queries as f64 / seconds;
        let mut text = format!("epoch {}/{}", epoch + 1, self.n_epochs);
        let shown = [
            ("reward/mean", "reward"),
            ("reward/std", "±"),
            ("policy/clip_fraction", "clipped"),
            ("rwr/effective_samples", "effective samples"),
            ("policy/grad_norm", "gradient"),
        ];
        for (name, label) in shown {
            if let Some(value) = report.get(name) {
                text += &format!("  {label} {value:.4}");
            }
        }
        text += &format!("  {seconds:.1} s ({rate:.1} samples/s)");
        if let Some(left) = self.left(epoch + 1).filter(|left| !left.is_zero()) {
            text += &format!(", about {} left", HumanDuration(left));
        }
        self.line(&text);
    }
}

impl Observer for Console {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match *event {
            Event::EpochStarted { .. } => self.epoch_begin = Instant::now(),
            Event::Progress { epoch, phase, done, total } => self.progress(epoch, phase, done, total),
            Event::RatioChecked { deviation, bound, step, timestep, .. } => self.line(&format!(
                "before the first update |ratio - 1| is at most {deviation:.2e} (step {step}, timestep {timestep}; allowed {bound:.0e})"
            )),
            Event::UpdateSkipped { at, reason, in_a_row } => self.line(&format!(
                "epoch {} update {} skipped: {reason} ({in_a_row} in a row)",
                at.epoch + 1, at.update
            )),
            Event::EpochDone { epoch, report, .. } => self.epoch_done(epoch, report),
            Event::Resumed { epochs_done, .. } => {
                self.screen.epochs_done(epochs_done);
                self.line(&format!("goes on after epoch {epochs_done}"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
