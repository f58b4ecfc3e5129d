//! Keys of the algorithms: AdamW's for all that train, then those of DDPO, RWR and universal guidance.

use super::Kind::{Choice, Count, Flag, Number};
use super::{Key, names};
use crate::config::Algorithm;
use crate::config::ddpo::BaselineKind;

/// What must be above 0 is at least this.
const TINY: f64 = 1e-12;
const MILLION: u64 = 1_000_000;

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "rl.algorithm",
        Choice(|| names(&Algorithm::NAMES)),
        "How the policy is improved.",
    ),
    Key::new("rl.lr", Number(TINY, 1.0), "AdamW's learning rate."),
    Key::new(
        "rl.beta1",
        Number(0.0, 0.999_999),
        "AdamW's decay of the first moment.",
    ),
    Key::new(
        "rl.beta2",
        Number(0.0, 0.999_999_999),
        "AdamW's decay of the second moment.",
    ),
    Key::new("rl.adam_eps", Number(TINY, 1.0), "AdamW's ε."),
    Key::new(
        "rl.weight_decay",
        Number(0.0, 1.0),
        "AdamW's decoupled weight decay.",
    ),
    Key::new(
        "rl.max_grad_norm",
        Number(TINY, 1e12),
        "Gradients of a larger global norm are scaled down to it.",
    ),
    Key::new(
        "rl.micro_batch",
        Count(1, 100_000),
        "Training items in one forward and backward pass: memory and speed only.",
    ),
    Key::new(
        "rl.max_skipped",
        Count(1, 1000),
        "Updates in a row whose numbers are not finite, before the run ends with code 5.",
    ),
    Key::new(
        "rl.clip_range",
        Number(TINY, 1.0),
        "PPO's clip range of the ratio; ddpo-sf, whose ratio is 1, does not use it.",
    ),
    Key::new(
        "rl.advantage_clip",
        Number(TINY, 1e12),
        "Advantages are clipped to ± this.",
    ),
    Key::new(
        "rl.samples_per_epoch",
        Count(2, MILLION),
        "Samples, and so reward queries, of an epoch, over all ranks.",
    ),
    Key::new(
        "rl.updates_per_epoch",
        Count(1, MILLION),
        "Optimiser steps of an epoch; must divide rl.samples_per_epoch, and be 1 for ddpo-sf.",
    ),
    Key::new(
        "rl.train_guidance",
        Flag,
        "Training differentiates the guided prediction, as sampling uses it.",
    ),
    Key::new(
        "rl.kl_weight",
        Number(0.0, 1e6),
        "Weight of the KL to the reference policy, DPOK's term; 0 for none.",
    ),
    Key::new(
        "rl.log_prob",
        Choice(|| vec!["mean", "sum"]),
        "How a log-probability is reduced over the latent's dimensions; the clip range is tuned \
         to the mean.",
    ),
    Key::new(
        "rl.ratio_bound",
        Number(TINY, 1e9),
        "Largest |ratio − 1| before the first update, as a part of rl.clip_range; beyond it the \
         run stops.",
    ),
    Key::new(
        "rl.stats.buffer_size",
        Count(1, MILLION),
        "Rewards that are kept for each prompt's own statistics.",
    ),
    Key::new(
        "rl.stats.min_count",
        Count(1, MILLION),
        "Rewards that a prompt needs before its own statistics count; until then the whole \
         batch's do.",
    ),
    Key::new(
        "rl.baseline",
        Choice(|| names(&BaselineKind::NAMES)),
        "What a reward is compared with: its prompt's rewards in this and earlier epochs [P \
         D.3], all of the epoch's, or those of its group.",
    )
    .default("\"prompt\""),
    Key::new(
        "rl.samples_per_prompt",
        Count(1, MILLION),
        "Samples of an epoch that share a prompt, a group; with baseline \"group\" at least 2, \
         and a divisor of rl.samples_per_epoch. [J] [T] 1",
    )
    .default("1"),
    Key::new(
        "rl.shared_noise",
        Flag,
        "Samples of a group begin from the same initial latent; needs rl.samples_per_prompt of \
         at least 2.",
    )
    .default("false"),
    Key::new(
        "rwr.beta",
        Number(0.0, 1e6),
        "Inverse temperature of RWR's softmax.",
    ),
    Key::new(
        "rwr.rewards",
        Choice(|| vec!["raw", "standardised"]),
        "Whether the softmax sees rewards as they are.",
    ),
    Key::new(
        "rwr.percentile",
        Number(0.0, 0.999_999),
        "Sparse RWR trains on samples at least this high.",
    ),
    Key::new(
        "rwr.scope",
        Choice(|| vec!["per-prompt", "pool"]),
        "Whether weights are relative to samples of the same prompt or to all.",
    ),
    Key::new(
        "rwr.samples_per_round",
        Count(2, MILLION),
        "Samples, and so reward queries, of a round, over all ranks.",
    ),
    Key::new(
        "rwr.samples_per_prompt",
        Count(1, MILLION),
        "Samples in a row that get one prompt; must divide rwr.samples_per_round.",
    ),
    Key::new(
        "rwr.updates_per_round",
        Count(1, MILLION),
        "Optimiser steps of a round.",
    ),
    Key::new(
        "rwr.batch",
        Count(1, MILLION),
        "Samples of an optimiser step, over all ranks.",
    ),
    Key::new(
        "rwr.train_guidance",
        Flag,
        "Training differentiates the guided prediction, as sampling uses it.",
    ),
    Key::new(
        "rwr.latents",
        Choice(|| vec!["re-encoded", "sampled"]),
        "Trains on images encoded again [J], or on the latents as they were sampled.",
    ),
    Key::new(
        "rwr.moments",
        Choice(|| vec!["fresh", "kept"]),
        "Whether each round begins with a new AdamW [J].",
    ),
    Key::new(
        "rwr.order",
        Choice(|| vec!["constant", "shuffled"]),
        "In which order samples are trained on.",
    ),
    Key::new(
        "guidance.weight",
        Number(0.0, 1e9),
        "The weight of the reward's gradient.",
    ),
    Key::new(
        "guidance.repeats",
        Count(1, 1000),
        "How often every step is taken.",
    ),
    Key::new("guidance.steps", Count(1, 1000), "Denoising steps."),
    Key::new("guidance.eta", Number(0.0, 1.0), "Noise of a step."),
    Key::new(
        "guidance.guidance_scale",
        Number(0.0, 100.0),
        "Strength of classifier-free guidance.",
    ),
    Key::new(
        "guidance.samples",
        Count(2, MILLION),
        "Images of the one epoch.",
    ),
    Key::new(
        "guidance.batch",
        Count(1, 100_000),
        "Images that are differentiated together: memory and speed only.",
    ),
];
