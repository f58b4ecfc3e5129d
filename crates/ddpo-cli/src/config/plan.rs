//! A configuration that was read and found whole.

use std::time::Duration;

use ddpo_eval::claims::Claim;
use serde::Deserialize;
use tch::{Device, Kind};

use super::evals::{self, EvalPlan};
use super::layers::{Source, layers};
use super::method::{self, Algorithm, Method};
use super::prompts::{self, Prompts};
use super::reader::{Entry, Reader};
use super::reward::{RewardKind, RewardPlan};
use super::sections;
use crate::failure::Result;

/// Everything that a run needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the experiment.
    pub experiment: String,
    /// The variant of the experiment that this run is: an algorithm with keys of its own, under a name of its own.
    pub variant: Option<String>,
    /// Length, seed, checkpoints.
    pub run: RunPlan,
    /// Where the weights are and how they are computed with.
    pub model: ModelPlan,
    /// What is trained.
    pub policy: PolicyPlan,
    /// How images are sampled.
    pub sampler: SamplerPlan,
    /// Which algorithm, and what all of them need.
    pub rl: RlPlan,
    /// The algorithm's own numbers.
    pub method: Method,
    /// What an image is worth.
    pub reward: RewardPlan,
    /// The paper's reward that this one stands in for.
    pub stands_in_for: Option<String>,
    /// Where prompts are drawn from.
    pub prompts: Prompts,
    /// What the unconditional branch of guidance sees.
    pub negative: String,
    /// What the policy is measured on.
    pub eval: EvalPlan,
    /// Images drawn again through training.
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
    /// Threads of libtorch for one run on the CPU.
    pub threads: usize,
    /// After this a checkpoint is written and the run ends as interrupted.
    pub max_time: Option<Duration>,
    /// A checkpoint every so many epochs, and at the end.
    pub checkpoint_every: u64,
    /// How many of them stay.
    pub keep_checkpoints: usize,
}

/// The name of the embedded model.
pub const POCKET: &str = "pocket";

/// Where a model comes from.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// `pocket`, a folder in the diffusers layout, or a name on the hub.
    pub path: String,
    /// Commit of a model on the hub, where it is not one that is known.
    pub revision: Option<String>,
}

/// `[model]`.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// Its files.
    pub source: ModelSource,
    /// Where it is computed.
    pub device: Device,
    /// Of frozen weights and compute.
    pub dtype: Kind,
    /// Whether CUDA's products of f32 may have 10 bits of mantissa.
    pub tf32: bool,
    /// Images that the autoencoder decodes at a time.
    pub vae_slice: usize,
}

impl ModelPlan {
    /// What the UNet's weights are read as: f32 where training changes them.
    pub fn weights(&self, train: &Train) -> Kind {
        match train {
            Train::Full => Kind::Float,
            Train::Lora { .. } => self.dtype,
        }
    }
}

/// What training changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Train {
    /// All weights of the UNet.
    Full,
    /// Low-rank factors beside its attention projections.
    Lora {
        /// Of the factors.
        rank: u64,
        /// The product is scaled by `alpha / rank`.
        alpha: f64,
        /// Ends of the names of the projections that get factors.
        targets: Vec<String>,
    },
}

/// `[policy]`.
#[derive(Debug, Clone)]
pub struct PolicyPlan {
    /// What training changes.
    pub train: Train,
    /// Whether training computes activations again instead of keeping them.
    pub checkpointing: bool,
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
    /// Height of images in pixels, where it is not the model's own.
    pub height: Option<u64>,
    /// Width of images in pixels, where it is not the model's own.
    pub width: Option<u64>,
}

/// `[rl]`, as far as every algorithm needs it.
#[derive(Debug, Clone, Copy)]
pub struct RlPlan {
    /// Which algorithm.
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
    /// Training items in one forward and backward pass.
    pub micro_batch: usize,
    /// Skipped updates in a row that end the run.
    pub max_skipped: u32,
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
    /// Algorithms and variants, in the order in which they run.
    pub algorithms: Vec<String>,
    /// Names of all variants that the configuration has.
    pub variants: Vec<String>,
    /// Of each algorithm.
    pub seeds: u64,
}

/// A row of `[[claims]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRow {
    /// The algorithm or variant whose runs are checked; all that ran when absent.
    pub algorithm: Option<String>,
    /// What must hold.
    pub check: Claim,
}

impl ClaimRow {
    /// The algorithms and variants that it needs runs of.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let pair = self.check.compared().into_iter().flatten();
        self.algorithm.as_deref().into_iter().chain(pair)
    }
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
        let mut reader = Reader::new(layers(source)?);
        let r = &mut reader;
        let rl = sections::rl(r);
        let prompts = prompts::read(r);
        let plan = Self {
            experiment: r.get("experiment"),
            variant: sections::variant(r),
            run: sections::run(r, rl.algorithm),
            model: sections::model(r, source.on_paper),
            policy: sections::policy(r),
            sampler: sections::sampler(r),
            method: method::read(r, rl.algorithm),
            rl,
            reward: RewardPlan::read(r),
            stands_in_for: r.find("reward.stands_in_for"),
            eval: evals::eval(r, &prompts),
            progress: sections::progress(r, &prompts),
            prompts,
            negative: prompts::negative(r),
            reproduce: sections::reproduce(r),
            entries: Vec::new(),
        };
        sections::for_reports(r);
        plan.check(r);
        Ok(Self {
            entries: reader.finish()?,
            eval: plan.eval.for_model(&plan.model.source.path, &plan.sampler),
            ..plan
        })
    }

    /// What the run is called beside others of its experiment: its variant, else its algorithm.
    pub fn label(&self) -> &str {
        self.variant.as_deref().unwrap_or(self.rl.algorithm.name())
    }

    /// Sets libtorch's number of threads: of the calling thread, and of all that start later.
    pub fn use_threads(&self) {
        tch::set_num_threads(self.run.threads as i32);
    }

    /// What no single key shows.
    fn check(&self, r: &mut Reader) {
        self.reward
            .check_prompts(r, &prompts::SOURCES, &self.prompts);
        self.reward
            .check_judge(r, &self.model.source.path, &self.progress.prompts);
        self.reward.check_size(r, &self.sampler);
        for set in &self.eval.sets {
            // Prompts that training draws from are refused once.
            if *set != self.prompts || !set.is_own() {
                self.reward.check_prompts(r, &evals::SOURCES, set);
            }
        }
        if matches!(self.method, Method::Guidance(_)) && !self.reward.kind.has_gradient() {
            let problem = format!(
                "is {}, which has no gradient for universal-guidance to follow: expected one of {}",
                self.reward.name(),
                RewardKind::WITH_GRADIENT.join(", ")
            );
            r.problem("reward.kind", problem);
        }
        if matches!(self.method, Method::Rwr(_)) && self.reward.normalised_parts().is_some() {
            let problem =
                "is true: parts are normalised as advantages, which only ddpo-is and ddpo-sf have";
            r.problem("reward.normalise_parts", problem);
        }
    }
}
