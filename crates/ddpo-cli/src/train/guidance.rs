//! Universal guidance of a plan: a second copy of the model, which is differentiated, and a reward with a gradient.

use ddpo_guidance::{DifferentiableReward, ImageColourfulness, UniversalGuide};
use ddpo_pocket::content::JudgeReward;
use ddpo_sched::{Guided, NoiseSchedule};
use tch::{Kind, Tensor};

use crate::config::{GuidancePlan, Plan, RewardKind};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::models::{self, SamplerKind};
use crate::rewards::networks;

/// How images are drawn, with a copy of the model of its own in f32 and its own strength of classifier-free guidance.
///
/// The run's policy cannot serve: it is guided as its sampler says, may be in half precision, and computes what is
/// constant in a walk ahead, which has no gradient.
pub fn of_plan(plan: &Plan, guidance: &GuidancePlan) -> Result<UniversalGuide> {
    let from = &plan.model;
    let whole = models::open(&from.source, from.device, Kind::Float)?;
    let doing = "universal guidance cannot be made";
    let uncond = whole
        .prompts
        .encode(&[&plan.negative])
        .or_exit(Exit::Data, doing)?;
    let net = models::frozen(whole.unet, None)?;
    let images = whole.images;
    Ok(UniversalGuide {
        net: Box::new(Guided::new(net, uncond, guidance.guidance_scale)),
        schedule: NoiseSchedule::new(&whole.schedule).or_exit(Exit::Data, doing)?,
        sampler: models::sampler(
            &whole.schedule,
            guidance.steps,
            SamplerKind::Ddim { eta: guidance.eta },
        )?,
        decode: Box::new(move |latents: &Tensor| images.differentiable(latents)),
        reward: reward(plan)?,
        weight: guidance.weight,
        repeats: guidance.repeats,
        batch: guidance.batch,
    })
}

/// The run's reward as a function with a gradient.
fn reward(plan: &Plan) -> Result<Box<dyn DifferentiableReward>> {
    Ok(match &plan.reward.kind {
        RewardKind::Colourfulness => Box::new(ImageColourfulness),
        RewardKind::Judge => Box::new(
            JudgeReward::embedded(plan.model.device).or_exit(Exit::Data, "the reward judge")?,
        ),
        RewardKind::Aesthetic(network, rescaling) => {
            Box::new(networks::aesthetic_model(network, *rescaling)?)
        }
        other => {
            let message = format!("reward {} has no gradient", other.name());
            return Err(Failure::config(message));
        }
    })
}
