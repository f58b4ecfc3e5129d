//! Evaluation of the pocket model and of its parts, for the model card.

use ddpo_model::{StableDiffusion, UnetPolicy, Vae};
use ddpo_sched::{Ddim, Guided, KeyedNoise, LatentBatch, Seeds, Stream, sample};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::accuracy::TopKAccuracy;
use crate::artwork::Pack;
use crate::caption::with_article;
use crate::judge::{Judge, Role};
use crate::pretrain::batch::{compose, from_bytes};
use crate::prompts::training_animals;
use crate::scene::{Composer, Mixture, Scene};
use crate::{Error, Result};

/// How the samples are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasurePlan {
    /// Samples per animal.
    pub per_animal: usize,
    /// Denoising steps.
    pub n_steps: usize,
    /// Classifier-free guidance.
    pub guidance_scale: f64,
    /// η of DDIM: the share of DDPM's noise added at each step.
    pub eta: f64,
    /// Seed of the noise.
    pub seed: u64,
}

impl Default for MeasurePlan {
    /// Ten of each animal, with the sampler of the pocket experiments.
    fn default() -> Self {
        Self {
            per_animal: 10,
            n_steps: 20,
            guidance_scale: 3.0,
            eta: 1.0,
            seed: 0,
        }
    }
}

/// Accuracy by the held-out judge, always among the 45 training animals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// How the samples were drawn.
    pub plan: MeasurePlan,
    /// Samples of "a {animal}".
    pub samples: TopKAccuracy,
    /// New composed scenes of drawings that the judge was trained on.
    pub own_drawings: TopKAccuracy,
    /// Composed scenes of drawings that the judge was not trained on.
    pub held_out_drawings: TopKAccuracy,
    /// Composed scenes of all drawings.
    pub originals: TopKAccuracy,
    /// The same scenes reconstructed by the VAE: the upper bound of perfect sampling.
    pub reconstructions: TopKAccuracy,
    /// Peak signal-to-noise ratio of the reconstructions, in dB.
    pub reconstruction_psnr: f64,
}

/// Number of composed scenes for each accuracy.
const N_SCENES: u64 = 900;
const SEED: u64 = 7_000;

/// Draws samples of every training animal: `[45 · per_animal, 3, 64, 64]` in [-1, 1], and the animal of each.
///
/// # Errors
/// If the model fails.
pub fn draw(model: StableDiffusion, plan: MeasurePlan) -> Result<(Tensor, Vec<usize>)> {
    let prompts: Vec<String> = training_animals()
        .iter()
        .map(|name| with_article(name))
        .collect();
    let shape = model.latent_shape();
    let embedded = model
        .prompts
        .encode(&prompts.iter().map(String::as_str).collect::<Vec<_>>())?
        .into();
    let sampler = Ddim::new(&model.schedule, plan.n_steps, plan.eta)?;
    let net = Guided::new(
        UnetPolicy::full(model.unet)?,
        model.prompts.encode(&[""])?,
        plan.guidance_scale,
    );
    let noise = KeyedNoise::of_stream(Seeds::new(plan.seed), Stream::Evaluation, 0);
    let (mut images, mut animals) = (Vec::new(), Vec::new());
    for round in 0..plan.per_animal {
        let sample_ids: Vec<u64> = (0..prompts.len())
            .map(|i| (round * prompts.len() + i) as u64)
            .collect();
        let batch = LatentBatch {
            shape: &shape,
            cond: &embedded,
            sample_ids: &sample_ids,
            log_prob: None,
        };
        let latents = sample(&net, &sampler, &batch, &noise, &mut |_| Ok(()))?;
        images.push(from_bytes(model.images.decode(&latents)?.bytes()));
        animals.extend(0..prompts.len());
    }
    Ok((Tensor::cat(&images, 0), animals))
}

/// Judges `samples` (from [`draw`]) and, for comparison, composed scenes and their VAE reconstructions.
///
/// # Errors
/// If scenes cannot be composed.
pub fn judge(
    samples: (&Tensor, &[usize]),
    plan: MeasurePlan,
    vae: &Vae,
    judge: &Judge,
    pack: &Pack,
) -> Result<Measured> {
    let _guard = tch::no_grad_guard();
    let names = training_animals();
    let animals: Vec<usize> = names
        .iter()
        .map(|name| entity(pack, name))
        .collect::<Result<_>>()?;
    let rate = |images: &Tensor, truth: &[usize]| {
        let parts: Vec<Tensor> = images
            .split(100, 0)
            .iter()
            .map(|part| judge.forward(part).entity)
            .collect();
        TopKAccuracy::of(&Tensor::cat(&parts, 0), truth, &animals)
    };
    let scenes = |sets: &dyn Fn(usize) -> bool| -> Result<(Tensor, Vec<usize>)> {
        let mut mixture = Mixture {
            animals: 1.0,
            unseen_animals: 0.0,
            objects: 0.0,
            ..Mixture::singles()
        };
        for (i, weight) in mixture.sets.iter_mut().enumerate() {
            *weight *= f64::from(u8::from(sets(i)));
        }
        let data = compose(&Composer::new(pack, mixture)?, SEED, 0..N_SCENES);
        Ok((data.images, data.scenes.iter().map(Scene::entity).collect()))
    };
    let own: Vec<usize> = Role::HeldOut.sets().iter().map(|set| set.index()).collect();
    let on = |(images, truth): (Tensor, Vec<usize>)| rate(&images, &truth);
    let (originals, truth) = scenes(&|_| true)?;
    let blurred: Vec<Tensor> = originals
        .split(50, 0)
        .iter()
        .map(|part| vae.decode(&vae.encode(part)).clamp(-1.0, 1.0))
        .collect();
    let blurred = Tensor::cat(&blurred, 0);
    let mse = (&blurred - &originals)
        .square()
        .mean(Kind::Double)
        .double_value(&[]);
    let drawn: Vec<usize> = samples.1.iter().map(|&i| animals[i]).collect();
    Ok(Measured {
        plan,
        samples: rate(samples.0, &drawn),
        own_drawings: on(scenes(&|i| own.contains(&i))?),
        held_out_drawings: on(scenes(&|i| !own.contains(&i))?),
        originals: rate(&originals, &truth),
        reconstructions: rate(&blurred, &truth),
        reconstruction_psnr: 10.0 * (4.0 / mse).log10(),
    })
}

fn entity(pack: &Pack, name: &str) -> Result<usize> {
    let reason = || Error::Artwork {
        part: "entities".into(),
        reason: format!("no drawing of `{name}`"),
    };
    pack.entity(name).ok_or_else(reason)
}
