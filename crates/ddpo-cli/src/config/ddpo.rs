//! `[rl]`: the numbers that are DDPO's own.

use ddpo_sched::LogProb;

use super::reader::Reader;

/// DDPO's part of `[rl]`.
#[derive(Debug, Clone, Copy)]
pub struct DdpoPlan {
    /// PPO's clip range of the ratio.
    pub clip_range: f64,
    /// Largest advantage.
    pub advantage_clip: f64,
    /// Samples an epoch, over all ranks.
    pub samples_per_epoch: usize,
    /// Optimiser steps an epoch.
    pub updates_per_epoch: usize,
    /// Whether training uses the guided ε as sampling does.
    pub train_guidance: bool,
    /// Weight of the KL to the reference policy, DPOK's term; 0 for none.
    pub kl_weight: f64,
    /// How a log-probability is reduced over dimensions.
    pub log_prob: LogProb,
    /// Largest |ratio − 1| before the first update, as a part of the clip range.
    pub ratio_bound: f64,
    /// Rewards kept a prompt.
    pub stats_buffer_size: usize,
    /// Rewards that a prompt needs before its own statistics count.
    pub stats_min_count: usize,
    /// What a reward is compared with.
    pub baseline: BaselineKind,
    /// Neighbouring samples of an epoch that share a prompt.
    pub samples_per_prompt: usize,
    /// Whether samples that share a prompt begin from the same initial latent.
    pub shared_noise: bool,
}

/// What a sample's reward is compared with to become its advantage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineKind {
    /// Rewards that its prompt had in this and earlier epochs (Black et al. 2023, appendix D.3).
    Prompt,
    /// All rewards of the epoch.
    Batch,
    /// Rewards of the samples of this epoch that share its prompt: GRPO's group.
    Group,
}

impl BaselineKind {
    /// Names in configurations.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("prompt", Self::Prompt),
        ("batch", Self::Batch),
        ("group", Self::Group),
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Batch => "batch",
            Self::Group => "group",
        }
    }
}

pub(super) fn read(r: &mut Reader) -> DdpoPlan {
    DdpoPlan {
        clip_range: r.number("rl.clip_range"),
        advantage_clip: r.number("rl.advantage_clip"),
        samples_per_epoch: r.count("rl.samples_per_epoch") as usize,
        updates_per_epoch: r.count("rl.updates_per_epoch") as usize,
        train_guidance: r.get("rl.train_guidance"),
        kl_weight: r.number("rl.kl_weight"),
        log_prob: r.choice(
            "rl.log_prob",
            &[("mean", LogProb::Mean), ("sum", LogProb::Sum)],
        ),
        ratio_bound: r.number("rl.ratio_bound"),
        stats_buffer_size: r.count("rl.stats.buffer_size") as usize,
        stats_min_count: r.count("rl.stats.min_count") as usize,
        baseline: r.choice("rl.baseline", &BaselineKind::NAMES),
        samples_per_prompt: r.count("rl.samples_per_prompt") as usize,
        shared_noise: r.get("rl.shared_noise"),
    }
}
