//! Rewards to advantages, in f64: how much better than usual a sample is, for its own prompt.

use std::collections::{BTreeMap, VecDeque};

use ddpo_reward::Prompt;
use ddpo_train::{Error, Persist, Result, StateReader, StateWriter, moments};

/// Added to the standard deviation of a prompt or of the batch it falls back to (ddpo-pytorch
/// `stat_tracking.py`; jannerm/ddpo `utils/stat_tracking.py`).
const PROMPT_EPS: f64 = 1e-6;
/// Added to the standard deviation of a batch without tracking (ddpo-pytorch `scripts/train.py`; the JAX
/// code adds nothing, which fails on a batch of equal rewards).
const BATCH_EPS: f64 = 1e-8;
/// Added to the standard deviation of a group (Flow-GRPO, `flow_grpo/stat_tracking.py`; TRL's `GRPOTrainer` adds the same
/// to a deviation with n − 1).
const GROUP_EPS: f64 = 1e-4;

/// What a reward is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The latest rewards of the same prompt (paper, appendix D.3), once there are enough of them.
    PerPrompt {
        /// How many there are at most: 32 in JAX; 16 for (in)compressibility, 32 otherwise in ddpo-pytorch.
        buffer_size: usize,
        /// From how many on they are used: 16 in both. Below, the whole batch is.
        min_count: usize,
    },
    /// The rewards of the epoch.
    Batch,
    /// The rewards of the same prompt in this epoch alone: GRPO's normalisation (Shao et al. 2024, section 4.1).
    Group {
        /// How many samples of neighbouring ids have one prompt.
        size: usize,
    },
}

/// Running rewards of every prompt.
///
/// For each prompt of a batch: its rewards are appended to the prompt's ring buffer; with fewer than
/// `min_count` entries the mean and deviation of the *whole batch* are used, otherwise those of the buffer,
/// which already holds the current rewards. Deviations are population deviations plus 1e-6. Buffers persist
/// over epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptStats {
    baseline: Baseline,
    buffers: BTreeMap<String, VecDeque<f64>>,
}

impl PromptStats {
    /// No rewards yet.
    pub fn new(baseline: Baseline) -> Self {
        Self {
            baseline,
            buffers: BTreeMap::new(),
        }
    }

    /// Takes in the rewards of an epoch and gives the advantage of each.
    ///
    /// A prompt is known by its text. The order of samples decides which rewards a full buffer drops, so it
    /// must be the same on every rank: by sample id.
    ///
    /// # Errors
    /// [`Error::Config`] if prompts and rewards differ in number.
    pub fn update(&mut self, prompts: &[Prompt], rewards: &[f32]) -> Result<Vec<f64>> {
        if prompts.len() != rewards.len() {
            let expected = format!("must be one for each of {} rewards", rewards.len());
            return Err(Error::config("prompts", prompts.len(), expected));
        }
        let rewards: Vec<f64> = rewards.iter().copied().map(f64::from).collect();
        let (buffer_size, min_count) = match self.baseline {
            Baseline::Batch => return Ok(normalise(&rewards, BATCH_EPS)),
            Baseline::Group { size } => {
                let groups = rewards.chunks(size.max(1));
                return Ok(groups
                    .flat_map(|group| normalise(group, GROUP_EPS))
                    .collect());
            }
            Baseline::PerPrompt {
                buffer_size,
                min_count,
            } => (buffer_size, min_count),
        };
        for (prompt, &reward) in prompts.iter().zip(&rewards) {
            let buffer = self.buffers.entry(prompt.text.clone()).or_default();
            if buffer.len() == buffer_size {
                buffer.pop_front();
            }
            buffer.push_back(reward);
        }
        let batch = moments(rewards.iter().copied());
        let usual: BTreeMap<&str, (f64, f64)> = prompts
            .iter()
            .map(|prompt| {
                let buffer = &self.buffers[&prompt.text];
                let known = buffer.len() >= min_count;
                let usual = if known {
                    moments(buffer.iter().copied())
                } else {
                    batch
                };
                (prompt.text.as_str(), usual)
            })
            .collect();
        let advantage = |(prompt, reward): (&Prompt, &f64)| {
            let (mean, std) = usual[prompt.text.as_str()];
            (reward - mean) / (std + PROMPT_EPS)
        };
        Ok(prompts.iter().zip(&rewards).map(advantage).collect())
    }

    /// The rewards in a prompt's buffer, oldest first.
    pub fn rewards_of(&self, prompt: &str) -> Option<Vec<f64>> {
        let buffer = self.buffers.get(prompt)?;
        Some(buffer.iter().copied().collect())
    }
}

impl Persist for PromptStats {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("buffers", &self.buffers)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.buffers = from.value("buffers")?;
        Ok(())
    }
}

/// `(r − mean) / (std + eps)` with the population deviation.
pub fn normalise(rewards: &[f64], eps: f64) -> Vec<f64> {
    let (mean, std) = moments(rewards.iter().copied());
    rewards.iter().map(|r| (r - mean) / (std + eps)).collect()
}
