//! `[rwr]`: the numbers of reward-weighted regression.

use ddpo_rwr::{Latents, Moments, Order, Rewards, Scope, Weighting};

use super::reader::Reader;

/// `[rwr]`. What RWR shares with DDPO (AdamW's numbers, the gradient's norm, micro-batches) stands in `[rl]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RwrPlan {
    /// Softmax of RWR, percentile of sparse RWR.
    pub weighting: Weighting,
    /// What a weight is relative to.
    pub scope: Scope,
    /// Samples a round, over all ranks.
    pub samples_per_round: usize,
    /// Samples in a row that get one prompt.
    pub samples_per_prompt: usize,
    /// Optimiser steps a round.
    pub updates_per_round: usize,
    /// Samples an optimiser step, over all ranks.
    pub batch: usize,
    /// Whether training uses the guided ε as sampling does.
    pub train_guidance: bool,
    /// What is trained on.
    pub latents: Latents,
    /// What becomes of the optimiser's moments between rounds.
    pub moments: Moments,
    /// In which order samples are trained on.
    pub order: Order,
}

/// RWR's weights.
pub(super) fn softmax(r: &mut Reader) -> Weighting {
    let rewards = [
        ("raw", Rewards::Raw),
        ("standardised", Rewards::Standardised),
    ];
    Weighting::Softmax {
        beta: r.number("rwr.beta"),
        rewards: r.choice("rwr.rewards", &rewards),
    }
}

/// Sparse RWR's weights.
pub(super) fn percentile(r: &mut Reader) -> Weighting {
    Weighting::Percentile {
        percentile: r.number("rwr.percentile"),
    }
}

pub(super) fn read(r: &mut Reader, weighting: fn(&mut Reader) -> Weighting) -> RwrPlan {
    RwrPlan {
        weighting: weighting(r),
        scope: r.choice(
            "rwr.scope",
            &[("per-prompt", Scope::PerPrompt), ("pool", Scope::Pool)],
        ),
        samples_per_round: r.count("rwr.samples_per_round") as usize,
        samples_per_prompt: r.count("rwr.samples_per_prompt") as usize,
        updates_per_round: r.count("rwr.updates_per_round") as usize,
        batch: r.count("rwr.batch") as usize,
        train_guidance: r.get("rwr.train_guidance"),
        latents: r.choice(
            "rwr.latents",
            &[
                ("re-encoded", Latents::Reencoded),
                ("sampled", Latents::Sampled),
            ],
        ),
        moments: r.choice(
            "rwr.moments",
            &[("fresh", Moments::Fresh), ("kept", Moments::Carried)],
        ),
        order: r.choice(
            "rwr.order",
            &[("constant", Order::Constant), ("shuffled", Order::Shuffled)],
        ),
    }
}
