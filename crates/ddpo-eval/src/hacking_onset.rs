//! The onset of reward hacking (overoptimization), and the best checkpoint before it.
//!
//! Reward hacking begins where the reward rises while a held-out judge, which training never sees, falls. The paper
//! picked its last checkpoint before deterioration by eye (Black et al. 2023, appendix A). Here it is a rule on the
//! rows of `eval.csv`, which has the same prompts from the same noise at every evaluation, so that small changes show.

use crate::claims::Comparison;
use crate::claims::compare_paired;
use crate::evals::{EvalRow, EvalRows, evaluations};

/// When to call a run reward hacking.
#[derive(Debug, Clone, PartialEq)]
pub struct OnsetRule<'a> {
    /// Prompt set of the evaluation.
    pub set: &'a str,
    /// Metric that should not fall, such as `held-out-judge`.
    pub judge: &'a str,
    /// How many standard errors of the paired difference count as a change.
    pub standard_errors: f64,
}

/// When an evaluation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalPoint {
    /// Epochs that the policy had been trained for.
    pub epoch: u64,
    /// Reward queries that training had made.
    pub reward_queries: u64,
}

/// The evaluation at which the reward has risen and the judge has fallen.
#[derive(Debug, Clone, PartialEq)]
pub struct HackingOnset {
    /// The first such evaluation.
    pub at: EvalPoint,
    /// The reward there compared with the reward before training: it rose.
    pub reward: Comparison,
    /// The judge there compared with its best evaluation until then: it fell.
    pub judge: Comparison,
}

/// Where to stop a run.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyStop {
    /// The evaluation with the highest reward before the onset; among all evaluations if there is no onset.
    pub best: EvalPoint,
    /// Where reward hacking begins, if it does.
    pub hacking_onset: Option<HackingOnset>,
}

impl OnsetRule<'_> {
    /// Applies the rule to a run's evaluations in order, so that later evaluations do not change what it says about
    /// earlier ones.
    ///
    /// # Errors
    /// A message, if there is no evaluation of the set, or if two cannot be compared.
    pub fn apply(&self, rows: &[EvalRow]) -> Result<EarlyStop, String> {
        let all = evaluations(rows, self.set);
        let [first, ..] = all.as_slice() else {
            return Err(format!("there is no evaluation of `{}`", self.set));
        };
        let (mut best, mut best_judged) = (first, first);
        let mut hacking_onset = None;
        for now in &all[1..] {
            let reward = compare_paired(first, now, None)?;
            let judge = compare_paired(best_judged, now, Some(self.judge))?;
            if reward.exceeds(self.standard_errors) && judge.falls_short(self.standard_errors) {
                let at = EvalPoint::of(now);
                hacking_onset = Some(HackingOnset { at, reward, judge });
                break;
            }
            if judge.difference > 0.0 {
                best_judged = now;
            }
            if mean_reward(now) > mean_reward(best) {
                best = now;
            }
        }
        let best = EvalPoint::of(best);
        Ok(EarlyStop {
            best,
            hacking_onset,
        })
    }
}

impl EvalPoint {
    fn of(evaluation: &EvalRows<'_>) -> Self {
        Self {
            epoch: evaluation.epoch,
            reward_queries: evaluation.reward_queries,
        }
    }
}

/// Finite: the evaluation was compared with another before.
fn mean_reward(evaluation: &EvalRows<'_>) -> f64 {
    let rewards = evaluation.rows.values().map(|row| row.reward);
    rewards.sum::<f64>() / evaluation.rows.len() as f64
}

impl EarlyStop {
    /// As a sentence.
    pub fn statement(&self, rule: &OnsetRule<'_>) -> String {
        let best = &self.best;
        match &self.hacking_onset {
            None => format!(
                "no reward hacking on {}: {} has not fallen while the reward rose; the highest reward is after epoch {} \
                 ({} reward queries)",
                rule.set, rule.judge, best.epoch, best.reward_queries
            ),
            Some(hacking_onset) => format!(
                "reward hacking on {} after epoch {} ({} reward queries): the reward rose, {} fell by {:.1} standard \
                 errors; the best checkpoint before is after epoch {} ({} reward queries)",
                rule.set,
                hacking_onset.at.epoch,
                hacking_onset.at.reward_queries,
                rule.judge,
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

    const RULE: OnsetRule<'static> = OnsetRule {
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
            metrics: [(
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
    fn the_best_checkpoint_is_the_highest_reward_before_the_judge_falls() {
        let rows = rows(&[(0.0, 0.0), (1.0, 0.5), (2.0, 0.5), (3.0, -1.0), (9.0, -9.0)]);
        let found = RULE.apply(&rows).unwrap();
        assert_eq!((found.best.epoch, found.best.reward_queries), (2, 128));
        let hacking_onset = found.hacking_onset.as_ref().unwrap();
        assert_eq!(hacking_onset.at.epoch, 3);
        // The judge is compared with its best evaluation, not with the first.
        assert!((hacking_onset.judge.difference + 1.5).abs() < 0.1);
        assert!(
            found
                .statement(&RULE)
                .contains("reward hacking on animals after epoch 3")
        );
    }

    #[test]
    fn a_rising_judge_or_a_falling_reward_is_no_reward_hacking() {
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
