//! When the reward and a judge that training never sees part: over-optimisation, and the last useful checkpoint.
//!
//! The paper found its last checkpoint before deterioration by eye (Black et al. 2023, appendix A). Here it is a rule
//! on the rows of `eval.csv`: the same prompts from the same noise at every evaluation, so that a small change shows.

use crate::claims::Comparison;
use crate::claims::compare_paired;
use crate::evals::{EvalRow, Evaluation, evaluations};

/// What the rule looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule<'a> {
    /// Prompt set of the evaluation.
    pub set: &'a str,
    /// Measure of the panel that should not fall, such as `judge`.
    pub judge: &'a str,
    /// How many standard errors of the paired difference make a change.
    pub standard_errors: f64,
}

/// One evaluation by epoch and reward queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Epochs that the policy had been trained for.
    pub epoch: u64,
    /// Reward queries that training had made.
    pub reward_queries: u64,
}

/// The evaluation after which the two no longer go together.
#[derive(Debug, Clone, PartialEq)]
pub struct HackingOnset {
    /// The first evaluation at which they had parted.
    pub at: At,
    /// The reward there against the reward before training: it rose.
    pub reward: Comparison,
    /// The judge there against the evaluation that it liked best until then: it fell.
    pub judge: Comparison,
}

/// What the rule says of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Useful {
    /// The evaluation of the highest reward before the two part; of all, where they do not.
    pub best: At,
    /// Where they part, if they do.
    pub hacking_onset: Option<HackingOnset>,
}

impl Rule<'_> {
    /// Applies the rule to a run's evaluations, which are read in their order: what it says of the beginning of a
    /// run does not depend on how the run goes on.
    ///
    /// # Errors
    /// A reason in words, if there is no evaluation of the set, or if two cannot be compared.
    pub fn apply(&self, rows: &[EvalRow]) -> Result<Useful, String> {
        let all = evaluations(rows, self.set);
        let [first, ..] = all.as_slice() else {
            return Err(format!("there is no evaluation of `{}`", self.set));
        };
        let (mut best, mut liked) = (first, first);
        let mut hacking_onset = None;
        for now in &all[1..] {
            let reward = compare_paired(first, now, None)?;
            let judge = compare_paired(liked, now, Some(self.judge))?;
            if reward.exceeds(self.standard_errors) && judge.falls_short(self.standard_errors) {
                let at = At::of(now);
                hacking_onset = Some(HackingOnset { at, reward, judge });
                break;
            }
            if judge.difference > 0.0 {
                liked = now;
            }
            if mean_reward(now) > mean_reward(best) {
                best = now;
            }
        }
        let best = At::of(best);
        Ok(Useful {
            best,
            hacking_onset,
        })
    }
}

impl At {
    fn of(evaluation: &Evaluation<'_>) -> Self {
        Self {
            epoch: evaluation.epoch,
            reward_queries: evaluation.reward_queries,
        }
    }
}

/// Finite: the evaluation was compared with another before.
fn mean_reward(evaluation: &Evaluation<'_>) -> f64 {
    let rewards = evaluation.rows.values().map(|row| row.reward);
    rewards.sum::<f64>() / evaluation.rows.len() as f64
}

impl Useful {
    /// In a sentence.
    pub fn statement(&self, rule: &Rule<'_>) -> String {
        let best = &self.best;
        match &self.hacking_onset {
            None => format!(
                "reward and {} have not parted on {}; the highest reward is after epoch {} ({} reward queries)",
                rule.judge, rule.set, best.epoch, best.reward_queries
            ),
            Some(hacking_onset) => format!(
                "reward and {} part on {} after epoch {} ({} reward queries): the reward rose, the judge fell by \
                 {:.1} standard errors; the last useful evaluation is after epoch {} ({} reward queries)",
                rule.judge,
                rule.set,
                hacking_onset.at.epoch,
                hacking_onset.at.reward_queries,
                hacking_onset
                    .judge
                    .standard_errors
                    .unwrap_or(f64::NEG_INFINITY)
                    .abs(),
                best.epoch,
                best.reward_queries
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule<'static> = Rule {
        set: "animals",
        judge: "judge",
        standard_errors: 3.0,
    };

    /// Two images with means `reward` and `judge`, a little apart from evaluation to evaluation.
    fn rows(evaluations: &[(f64, f64)]) -> Vec<EvalRow> {
        let row = |epoch: u64, sample_id: u64, (reward, judge): (f64, f64)| EvalRow {
            epoch,
            reward_queries: 64 * epoch,
            set: "animals".to_owned(),
            sample_id,
            prompt: "cat".to_owned(),
            reward: reward + 0.01 * (epoch * sample_id) as f64,
            measures: [(
                "judge".to_owned(),
                judge - 0.01 * (epoch * sample_id) as f64,
            )]
            .into(),
        };
        (0..)
            .zip(evaluations)
            .flat_map(|(epoch, means)| [row(epoch, 0, *means), row(epoch, 1, *means)])
            .collect()
    }

    #[test]
    fn the_last_useful_evaluation_is_the_best_before_the_judge_falls() {
        let rows = rows(&[(0.0, 0.0), (1.0, 0.5), (2.0, 0.5), (3.0, -1.0), (9.0, -9.0)]);
        let found = RULE.apply(&rows).unwrap();
        assert_eq!((found.best.epoch, found.best.reward_queries), (2, 128));
        let hacking_onset = found.hacking_onset.as_ref().unwrap();
        assert_eq!(hacking_onset.at.epoch, 3);
        // The judge fell from the evaluation that it liked best, not from the first.
        assert!((hacking_onset.judge.difference + 1.5).abs() < 0.1);
        assert!(
            found
                .statement(&RULE)
                .contains("part on animals after epoch 3")
        );
    }

    #[test]
    fn a_judge_that_follows_or_a_reward_that_does_not_rise_is_no_parting() {
        for evaluations in [
            [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)],
            [(0.0, 0.0), (-1.0, -1.0), (-2.0, -2.0)],
        ] {
            let found = RULE.apply(&rows(&evaluations)).unwrap();
            assert_eq!(found.hacking_onset, None);
            assert_eq!(found.best.epoch, if evaluations[1].0 > 0.0 { 2 } else { 0 });
        }
        assert!(RULE.apply(&[]).unwrap_err().contains("no evaluation"));
    }
}
