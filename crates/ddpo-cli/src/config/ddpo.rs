//! `[rl]`: the numbers that are DDPO's own.

use ddpo_sched::LogProb;

use super::method::Algorithm;
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

pub(super) fn read(r: &mut Reader, algorithm: Algorithm) -> DdpoPlan {
    let plan = DdpoPlan {
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
    };
    plan.check(r, algorithm);
    plan.check_groups(r);
    plan
}

impl DdpoPlan {
    /// Whether samples that share a prompt are enough, and come out even.
    fn check_groups(&self, r: &mut Reader) {
        let (samples, together) = (self.samples_per_epoch, self.samples_per_prompt);
        let alone = together == 1;
        if self.baseline == BaselineKind::Group && alone {
            let problem = "is 1, and rl.baseline is \"group\": a sample has no others to be compared with, expected at least 2";
            r.problem("rl.samples_per_prompt", problem);
        }
        if self.baseline == BaselineKind::Group && together > 1 && !samples.is_multiple_of(together)
        {
            let problem = format!(
                "is {together}: {samples} samples = {} × {together} + {} leave a group with fewer",
                samples / together,
                samples % together
            );
            r.problem("rl.samples_per_prompt", problem);
        }
        if self.shared_noise && alone {
            let problem = "is true, and rl.samples_per_prompt is 1: there is nobody to share with, expected at least 2";
            r.problem("rl.shared_noise", problem);
        }
    }

    /// What no single key shows; the arithmetic is in the message.
    fn check(&self, r: &mut Reader, algorithm: Algorithm) {
        let (samples, updates) = (self.samples_per_epoch, self.updates_per_epoch);
        if updates > 0 && !samples.is_multiple_of(updates) {
            let problem = format!(
                "is {updates}: {samples} samples = {} × {updates} + {} cannot be shared out in equal minibatches",
                samples / updates,
                samples % updates
            );
            r.problem("rl.updates_per_epoch", problem);
        }
        if algorithm == Algorithm::DdpoSf && updates > 1 {
            let problem = format!(
                "is {updates}: expected 1, since ddpo-sf's gradient holds for fresh samples only"
            );
            r.problem("rl.updates_per_epoch", problem);
        }
        if self.stats_min_count > self.stats_buffer_size {
            let problem = format!(
                "is {}: a buffer of {} never holds so many",
                self.stats_min_count, self.stats_buffer_size
            );
            r.problem("rl.stats.min_count", problem);
        }
    }
}
