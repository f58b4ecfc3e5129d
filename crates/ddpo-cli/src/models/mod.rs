//! A model and everything around it that training and sampling need.

mod hub;
mod sampler;
mod size;
pub mod weights;

use std::path::Path;

use ddpo_model::{
    Files, ImageCodec, Lora, LoraConfig, Named, PromptEncoder, StableDiffusion, Unet, UnetPolicy,
};
use ddpo_sched::{Conditioned, Conditioning, DenoiseInput, Denoiser, Guided, ScheduleConfig};
use ddpo_train::{LossScale, ParamSet, Persist, Policy, StateReader, StateWriter};
use tch::{Device, Kind, Tensor};

use crate::config::{ModelSource, POCKET, Plan, PolicyPlan, Train};
use crate::failure::{Exit, Failure, OrExit, Result};

pub use sampler::{SamplerKind, SamplerName, sampler};
pub use size::Size;

/// What names the revision of a model on the hub.
const REVISION: &str = "model.revision (--revision)";

/// A model that is ready to be trained or sampled from.
pub struct Model {
    /// The network, guided.
    pub policy: Box<dyn Policy>,
    /// Prompts to conditioning.
    pub prompts: PromptEncoder,
    /// Latents to images.
    pub images: ImageCodec,
    /// Shape of one latent.
    pub latent_shape: Vec<i64>,
    /// The noise schedule it was trained with.
    pub schedule: ScheduleConfig,
    /// Of the UNet's weights, without what is trained beside them.
    pub unet_bytes: u64,
    /// Of the weights of text encoder and autoencoder.
    pub other_bytes: u64,
}

/// How ε is guided.
#[derive(Debug, Clone, Copy)]
pub struct Guidance<'a> {
    /// Strength; 1 is none.
    pub scale: f64,
    /// The prompt away from which ε is guided.
    pub negative: &'a str,
    /// Whether training uses it as sampling does.
    pub in_training: bool,
}

impl Model {
    /// A whole model around the policy that `train` makes of its UNet.
    ///
    /// `uncond` is the conditioning of the negative prompt, `[1, tokens, dim]`; computed when not given.
    pub fn new(
        whole: StableDiffusion,
        guidance: Guidance<'_>,
        uncond: Option<Tensor>,
        train: impl FnOnce(Named<Unet>) -> Result<UnetPolicy>,
    ) -> Result<Self> {
        let latent_shape = whole.latent_shape().to_vec();
        let StableDiffusion {
            unet,
            prompts,
            images,
            schedule,
            ..
        } = whole;
        let uncond = match uncond {
            Some(uncond) => uncond,
            None => prompts
                .encode(&[guidance.negative])
                .or_exit(Exit::Data, "cannot embed the negative prompt")?,
        };
        let unet_bytes = bytes(unet.tensors.values());
        let other_bytes = bytes(prompts.text.tensors.values()) + bytes(images.vae.tensors.values());
        let guided = Guided::new(train(unet)?, uncond, guidance.scale);
        let policy: Box<dyn Policy> = match guidance.in_training {
            true => Box::new(guided),
            false => Box::new(GuidedSampling(guided)),
        };
        Ok(Self {
            policy,
            prompts,
            images,
            latent_shape,
            schedule,
            unet_bytes,
            other_bytes,
        })
    }
}

fn bytes<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> u64 {
    let of = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
    tensors.map(|t| of(t) as u64).sum()
}

/// What a plan trains of a UNet; fresh low-rank factors are drawn from `seed`.
pub fn trained(unet: Named<Unet>, plan: &Plan) -> Result<UnetPolicy> {
    let policy = match plan.policy.train {
        Train::Full => {
            UnetPolicy::full(unet).and_then(|policy| policy.with_autocast(plan.model.dtype))
        }
        Train::Lora { .. } => UnetPolicy::lora(unet, &lora_config(&plan.policy), plan.run.seed),
    };
    policy
        .map(|policy| policy.with_checkpointing(plan.policy.checkpointing))
        .or_exit(Exit::Config, "the policy cannot be made")
}

/// The model of a plan, with the policy that it trains.
///
/// `uncond` is the conditioning of the negative prompt, `[1, tokens, dim]`; computed when not given.
pub fn of_plan(plan: &Plan, uncond: Option<Tensor>) -> Result<Model> {
    let from = &plan.model;
    ddpo_torch::set_tf32(from.tf32).or_exit(Exit::Other, "model.tf32 cannot be set")?;
    let mut whole = open(&from.source, from.device, from.weights(&plan.policy.train))?;
    whole.images.slice = from.vae_slice as i64;
    let guidance = Guidance {
        scale: plan.sampler.guidance_scale,
        negative: &plan.negative,
        in_training: plan.method.train_guidance(),
    };
    let size = Size::of_plan(&plan.sampler);
    let latent_shape = size.latent_shape(&whole, ["`sampler.height`", "`sampler.width`"])?;
    let mut model = Model::new(whole, guidance, uncond, |unet| trained(unet, plan))?;
    model.latent_shape = latent_shape.to_vec();
    Ok(model)
}

/// The model of a plan before training, guided and computed with as the policy is in training: divergence is
/// measured between what is trained and what it was, and is 0 before the first update.
pub fn untrained(plan: &Plan) -> Result<Model> {
    let from = &plan.model;
    let whole = open(&from.source, from.device, from.weights(&plan.policy.train))?;
    let guidance = Guidance {
        scale: match plan.method.train_guidance() {
            true => plan.sampler.guidance_scale,
            false => 1.0,
        },
        negative: &plan.negative,
        in_training: true,
    };
    Model::new(whole, guidance, None, |unet| {
        let policy = frozen(unet, None)?;
        match plan.policy.train {
            Train::Full => policy.with_autocast(from.dtype),
            Train::Lora { .. } => Ok(policy),
        }
        .or_exit(Exit::Config, "the reference policy cannot be made")
    })
}

/// The adapter that a plan trains; diffusers' own if it trains none.
pub fn lora_config(plan: &PolicyPlan) -> LoraConfig {
    match &plan.train {
        Train::Full => LoraConfig::default(),
        Train::Lora {
            rank,
            alpha,
            targets,
        } => LoraConfig {
            rank: *rank as i64,
            alpha: *alpha,
            targets: targets.clone(),
        },
    }
}

/// A UNet that is not trained, with the adapter of a file if one is named.
pub fn frozen(mut unet: Named<Unet>, lora: Option<&Path>) -> Result<UnetPolicy> {
    match lora {
        None => UnetPolicy::frozen(unet).or_exit(Exit::Other, "the model cannot be used"),
        Some(path) => {
            let lora = Lora::open(&mut unet.net, path)
                .or_exit(Exit::Data, format!("adapter {}", path.display()))?;
            Ok(UnetPolicy::with_lora(unet, lora))
        }
    }
}

/// Reads a model: `pocket`, a folder in the diffusers layout, or one of the hub.
pub fn open(source: &ModelSource, device: Device, kind: Kind) -> Result<StableDiffusion> {
    let files = files(source, kind)?;
    let doing = format!("model `{}`", source.path);
    StableDiffusion::load(&files, device, kind).or_exit(Exit::Data, doing)
}

fn files(source: &ModelSource, kind: Kind) -> Result<Files> {
    let path = source.path.as_str();
    if path == POCKET {
        return Ok(ddpo_pocket::files());
    }
    let folder = Path::new(path);
    if folder.is_dir() {
        return Ok(Files::Folder(folder.to_owned()));
    }
    let expected = format!(
        "expected `{POCKET}`, a folder in the diffusers layout, or a name on the hub such as CompVis/stable-diffusion-v1-4"
    );
    if !hub::is_id(path) {
        let message = format!("model `{path}` is no folder: {expected}");
        return Err(Failure::new(Exit::Data, message));
    }
    match hub::revision(path, source.revision.as_deref(), REVISION) {
        Ok(revision) => hub::fetch_model(path, revision, kind),
        Err(reason) => {
            let message = format!(
                "model `{path}` is no folder, and as a name on the hub {reason}; {expected}"
            );
            Err(Failure::new(Exit::Data, message))
        }
    }
}

/// The commit of a model on the hub; nothing for one that is not from there.
pub fn revision(source: &ModelSource) -> Option<&str> {
    let path = source.path.as_str();
    let elsewhere = path == POCKET || Path::new(path).is_dir() || !hub::is_id(path);
    (!elsewhere).then(|| hub::revision(path, source.revision.as_deref(), REVISION).ok())?
}

/// Samples with guidance and trains without (paper, appendix E.1, the ablation).
struct GuidedSampling(Guided<UnetPolicy>);

impl Denoiser for GuidedSampling {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.0.predict(input)
    }

    fn conditioned<'a>(&'a self, cond: &Conditioning) -> ddpo_sched::Result<Conditioned<'a>> {
        self.0.conditioned(cond)
    }
}

impl Policy for GuidedSampling {
    fn params(&self) -> &ParamSet {
        self.0.inner.params()
    }

    fn loss_scale(&self) -> Option<&LossScale> {
        self.0.inner.loss_scale()
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> ddpo_train::Result<Tensor>,
    ) -> ddpo_train::Result<()> {
        self.0.inner.accumulate(input, loss)
    }
}

impl Persist for GuidedSampling {
    fn save(&self, out: &mut StateWriter) -> ddpo_train::Result<()> {
        self.0.inner.save(out)
    }

    fn load(&mut self, from: &StateReader) -> ddpo_train::Result<()> {
        self.0.inner.load(from)
    }
}
