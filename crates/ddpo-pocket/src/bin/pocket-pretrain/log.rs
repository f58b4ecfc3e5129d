//! Progress of a training on the terminal.

use std::time::{Duration, Instant};

use ddpo_pocket::pretrain::Progress;

use crate::args::Args;

/// Progress on standard error every few seconds: step, loss (averaged since the last line), rate and time left.
pub struct Log {
    stage: &'static str,
    started: Instant,
    first_step: Option<u64>,
    shown: Instant,
    saved: Instant,
    every: Duration,
    losses: Vec<f64>,
}

impl Log {
    pub fn new(stage: &'static str, args: &Args) -> Self {
        let now = Instant::now();
        let every = Duration::from_secs_f64(60.0 * args.checkpoint_minutes);
        Self {
            stage,
            started: now,
            first_step: None,
            shown: now,
            saved: now,
            every,
            losses: Vec::new(),
        }
    }

    /// Whether a checkpoint is due.
    pub fn tick(&mut self, progress: Progress) -> bool {
        let first = *self.first_step.get_or_insert(progress.step - 1);
        self.losses.push(progress.loss);
        if self.shown.elapsed() > Duration::from_secs(20) {
            let rate = (progress.step - first) as f64 / self.started.elapsed().as_secs_f64();
            let left = (progress.total - progress.step) as f64 / rate;
            let loss = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
            self.line(&format!(
                "step {}/{}, loss {loss:.4}, lr {:.2e}, grad {:.2}, {:.1} scenes/s, {:.0} min left",
                progress.step,
                progress.total,
                progress.lr,
                progress.grad_norm,
                rate * progress.samples_per_step as f64,
                left / 60.0
            ));
            self.losses.clear();
            self.shown = Instant::now();
        }
        let due = self.saved.elapsed() > self.every;
        if due {
            self.saved = Instant::now();
        }
        due
    }

    pub fn line(&self, text: &str) {
        eprintln!("{}: {text}", self.stage);
    }
}
