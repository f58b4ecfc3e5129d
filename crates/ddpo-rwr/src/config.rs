//! The numbers of RWR, each with its source, and what must hold between them.

use ddpo_train::{Error, Result};

use crate::{Rewards, Scope, Weighting};

/// The numbers of RWR. Totals are over all ranks.
///
/// Whether training is guided is not among them: the policy's [`accumulate`](ddpo_train::Policy::accumulate)
/// guides or does not (paper, appendix E.1: guided).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RwrConfig {
    /// RWR or sparse RWR.
    pub weighting: Weighting,
    /// Per prompt (paper, appendix D.3), or over the round (JAX on the JPEG rewards).
    pub scope: Scope,
    /// Samples per round: 10,000 (paper, table D.5); 10,240 in JAX, where sparse RWR samples until 1,024 are kept.
    pub samples_per_round: usize,
    /// How many samples in a row get one prompt: 1 in JAX's RWR; 32 in its sparse RWR (`identical_batch`, 8
    /// devices of 4), which is how a percentile per prompt comes to have enough samples.
    pub samples_per_prompt: usize,
    /// Updates per round: 400 (paper, table D.5), which are 5 passes over all samples or 50 over
    /// a tenth of them.
    pub updates_per_round: usize,
    /// Samples per update: 128 (paper, table D.5).
    pub batch: usize,
    /// What is trained on.
    pub latents: Latents,
    /// What becomes of the optimiser's moments between rounds.
    pub moments: Moments,
    /// In which order samples are trained on.
    pub order: Order,
    /// Samples in one denoising batch of one rank. Changes memory and speed only.
    pub sample_batch: usize,
    /// Samples in one training pass of one rank. Changes memory and speed only.
    pub micro_batch: usize,
    /// Global norm that gradients are clipped to: 1.0 (paper, table D.5).
    pub max_grad_norm: f64,
    /// After how many skipped updates in a row the run ends.
    pub max_skipped: u32,
}

/// Which x₀ the denoising loss is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latents {
    /// Drawn from the encoder's posterior of the decoded image, afresh for every update (the JAX code).
    Reencoded,
    /// The latents that were sampled (the paper's x₀ ~ p_θ).
    Sampled,
}

/// What becomes of the optimiser's moments between rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// Forgotten: each round starts a new AdamW (the JAX code, `finetune.py`, one process per round).
    Fresh,
    /// Carried over from round to round, as DDPO does.
    Carried,
}

/// In which order samples are trained on, pass after pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they were drawn, in every pass (the JAX code: `shuffle=False`).
    Constant,
    /// Another order in every pass.
    Shuffled,
}

impl RwrConfig {
    /// RWR as in the paper's table D.5 and appendix D.3, with the JAX code's choices where the paper has none.
    pub fn softmax() -> Self {
        Self {
            weighting: Weighting::Softmax {
                beta: 0.2,
                rewards: Rewards::Raw,
            },
            scope: Scope::PerPrompt,
            samples_per_round: 10_240,
            samples_per_prompt: 1,
            updates_per_round: 400,
            batch: 128,
            latents: Latents::Reencoded,
            moments: Moments::Fresh,
            order: Order::Constant,
            sample_batch: 8,
            micro_batch: 8,
            max_grad_norm: 1.0,
            max_skipped: 3,
        }
    }

    /// Sparse RWR likewise.
    pub fn sparse() -> Self {
        Self {
            weighting: Weighting::Percentile { percentile: 0.9 },
            samples_per_prompt: 32,
            ..Self::softmax()
        }
    }

    /// Samples of a round that one rank draws.
    pub fn samples_per_rank(&self, world: usize) -> usize {
        self.samples_per_round / world.max(1)
    }

    /// Samples of an update that one rank trains on.
    pub fn batch_per_rank(&self, world: usize) -> usize {
        self.batch / world.max(1)
    }

    /// Refuses numbers that do not fit together, with the arithmetic.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn check(&self, world: usize) -> Result<()> {
        for (key, count) in [
            ("samples_per_round", self.samples_per_round),
            ("samples_per_prompt", self.samples_per_prompt),
            ("updates_per_round", self.updates_per_round),
            ("batch", self.batch),
            ("sample_batch", self.sample_batch),
            ("micro_batch", self.micro_batch),
        ] {
            if count == 0 {
                return Err(Error::config(key, count, "must be at least 1"));
            }
        }
        for (key, count) in [
            ("samples_per_round", self.samples_per_round),
            ("batch", self.batch),
        ] {
            if world == 0 || !count.is_multiple_of(world) {
                let expected = format!("must be a multiple of {world}, the number of ranks");
                return Err(Error::config(key, count, expected));
            }
        }
        let whole = ("samples_per_round", self.samples_per_round);
        Error::unless_divides(("samples_per_prompt", self.samples_per_prompt), whole)?;
        match self.weighting {
            Weighting::Softmax { beta, .. } if !(beta >= 0.0 && beta.is_finite()) => {
                return Err(Error::config("beta", beta, "must not be negative"));
            }
            Weighting::Percentile { percentile } if !(0.0..1.0).contains(&percentile) => {
                return Err(Error::config("percentile", percentile, "must be in [0, 1)"));
            }
            _ => {}
        }
        if !(self.max_grad_norm > 0.0 && self.max_grad_norm.is_finite()) {
            let (key, value) = ("max_grad_norm", self.max_grad_norm);
            return Err(Error::config(key, value, "must be positive"));
        }
        Ok(())
    }
}
