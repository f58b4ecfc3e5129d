//! Rewards to weights, in f64 and without tensors.

use std::collections::BTreeMap;

use ddpo_train::{Error, Result, moments};

/// Added to the standard deviation that rewards are divided by, as in DDPO's batch normalisation.
const STD_EPS: f64 = 1e-8;

/// How a reward becomes the weight of its sample in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weighting {
    /// RWR: `n exp(β r) / Σ exp(β r)`, so that the mean over the `n` samples is 1 (paper, section 4.2; the
    /// factor n is the JAX code's, `utils/hdf5.py` `make_weights`).
    Softmax {
        /// β, the inverse temperature: 0.2 (paper, table D.5).
        beta: f64,
        /// What r is.
        rewards: Rewards,
    },
    /// Sparse RWR: `1[r ≥ C]` with C a percentile of the rewards (paper, section 4.2).
    Percentile {
        /// Share of samples below C: 0.9 (paper, table D.5).
        percentile: f64,
    },
}

/// Which rewards a softmax sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewards {
    /// As the reward gave them, in its unit (the JAX code). How sharp the weights are depends on that unit.
    Raw,
    /// Minus their mean, over their population standard deviation: the paper's wording in appendix D.3 can be
    /// read so.
    Standardised,
}

/// Which samples a weight is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All samples of the round (JAX on both JPEG rewards).
    Pool,
    /// Those of the same prompt (paper, appendix D.3; JAX on the aesthetic reward).
    PerPrompt,
}

impl Weighting {
    /// The weight of each sample of a round. A prompt is known by its text.
    ///
    /// Softmax weights are positive (unless they underflow) with mean 1 over the scope; those of a percentile
    /// are 0 or 1, and at least one of each scope is 1. Adding a constant to all rewards changes nothing.
    ///
    /// # Errors
    /// [`Error::Config`] if prompts and rewards differ in number.
    pub fn weigh(&self, scope: Scope, prompts: &[&str], rewards: &[f64]) -> Result<Vec<f64>> {
        if prompts.len() != rewards.len() {
            let expected = format!("must be one for each of {} rewards", rewards.len());
            return Err(Error::config("prompts", prompts.len(), expected));
        }
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, prompt) in prompts.iter().enumerate() {
            let key = match scope {
                Scope::Pool => "",
                Scope::PerPrompt => prompt,
            };
            groups.entry(key).or_default().push(at);
        }
        let mut weights = vec![0.0; rewards.len()];
        for group in groups.values() {
            let of_group: Vec<f64> = group.iter().map(|&at| rewards[at]).collect();
            for (&at, weight) in group.iter().zip(self.of_group(&of_group)) {
                weights[at] = weight;
            }
        }
        Ok(weights)
    }

    fn of_group(&self, rewards: &[f64]) -> Vec<f64> {
        match *self {
            Self::Softmax {
                beta,
                rewards: kind,
            } => softmax(&kind.seen(rewards), beta),
            Self::Percentile { percentile } => {
                let least = quantile(rewards, percentile);
                let kept = |&reward: &f64| f64::from(u8::from(reward >= least));
                rewards.iter().map(kept).collect()
            }
        }
    }
}

impl Rewards {
    fn seen(self, rewards: &[f64]) -> Vec<f64> {
        match self {
            Self::Raw => rewards.to_vec(),
            Self::Standardised => {
                let (mean, std) = moments(rewards.iter().copied());
                rewards
                    .iter()
                    .map(|r| (r - mean) / (std + STD_EPS))
                    .collect()
            }
        }
    }
}

/// How many equal weights would give a mean as noisy: `(Σ w)² / Σ w²` (Kish 1965).
pub fn effective_samples(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    sum * sum / squares
}

/// `n exp(β r) / Σ exp(β r)`; the largest exponent is 0, so that nothing overflows.
fn softmax(rewards: &[f64], beta: f64) -> Vec<f64> {
    let largest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps = rewards.iter().map(|r| (beta * (r - largest)).exp());
    let scale = rewards.len() as f64 / exps.clone().sum::<f64>();
    exps.map(|e| e * scale).collect()
}

/// `numpy.percentile(rewards, 100 p)`: linear between the two nearest ranks, as the JAX code's.
pub fn quantile(rewards: &[f64], p: f64) -> f64 {
    let mut sorted = rewards.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NEG_INFINITY;
    };
    let at = p * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}
