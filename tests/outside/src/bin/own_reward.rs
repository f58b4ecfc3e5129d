//! A reward of another author: how warm an image is, with DDPO-SF on the embedded pocket model.

use ddpo_model::{StableDiffusion, UnetPolicy};
use ddpo_reward::{Images, Prompt, Reward, check_batch};
use ddpo_rl::{Baseline, Ddpo, DdpoConfig};
use ddpo_sched::{Ddim, Guided};
use ddpo_train::{
    AdamW, AdamWConfig, Event, ImageModel, Observer, Policy, Result, Retry, RewardWorker,
    TrainContext, TrainPlan, train,
};
use tch::{Device, Kind};

/// Mean of red minus mean of blue, from −255 to 255.
struct Warmth;

impl Reward for Warmth {
    fn name(&self) -> &str {
        "warmth"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        check_batch(images, prompts)?;
        let warmth = |rgb: &[u8]| {
            let pixels = rgb.chunks_exact(3);
            let n = pixels.len() as f32;
            pixels
                .map(|p| f32::from(p[0]) - f32::from(p[2]))
                .sum::<f32>()
                / n
        };
        Ok(images.iter_bytes().map(warmth).collect())
    }
}

/// Mean reward of each epoch.
#[derive(Default)]
struct Means(Vec<f64>);

impl Observer for Means {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::EpochDone { report, .. } = event {
            self.0.extend(report.get("reward/mean"));
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let sd = StableDiffusion::load(&ddpo_pocket::files(), Device::Cpu, Kind::Float)?;
    let (latent_shape, sampler) = (sd.latent_shape(), Ddim::new(&sd.schedule, 5, 1.0)?);
    let uncond = sd.prompts.encode(&[""])?;
    let mut policy = Guided::new(UnetPolicy::full(sd.unet)?, uncond, 3.0);
    let lr = AdamWConfig {
        lr: 3e-4,
        ..AdamWConfig::default()
    };
    let mut optimizer = AdamW::new(lr, policy.params())?;
    let rewards = RewardWorker::new(vec![Box::new(Warmth)], Retry::never())?;
    let prompts = [Prompt::new(0, "cat"), Prompt::new(1, "dog")];
    let config = DdpoConfig {
        samples_per_epoch: 24,
        micro_batch: 40,
        baseline: Baseline::Batch,
        ..DdpoConfig::score_function()
    };
    let mut algorithm = Ddpo::new(config, &sampler, 1)?;
    let mut means = Means::default();
    let model = ImageModel::new(&sd.prompts, &sd.images, &latent_shape);
    let mut ctx = TrainContext::new(
        &mut policy,
        &mut optimizer,
        &sampler,
        &rewards,
        &prompts,
        model,
    )
    .with_seed(1)
    .with_observer(&mut means);
    train(&mut algorithm, &mut ctx, &TrainPlan::epochs(6))?;
    drop(ctx);
    println!("warmth by epoch: {:.1?}", means.0);
    match means.0.as_slice() {
        [a, b, .., y, z] if y + z > a + b => Ok(()),
        other => Err(format!("the reward did not rise: {other:?}").into()),
    }
}
