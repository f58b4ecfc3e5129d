//! Joint training of UNet and text encoder on the latents of composed scenes.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_clip::{ClipTextModel, ClipTokenizer};
use ddpo_model::Unet;
use ddpo_sched::{Draw, KeyedNoise, NoiseSchedule, NoiseSource, Seeds, Stream};
use ddpo_torch::Store;
use tch::{Device, Kind, Tensor};

use super::batch::compose;
use super::codec::PatchCodec;
use super::train_state::{StepArgs, TrainState, learning_rate};
use super::{Progress, prefixed};
use crate::Result;
use crate::scene::Composer;

/// Hyperparameters of the training of the diffusion model.
#[derive(Clone, Debug)]
pub struct DiffusionPlan {
    /// Scenes in total.
    pub samples: u64,
    /// Scenes per update.
    pub batch: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the updates over which the learning rate decays to zero.
    pub decay: f64,
    /// Seed of weights, scenes, timesteps and noise.
    pub seed: u64,
    /// Share of captions replaced by the empty one, for guidance.
    pub empty: f64,
    /// Signal-to-noise ratio above which a timestep weighs less (min-SNR, Hang et al. 2023).
    pub min_snr: f64,
}

impl Default for DiffusionPlan {
    fn default() -> Self {
        Self {
            samples: 600_000,
            batch: 64,
            lr: 1e-3,
            decay: 0.5,
            seed: 0,
            empty: 0.1,
            min_snr: 5.0,
        }
    }
}

/// UNet and text encoder in training.
pub struct DiffusionTraining<'a> {
    plan: DiffusionPlan,
    composer: &'a Composer<'a>,
    codec: &'a PatchCodec,
    tokenizer: &'a ClipTokenizer,
    unet: Unet,
    text: ClipTextModel,
    schedule: NoiseSchedule,
    loss_weights: Tensor,
    train_state: TrainState,
}

/// Weight of the loss at each timestep, f32 `[timesteps]`: for predicted noise, min(snr, γ) / snr.
fn loss_weights(schedule: &NoiseSchedule, min_snr: f64) -> Tensor {
    let weight = |abar: &f64| (min_snr * (1.0 - abar) / abar).min(1.0) as f32;
    Tensor::from_slice(&schedule.abar().iter().map(weight).collect::<Vec<_>>())
}

impl<'a> DiffusionTraining<'a> {
    /// Random weights, or those of an earlier [`DiffusionTraining::save`] at `resume`.
    ///
    /// # Errors
    /// If the checkpoint does not fit.
    pub fn new(
        plan: DiffusionPlan,
        composer: &'a Composer<'a>,
        codec: &'a PatchCodec,
        tokenizer: &'a ClipTokenizer,
        schedule: &NoiseSchedule,
        resume: Option<&Path>,
    ) -> Result<Self> {
        let store = Store::random(plan.seed, Device::Cpu, Kind::Float);
        let unet = Unet::new(&(&store.root() / "unet"), &crate::shape::unet())?;
        let text = ClipTextModel::new(&(&store.root() / "text_encoder"), &crate::shape::text())?;
        let mut train_state = TrainState::new(&store.finish()?);
        if let Some(path) = resume {
            train_state.load(path)?;
        }
        let loss_weights = loss_weights(schedule, plan.min_snr);
        Ok(Self {
            plan,
            composer,
            codec,
            tokenizer,
            unet,
            text,
            schedule: schedule.clone(),
            loss_weights,
            train_state,
        })
    }

    /// Trains to the end; `observe` may stop it by returning false.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn run(&mut self, observe: &mut dyn FnMut(&Self, Progress) -> Result<bool>) -> Result<()> {
        let total = self.plan.samples / self.plan.batch;
        while self.train_state.step < total {
            let step = self.train_state.step;
            let loss = self.loss(step)?;
            loss.backward();
            let lr = learning_rate(self.plan.lr, step, total, 200, self.plan.decay);
            let args = StepArgs {
                lr,
                beta2: 0.99,
                weight_decay: 0.01,
                max_grad_norm: 1.0,
                ema: 0.999,
            };
            let grad_norm = self.train_state.step(args)?;
            let loss = loss.double_value(&[]);
            let progress = Progress {
                step: step + 1,
                total,
                samples_per_step: self.plan.batch,
                loss,
                lr,
                grad_norm,
            };
            if !observe(self, progress)? {
                break;
            }
        }
        Ok(())
    }

    /// The loss of update `step`: its noise is keyed by `step` alone, so that a resumed run is exact.
    fn loss(&self, step: u64) -> Result<Tensor> {
        let DiffusionPlan {
            batch, seed, empty, ..
        } = self.plan;
        let first = step * batch;
        let mut data = compose(self.composer, seed, first..first + batch);
        let seeds = Seeds::new(seed);
        let mut draws = seeds.derive(Stream::Diffusion, 0, step).draws();
        for caption in &mut data.captions {
            if draws.unit() < empty {
                caption.clear();
            }
        }
        // One timestep in each of `batch` equal intervals.
        let mut timesteps: Vec<usize> = (0..batch)
            .map(|i| ((i as f64 + draws.unit()) / batch as f64 * 1000.0) as usize)
            .collect();
        draws.shuffle(&mut timesteps);
        let t: Vec<i64> = timesteps.iter().map(|&t| t as i64).collect();
        let t = Tensor::from_slice(&t);
        let latents = self.codec.encode(&data.images);
        let ids: Vec<u64> = (first..first + batch).collect();
        let noise = KeyedNoise::of_stream(seeds, Stream::Diffusion, 1).normal(
            &ids,
            Draw::Initial,
            &latents.size()[1..],
        )?;
        let x_t = self.schedule.q_sample(&latents, &noise, &timesteps)?;
        let captions: Vec<&str> = data.captions.iter().map(String::as_str).collect();
        let cond = self.text.forward(&self.tokenizer.encode(&captions)?);
        let eps = self.unet.forward(&x_t, &t, &cond);
        let each = (eps - noise)
            .square()
            .mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
        Ok((each * self.loss_weights.index_select(0, &t)).mean(Kind::Float))
    }

    /// Starts from the weights of a model (names as in [`Self::average`]'s parts), not from random ones.
    ///
    /// # Errors
    /// A weight that is missing or of another shape; `path` is for the message.
    pub fn start_from(&mut self, weights: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
        self.train_state.start_from(weights, path)
    }

    /// Writes everything that resuming needs.
    ///
    /// # Errors
    /// If writing fails.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.train_state.save(path)
    }

    /// The averaged weights of one part (`unet` or `text_encoder`), under their own names.
    pub fn average<'t>(&'t self, part: &'t str) -> impl Iterator<Item = (&'t str, &'t Tensor)> {
        prefixed(self.train_state.average(), part)
    }
}
