//! A configuration that was read and found whole.

use std::time::Duration;

use ddpo_eval::claims::Claim;
use ddpo_reward::prompts::PromptSet;
use ddpo_sched::LogProb;
use figment::value::Value;
use serde::Deserialize;
use tch::{Device, Kind};

use super::layers::{Source, layer};
use super::reader::{Entry, Reader};
use crate::failure::Result;

/// Everything that a run needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the experiment.
    pub experiment: String,
    /// Length, seed, checkpoints.
    pub run: RunPlan,
    /// Where the weights are and how they are computed with.
    pub model: ModelPlan,
    /// What is trained.
    pub policy: PolicyPlan,
    /// How pictures are sampled.
    pub sampler: SamplerPlan,
    /// How the policy is improved.
    pub rl: RlPlan,
    /// What a picture is worth.
    pub reward: RewardKind,
    /// The paper's reward that this one stands in for.
    pub stands_in_for: Option<String>,
    /// Threads that score pictures.
    pub reward_threads: usize,
    /// Where prompts are drawn from.
    pub prompts: PromptSet,
    /// Pictures drawn again through training.
    pub progress: ProgressPlan,
    /// What `reproduce` runs when the command line does not say.
    pub reproduce: ReproducePlan,
    /// Every key with its value and where it came from.
    pub entries: Vec<Entry>,
}

/// `[run]`.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Outer iterations.
    pub epochs: u64,
    /// Of all randomness.
    pub seed: u64,
    /// After this a checkpoint is written and the run ends as interrupted.
    pub max_time: Option<Duration>,
    /// A checkpoint every so many epochs, and at the end.
    pub checkpoint_every: u64,
    /// How many of them stay.
    pub keep_checkpoints: usize,
}

/// `[model]`.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// `pocket`, or a folder in the diffusers layout.
    pub path: String,
    /// Where it is computed.
    pub device: Device,
    /// Of frozen weights and compute.
    pub dtype: Kind,
}

/// What training changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Train {
    /// All weights of the UNet.
    Full,
    /// Low-rank factors beside its attention projections.
    Lora {
        /// Of the factors.
        rank: u64,
        /// The product is scaled by `alpha / rank`.
        alpha: f64,
    },
}

/// `[policy]`.
#[derive(Debug, Clone, Copy)]
pub struct PolicyPlan {
    /// What training changes.
    pub train: Train,
}

/// `[sampler]`.
#[derive(Debug, Clone, Copy)]
pub struct SamplerPlan {
    /// Denoising steps.
    pub n_steps: usize,
    /// Noise of a step, 1 as DDPM's.
    pub eta: f64,
    /// Strength of classifier-free guidance; 1 is none.
    pub guidance_scale: f64,
    /// Samples denoised together.
    pub batch: usize,
}

/// Which estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Importance sampling with clipping, several updates an epoch.
    DdpoIs,
    /// Score function, one update an epoch.
    DdpoSf,
}

impl Algorithm {
    /// Names in configurations.
    pub const NAMES: [(&'static str, Self); 2] =
        [("ddpo-is", Self::DdpoIs), ("ddpo-sf", Self::DdpoSf)];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::DdpoIs => "ddpo-is",
            Self::DdpoSf => "ddpo-sf",
        }
    }
}

/// `[rl]`.
#[derive(Debug, Clone, Copy)]
pub struct RlPlan {
    /// Which estimator.
    pub algorithm: Algorithm,
    /// AdamW's learning rate.
    pub lr: f64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's ε.
    pub adam_eps: f64,
    /// AdamW's decoupled decay.
    pub weight_decay: f64,
    /// Largest global norm of a gradient.
    pub max_grad_norm: f64,
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
    /// How a log-probability is reduced over dimensions.
    pub log_prob: LogProb,
    /// Pairs of sample and time step in one forward and backward pass.
    pub micro_batch: usize,
    /// Largest |ratio − 1| before the first update, as a part of the clip range.
    pub ratio_bound: f64,
    /// Skipped updates in a row that end the run.
    pub max_skipped: u32,
    /// Rewards kept a prompt.
    pub stats_buffer_size: usize,
    /// Rewards that a prompt needs before its own statistics count.
    pub stats_min_count: usize,
}

/// `reward.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewardKind {
    /// Minus the JPEG size in kB.
    JpegCompressibility,
    /// The JPEG size in kB.
    JpegIncompressibility,
    /// Hasler and Süsstrunk 2003.
    Colourfulness,
}

impl RewardKind {
    /// Names in configurations.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("jpeg-compressibility", Self::JpegCompressibility),
        ("jpeg-incompressibility", Self::JpegIncompressibility),
        ("colourfulness", Self::Colourfulness),
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::JpegCompressibility => "jpeg-compressibility",
            Self::JpegIncompressibility => "jpeg-incompressibility",
            Self::Colourfulness => "colourfulness",
        }
    }
}

/// `[progress]`.
#[derive(Debug, Clone)]
pub struct ProgressPlan {
    /// Fixed prompts, each with its own fixed noise.
    pub prompts: Vec<String>,
    /// Drawn every so many epochs, and at the first and last.
    pub every: u64,
}

/// `[reproduce]`.
#[derive(Debug, Clone, Default)]
pub struct ReproducePlan {
    /// In the order in which they run.
    pub algorithms: Vec<String>,
    /// Of each algorithm.
    pub seeds: u64,
}

/// A row of `[[claims]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRow {
    /// The algorithm whose runs are checked; all that ran when absent.
    pub algorithm: Option<String>,
    /// What must hold.
    pub check: Claim,
}

/// `model.dtype`.
pub const DTYPES: [(&str, Kind); 3] = [
    ("f32", Kind::Float),
    ("bf16", Kind::BFloat16),
    ("f16", Kind::Half),
];

impl Plan {
    /// Reads all layers; either a whole plan, or every problem at once.
    pub fn load(source: &Source) -> Result<Self> {
        let mut reader = Reader::new(layer(source)?);
        let r = &mut reader;
        let plan = Self {
            experiment: r.get("experiment", "the experiment's name"),
            run: run(r),
            model: model(r),
            policy: policy(r),
            sampler: sampler(r),
            rl: rl(r),
            reward: r.choice("reward.kind", &RewardKind::NAMES),
            stands_in_for: r.find("reward.stands_in_for", "the name of the paper's reward"),
            reward_threads: r.count("reward.threads", 1..=64) as usize,
            prompts: r.choice("prompts.set", &PromptSet::ALL.map(|set| (set.name(), set))),
            progress: progress(r),
            reproduce: reproduce(r),
            entries: Vec::new(),
        };
        for_reports(r);
        plan.check(r);
        Ok(Self {
            entries: reader.finish()?,
            ..plan
        })
    }

    /// What no single key shows; the arithmetic is in the message.
    fn check(&self, r: &mut Reader) {
        let rl = &self.rl;
        let (samples, updates) = (rl.samples_per_epoch, rl.updates_per_epoch);
        if updates > 0 && !samples.is_multiple_of(updates) {
            let problem = format!(
                "is {updates}: {samples} samples = {} × {updates} + {} cannot be shared out in equal minibatches",
                samples / updates,
                samples % updates
            );
            r.problem("rl.updates_per_epoch", problem);
        }
        if rl.algorithm == Algorithm::DdpoSf && rl.updates_per_epoch > 1 {
            r.problem(
                "rl.updates_per_epoch",
                format!(
                    "is {}: expected 1, since ddpo-sf's gradient holds for fresh samples only",
                    rl.updates_per_epoch
                ),
            );
        }
        if rl.stats_min_count > rl.stats_buffer_size {
            r.problem(
                "rl.stats.min_count",
                format!(
                    "is {}: a buffer of {} never holds so many",
                    rl.stats_min_count, rl.stats_buffer_size
                ),
            );
        }
    }
}

fn run(r: &mut Reader) -> RunPlan {
    RunPlan {
        epochs: r.count("run.epochs", 1..=1_000_000),
        seed: r.count("run.seed", 0..=i64::MAX as u64),
        max_time: max_time(r),
        checkpoint_every: r.count("run.checkpoint_every", 1..=1_000_000),
        keep_checkpoints: r.count("run.keep_checkpoints", 1..=1_000_000) as usize,
    }
}

/// Seconds as a number, or a number with its unit.
fn max_time(r: &mut Reader) -> Option<Duration> {
    let (key, expected) = (
        "run.max_time",
        "seconds, or a text such as \"90s\", \"10m\", \"2h\"",
    );
    let value: Value = r.find(key, expected)?;
    let seconds = match value.as_str() {
        Some(text) => parse_seconds(text),
        None => value.deserialize::<f64>().ok(),
    };
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(Duration::ZERO)) => None,
        Some(Ok(time)) => Some(time),
        _ => {
            r.problem(key, format!("is no duration: expected {expected}"));
            None
        }
    }
}

fn parse_seconds(text: &str) -> Option<f64> {
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1.0));
    digits
        .trim()
        .parse::<f64>()
        .ok()
        .map(|number| number * factor)
}

fn model(r: &mut Reader) -> ModelPlan {
    let name: String = r.get("model.device", "cpu or cuda:N");
    let device = ddpo_torch::device(&name).unwrap_or_else(|error| {
        if !name.is_empty() {
            r.problem("model.device", format!("is \"{name}\": {error}"));
        }
        Device::Cpu
    });
    ModelPlan {
        path: r.get("model.path", "pocket, or a folder in the diffusers layout"),
        device,
        dtype: r.choice("model.dtype", &DTYPES),
    }
}

fn policy(r: &mut Reader) -> PolicyPlan {
    let is_lora = r.choice("policy.train", &[("full", false), ("lora", true)]);
    let rank = r.count("policy.lora.rank", 1..=1024);
    let alpha = r.number("policy.lora.alpha", 1e-6..=1e6);
    if r.get::<bool>("policy.checkpointing", "true or false") {
        r.problem(
            "policy.checkpointing",
            "is true: gradient checkpointing is not available yet",
        );
    }
    PolicyPlan {
        train: match is_lora {
            true => Train::Lora { rank, alpha },
            false => Train::Full,
        },
    }
}

fn sampler(r: &mut Reader) -> SamplerPlan {
    let eta = r.number("sampler.eta", 0.0..=1.0);
    if eta == 0.0 {
        r.problem(
            "sampler.eta",
            "is 0: a deterministic step has no log-probability, expected above 0",
        );
    }
    SamplerPlan {
        n_steps: r.count("sampler.n_steps", 1..=1000) as usize,
        eta,
        guidance_scale: r.number("sampler.guidance_scale", 0.0..=100.0),
        batch: r.count("sampler.batch", 1..=100_000) as usize,
    }
}

fn rl(r: &mut Reader) -> RlPlan {
    let tiny = 1e-12;
    RlPlan {
        algorithm: r.choice("rl.algorithm", &Algorithm::NAMES),
        lr: r.number("rl.lr", tiny..=1.0),
        beta1: r.number("rl.beta1", 0.0..=0.999_999),
        beta2: r.number("rl.beta2", 0.0..=0.999_999_999),
        adam_eps: r.number("rl.adam_eps", tiny..=1.0),
        weight_decay: r.number("rl.weight_decay", 0.0..=1.0),
        max_grad_norm: r.number("rl.max_grad_norm", tiny..=1e12),
        clip_range: r.number("rl.clip_range", tiny..=1.0),
        advantage_clip: r.number("rl.advantage_clip", tiny..=1e12),
        samples_per_epoch: r.count("rl.samples_per_epoch", 2..=1_000_000) as usize,
        updates_per_epoch: r.count("rl.updates_per_epoch", 1..=1_000_000) as usize,
        train_guidance: r.get("rl.train_guidance", "true or false"),
        log_prob: r.choice(
            "rl.log_prob",
            &[("mean", LogProb::Mean), ("sum", LogProb::Sum)],
        ),
        micro_batch: r.count("rl.micro_batch", 1..=100_000) as usize,
        ratio_bound: r.number("rl.ratio_bound", tiny..=1e9),
        max_skipped: r.count("rl.max_skipped", 1..=1000) as u32,
        stats_buffer_size: r.count("rl.stats.buffer_size", 1..=1_000_000) as usize,
        stats_min_count: r.count("rl.stats.min_count", 1..=1_000_000) as usize,
    }
}

fn progress(r: &mut Reader) -> ProgressPlan {
    ProgressPlan {
        prompts: r.get("progress.prompts", "a list of prompts"),
        every: r.count("progress.every", 1..=1_000_000),
    }
}

/// Keys that only reports use; they read them from the run's folder.
fn for_reports(r: &mut Reader) {
    let _: String = r.get("title", "a title");
    let expected = "rows with algorithm and check = { kind, source, metric, standard_errors }";
    let _: Option<Vec<ClaimRow>> = r.find("claims", expected);
}

fn reproduce(r: &mut Reader) -> ReproducePlan {
    ReproducePlan {
        algorithms: r.get("reproduce.algorithms", "a list of algorithms"),
        seeds: r.count("reproduce.seeds", 1..=1000),
    }
}
