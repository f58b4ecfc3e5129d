//! A run that somebody made: its configuration and its checkpoints, from its folder.

use std::path::Path;

use ddpo_train::{Checkpoint, Checkpoints};

use crate::config::{Plan, Source};
use crate::failure::{Exit, Failure, Result};
use crate::output::CONFIG;

/// The configuration that the run was made with, and what is `set` otherwise.
pub fn plan(run: &Path, set: &[String]) -> Result<Plan> {
    let file = run.join(CONFIG);
    if !file.is_file() {
        let shown = run.display();
        let message =
            format!("{shown} is no run: it has no {CONFIG}; expected what `ddpo run --out` wrote");
        return Err(Failure::new(Exit::Data, message));
    }
    Plan::load(&Source {
        file: Some(file),
        set: set.to_vec(),
        ..Source::default()
    })
}

/// The run's checkpoint after so many epochs; its last when not said.
pub fn checkpoint(run: &Path, epoch: Option<u64>) -> Result<Checkpoint> {
    let folder = run.join("checkpoints");
    let shown = run.display();
    let none = |what: String| Failure::new(Exit::Data, format!("{shown} has no {what}"));
    let first = "checkpoint yet: run.checkpoint_every says when the first is written";
    if !folder.is_dir() {
        return Err(none(first.to_owned()));
    }
    let all = Checkpoints::of(&folder);
    if let Some(epoch) = epoch {
        let found = all.after(epoch)?;
        return found.ok_or_else(|| {
            none(format!(
                "checkpoint after epoch {epoch}: run.checkpoint_every and run.keep_checkpoints say which are kept"
            ))
        });
    }
    let found = all.latest()?;
    let checkpoint = found.ok_or_else(|| none(first.to_owned()))?;
    for damage in &checkpoint.passed_over {
        eprintln!("warning: {damage}; taking an older one");
    }
    Ok(checkpoint)
}
