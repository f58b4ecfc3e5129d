//! An algorithm of another author: REINFORCE with leave-one-out group advantages, on the embedded pocket model.

use ddpo_model::{StableDiffusion, UnetPolicy};
use ddpo_reward::{JpegCompressibility, Prompt};
use ddpo_rl::{DdpoConfig, PolicyGradient, TrajectoryStore, TransitionIndex};
use ddpo_sched::{Ddim, Guided};
use ddpo_train::{
    AdamW, AdamWConfig, Algorithm, ImageModel, Meter, Persist, Policy, Result, Retry, RewardWorker,
    RolloutRequest, RolloutSink, ScoredSample, StateReader, StateWriter, TrainContext, TrainPlan,
    UpdateIndex, Updater, train,
};
use tch::{Device, Kind, Tensor};

const PROMPTS: usize = 2;
const GROUP: usize = 4;

/// One update per epoch with `A = r − mean of the others of the group` (Kool et al. 2019).
struct LeaveOneOut {
    config: DdpoConfig,
    trajectories: TrajectoryStore,
    advantages: Vec<f32>,
    updater: Updater,
}

impl Algorithm for LeaveOneOut {
    fn request(&self, ctx: &TrainContext<'_>, _epoch: u64) -> Result<RolloutRequest> {
        Ok(RolloutRequest {
            samples_per_prompt: GROUP,
            log_prob: Some(self.config.log_prob),
            ..RolloutRequest::new(ctx.ids_of_rank(PROMPTS * GROUP), 8)
        })
    }

    fn sink(&mut self) -> &mut dyn RolloutSink {
        &mut self.trajectories
    }

    fn prepare(
        &mut self,
        _: &mut TrainContext<'_>,
        _: u64,
        samples: &mut [ScoredSample],
        _: &mut Meter,
    ) -> Result<()> {
        for group in samples.chunks_mut(GROUP) {
            let sum: f32 = group.iter().map(|sample| sample.reward).sum();
            let others = (group.len() - 1) as f32;
            for sample in group {
                sample.advantage = sample.reward - (sum - sample.reward) / others;
            }
        }
        let ids = &self.trajectories.all()?.sample_ids;
        self.advantages = ids
            .iter()
            .map(|&id| samples[id as usize].advantage)
            .collect();
        Ok(())
    }

    fn n_updates(&self) -> usize {
        1
    }

    fn update(
        &mut self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
        epoch: &mut Meter,
    ) -> Result<()> {
        let trajectories = self.trajectories.all()?;
        let gradient = PolicyGradient::new(ctx, trajectories, &self.advantages, &self.config);
        let rows = 0..trajectories.n_samples();
        let steps = 0..trajectories.n_steps();
        let of = |step| rows.clone().map(move |row| TransitionIndex { row, step });
        let all: Vec<TransitionIndex> = steps.flat_map(of).collect();
        ctx.policy.params().zero_grad();
        let stats = gradient.accumulate(&all, &mut |_| Ok(()))?;
        self.updater.apply(ctx, at, stats.fault, stats.meter, epoch)
    }

    fn stats(&self) -> Meter {
        self.config.stats()
    }
}

/// With one update per epoch, nothing is interrupted between advantages and update.
impl Persist for LeaveOneOut {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.trajectories.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.trajectories.load(from)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let sd = StableDiffusion::load(&ddpo_pocket::files(), Device::Cpu, Kind::Float)?;
    let (latent_shape, sampler) = (sd.latent_shape(), Ddim::new(&sd.schedule, 5, 1.0)?);
    let uncond = sd.prompts.encode(&[""])?;
    let mut policy = Guided::new(UnetPolicy::full(sd.unet)?, uncond, 3.0);
    let before: Vec<Tensor> = policy.params().tensors().iter().map(Tensor::copy).collect();
    let mut optimizer = AdamW::new(AdamWConfig::default(), policy.params())?;
    let rewards = RewardWorker::new(vec![Box::new(JpegCompressibility::new()?)], Retry::never())?;
    let prompts = [Prompt::new(0, "cat"), Prompt::new(1, "dog")];
    let model = ImageModel::new(&sd.prompts, &sd.images, &latent_shape);
    let mut ctx = TrainContext::new(
        &mut policy,
        &mut optimizer,
        &sampler,
        &rewards,
        &prompts,
        model,
    )
    .with_seed(1);
    let mut algorithm = LeaveOneOut {
        config: DdpoConfig::score_function(),
        trajectories: TrajectoryStore::default(),
        advantages: Vec::new(),
        updater: Updater::new(1.0, 3),
    };
    train(&mut algorithm, &mut ctx, &TrainPlan::epochs(2))?;
    drop(ctx);
    let moved = before.iter().zip(policy.params().tensors());
    let moved = moved
        .map(|(a, b)| (a - b).abs().max().double_value(&[]))
        .fold(0.0, f64::max);
    println!("largest change of a weight after two updates: {moved:.1e}");
    if !(moved > 0.0 && moved < 1e-3) {
        return Err(format!("two updates of AdamW moved a weight by {moved}").into());
    }
    Ok(())
}
