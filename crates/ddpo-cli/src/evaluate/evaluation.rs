//! `eval.csv`: what the policy is worth on fixed prompts from fixed noise, before, through and after training.
//!
//! The prompts and the noise of a set are the same at every evaluation of a seed, whatever the algorithm, so that
//! policies are compared image by image. A set's noise is keyed by its name: another list of sets leaves it
//! as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use ddpo_eval::evals::EVAL_COLUMNS;
use ddpo_eval::stats::Summary;
use ddpo_reward::{Images, Prompt};
use ddpo_sched::{KeyedNoise, Seeds, Stream};
use ddpo_train::{Boundary, Error, Event, Observer, RewardWorker};
use indicatif::ProgressBar;

use super::panel::Panel;
use crate::config::{EvalPlan, Prompts};
use crate::output::{append, cut};
use crate::screen::Screen;

/// Draws, scores and writes.
pub struct Evaluation<'a> {
    path: PathBuf,
    plan: EvalPlan,
    rewards: &'a RewardWorker,
    panel: Panel,
    seeds: Seeds,
    batch: usize,
    title: String,
    screen: Screen,
    bar: ProgressBar,
}

impl<'a> Evaluation<'a> {
    /// Into this folder, `batch` images at a time, with progress on the bar of the run called `title`.
    pub fn new(
        folder: &Path,
        plan: &EvalPlan,
        panel: Panel,
        rewards: &'a RewardWorker,
        seeds: Seeds,
        batch: usize,
        (title, screen, bar): (&str, &Screen, ProgressBar),
    ) -> Self {
        if let Some(note) = plan.left_out.as_ref().filter(|_| !plan.sets.is_empty()) {
            screen.line(&format!("{title}: {note}"));
        }
        Self {
            path: folder.join("eval.csv"),
            plan: plan.clone(),
            rewards,
            panel,
            seeds,
            batch,
            title: title.to_owned(),
            screen: screen.clone(),
            bar,
        }
    }

    fn evaluate(&mut self, boundary: &Boundary<'_>) -> Result<()> {
        let mut rows = Vec::new();
        for set in &self.plan.sets {
            let asked = asked(set.prompts(), self.plan.samples);
            let (images, rewards) = self.draw(boundary, set, &asked)?;
            let prompts: Vec<Prompt> = asked.iter().map(|(_, prompt)| prompt.clone()).collect();
            let measured = self.panel.measure(&images, &prompts)?;
            let values: Vec<f64> = rewards.iter().map(|&r| f64::from(r)).collect();
            let summary = Summary::of(&values)?;
            self.screen.line(&format!(
                "{}: {} on `{}` after epoch {}: {:.4} ± {:.4} ({} samples)",
                self.title,
                self.rewards.name(),
                set.name(),
                boundary.epochs_done,
                summary.mean,
                summary.standard_error,
                summary.n
            ));
            rows.extend(
                asked
                    .iter()
                    .zip(&rewards)
                    .enumerate()
                    .map(|(at, (sample, reward))| {
                        let mut cells = cells(boundary, set, sample, *reward);
                        cells.extend(measured.iter().map(|values| values[at].to_string()));
                        cells
                    }),
            );
        }
        cut(&self.path, boundary.epochs_done)?;
        let columns: Vec<&str> = EVAL_COLUMNS
            .into_iter()
            .chain(self.panel.columns())
            .collect();
        append(&self.path, &columns, rows.into_iter())?;
        self.warn_of_parting(boundary.epochs_done)
    }

    /// Says so when reward and judge part at this evaluation.
    fn warn_of_parting(&self, epochs_done: u64) -> Result<()> {
        let (Some(rule), Some(set)) = (&self.plan.stop_rule, self.plan.sets.first()) else {
            return Ok(());
        };
        let rule = rule.on(set);
        let found = rule.apply(&ddpo_eval::evals::read(&self.path)?);
        let found = found.map_err(anyhow::Error::msg)?;
        if found
            .hacking_onset
            .as_ref()
            .is_some_and(|hacking_onset| hacking_onset.at.epoch == epochs_done)
        {
            self.screen
                .line(&format!("{}: {}", self.title, found.statement(&rule)));
        }
        Ok(())
    }

    /// Images and their rewards; they go to the reward as they come.
    fn draw(
        &self,
        boundary: &Boundary<'_>,
        set: &Prompts,
        asked: &[(u64, Prompt)],
    ) -> Result<(Images, Vec<f32>)> {
        let noise = KeyedNoise::of_stream(self.seeds, Stream::Evaluation, noise_key(set.name()));
        self.bar
            .set_prefix(format!("{}: evaluating `{}`", self.title, set.name()));
        self.bar
            .set_length((asked.len() * boundary.n_steps()) as u64);
        self.bar.set_position(0);
        let (mut tickets, mut drawn) = (Vec::new(), Vec::new());
        for chunk in asked.chunks(self.batch) {
            let (ids, prompts): (Vec<u64>, Vec<Prompt>) = chunk.iter().cloned().unzip();
            let images = boundary.draw(&prompts, &ids, &noise, &mut |n| {
                self.bar.inc(n as u64);
            })?;
            let images = Arc::new(images);
            tickets.push(self.rewards.submit(Arc::clone(&images), prompts));
            drawn.push(images);
        }
        let mut rewards = Vec::with_capacity(asked.len());
        for ticket in tickets {
            rewards.extend(ticket.wait()?);
        }
        // Whoever scored them is done with them: no copy, but where a worker has not let go yet.
        let drawn: Vec<Images> = drawn.into_iter().map(Arc::unwrap_or_clone).collect();
        Ok((Images::concat(&drawn)?, rewards))
    }
}

impl Observer for Evaluation<'_> {
    fn on(&mut self, event: &Event<'_>) -> ddpo_train::Result<()> {
        let Event::Resumed { epochs_done, .. } = event else {
            return Ok(());
        };
        // The evaluation at the checkpoint was written before the checkpoint.
        cut(&self.path, epochs_done + 1)
            .map_err(|error| Error::observer(error.into_boxed_dyn_error()))
    }

    fn at_boundary(&mut self, boundary: &Boundary<'_>) -> ddpo_train::Result<()> {
        let due = boundary.last || boundary.epochs_done.is_multiple_of(self.plan.every);
        if !due || self.plan.sets.is_empty() {
            return Ok(());
        }
        self.evaluate(boundary)
            .with_context(|| format!("evaluation after epoch {}", boundary.epochs_done))
            .map_err(|error| match error.downcast::<Error>() {
                // A reward that failed keeps its kind, and with it the exit code.
                Ok(known) => known,
                Err(other) => Error::observer(other.into_boxed_dyn_error()),
            })
    }
}

/// Sample ids and their prompts: the set over and over, as long as samples are wanted.
fn asked(prompts: &[Prompt], samples: usize) -> Vec<(u64, Prompt)> {
    (0..)
        .zip(prompts.iter().cycle().take(samples).cloned())
        .collect()
}

/// The key that a set's noise has in the stream of evaluations; progress images have 0.
fn noise_key(set: &str) -> u64 {
    1 + u64::from(crc32fast::hash(set.as_bytes()))
}

fn cells(
    boundary: &Boundary<'_>,
    set: &Prompts,
    (sample_id, prompt): &(u64, Prompt),
    reward: f32,
) -> Vec<String> {
    vec![
        boundary.epochs_done.to_string(),
        boundary.reward_queries.to_string(),
        set.name().to_owned(),
        sample_id.to_string(),
        prompt.text.clone(),
        reward.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use ddpo_reward::prompts::PromptSet;

    use super::*;

    #[test]
    fn every_prompt_is_asked_equally_often_where_the_number_allows_it() {
        let prompts = PromptSet::Animals.prompts();
        let asked = asked(&prompts, 90);
        assert_eq!(asked.len(), 90);
        assert!(
            (0..).zip(&asked).all(|(id, (sample, prompt))| *sample == id
                && prompt.text == prompts[id as usize % 45].text)
        );
    }

    #[test]
    fn sets_have_noise_of_their_own_apart_from_progress_images() {
        let keys: std::collections::BTreeSet<u64> = PromptSet::ALL
            .into_iter()
            .map(|set| noise_key(set.name()))
            .collect();
        assert_eq!(keys.len(), PromptSet::ALL.len());
        assert!(!keys.contains(&0));
    }
}
