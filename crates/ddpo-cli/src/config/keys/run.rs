//! Keys of a run itself: its name, its length, the model, what is trained of it, and how it is sampled.

use super::Kind::{Choice, Count, Duration, Flag, Number, Other};
use super::{Key, names};
use crate::config::DTYPES;

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "experiment",
        Other("the experiment's name"),
        "Names the output folder and the report; runs are compared within one experiment.",
    ),
    Key::new("title", Other("a title"), "Title of the report.").may_change(),
    Key::new(
        "variant",
        Other("the name of a variant of the experiment"),
        "Which `[variants.NAME]` this run is; without it the algorithm as it stands.",
    ),
    Key::new(
        "run.epochs",
        Count(1, 1_000_000),
        "Outer iterations: samples are drawn, scored and trained on once in each.",
    )
    .may_change(),
    Key::new(
        "run.seed",
        Count(0, i64::MAX as u64),
        "Of all randomness: the same seed gives the same bytes on the same machine.",
    ),
    Key::new(
        "run.threads",
        Count(1, 1024),
        "Threads of libtorch for one run on the CPU.",
    ),
    Key::new(
        "run.max_time",
        Duration,
        "At this limit the run writes a checkpoint and stops, as on Ctrl-C; 0 for no limit.",
    )
    .may_change(),
    Key::new(
        "run.checkpoint_every",
        Count(1, 1_000_000),
        "A checkpoint every so many epochs, and at the end.",
    )
    .may_change(),
    Key::new(
        "run.keep_checkpoints",
        Count(1, 1_000_000),
        "How many of them stay on disk.",
    )
    .may_change(),
    Key::new(
        "model.path",
        Other("pocket, a folder in the diffusers layout, or a name on the hub"),
        "The model: the embedded one, a folder, or OWNER/NAME on the hub.",
    ),
    Key::new(
        "model.revision",
        Other("a commit, 40 hexadecimal digits"),
        "Commit of a model on the hub; those of Stable Diffusion v1.4 and v1.5 are known.",
    ),
    Key::new(
        "model.device",
        Other("cpu or cuda:N"),
        "Where the model is computed.",
    ),
    Key::new(
        "model.dtype",
        Choice(|| names(&DTYPES)),
        "Of frozen weights and of compute; what is trained stays in f32.",
    ),
    Key::new(
        "model.tf32",
        Flag,
        "CUDA's products of f32 with 10 bits of mantissa: faster, and no longer f32.",
    ),
    Key::new(
        "model.vae_slice",
        Count(1, 100_000),
        "Images that the autoencoder decodes at a time: memory and speed only.",
    ),
    Key::new(
        "policy.train",
        Choice(|| vec!["full", "lora"]),
        "All weights of the UNet, or low-rank factors beside its attention projections.",
    ),
    Key::new(
        "policy.checkpointing",
        Flag,
        "Training computes activations again instead of keeping them: less memory, more time, \
         the same gradients.",
    ),
    Key::new("policy.lora.rank", Count(1, 1024), "Rank of the factors."),
    Key::new(
        "policy.lora.alpha",
        Number(1e-6, 1e6),
        "The factors' product is scaled by alpha / rank.",
    ),
    Key::new(
        "policy.lora.targets",
        Other("a list of ends of names, as to_q or attn2.to_k"),
        "Ends of the names of the projections that get factors.",
    ),
    Key::new(
        "sampler.n_steps",
        Count(1, 1000),
        "Denoising steps of a sample.",
    ),
    Key::new(
        "sampler.eta",
        Number(0.0, 1.0),
        "Noise of a step, 1 as DDPM's; must be above 0, as a deterministic step has no \
         log-probability.",
    ),
    Key::new(
        "sampler.guidance_scale",
        Number(0.0, 100.0),
        "Strength of classifier-free guidance; 1 is none.",
    ),
    Key::new(
        "sampler.batch",
        Count(1, 100_000),
        "Samples denoised together: memory and speed only.",
    ),
    Key::new(
        "sampler.height",
        Count(1, 16_384),
        "Height of images in pixels, a multiple of the autoencoder's factor; the model's own \
         when not set.",
    ),
    Key::new(
        "sampler.width",
        Count(1, 16_384),
        "Width of images in pixels, a multiple of the autoencoder's factor; the model's own \
         when not set.",
    ),
];
