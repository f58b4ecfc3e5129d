//! Training of the VAE's decoder on latents of the computed encoder.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_model::{VaeConfig, vae::Decoder};
use ddpo_sched::{Draw, KeyedNoise, NoiseSource, Seeds, Stream};
use ddpo_torch::Store;
use tch::{Device, Kind, Tensor};

use super::Progress;
use super::batch::compose;
use super::codec::PatchCodec;
use super::train_state::{StepArgs, TrainState, learning_rate};
use crate::Result;
use crate::scene::Composer;

/// Hyperparameters of the training of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderPlan {
    /// Scenes in total.
    pub samples: u64,
    /// Scenes per update.
    pub batch: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the updates over which the learning rate decays to zero.
    pub decay: f64,
    /// Seed of weights and scenes.
    pub seed: u64,
    /// Standard deviation of the noise on the latents, since the UNet's latents are never exact.
    pub noise: f64,
}

impl Default for DecoderPlan {
    fn default() -> Self {
        Self {
            samples: 80_000,
            batch: 8,
            lr: 2e-3,
            decay: 0.5,
            seed: 1,
            noise: 0.04,
        }
    }
}

/// The decoder in training.
pub struct DecoderTraining<'a> {
    plan: DecoderPlan,
    composer: &'a Composer<'a>,
    codec: &'a PatchCodec,
    decoder: Decoder,
    train_state: TrainState,
}

impl<'a> DecoderTraining<'a> {
    /// Random weights, or those of an earlier [`DecoderTraining::save`] at `resume`.
    ///
    /// # Errors
    /// If the checkpoint does not fit.
    pub fn new(
        plan: DecoderPlan,
        composer: &'a Composer<'a>,
        codec: &'a PatchCodec,
        config: &VaeConfig,
        resume: Option<&Path>,
    ) -> Result<Self> {
        let store = Store::random(plan.seed, Device::Cpu, Kind::Float);
        let decoder = Decoder::new(&store.root(), config);
        let mut train_state = TrainState::new(&store.finish()?);
        if let Some(path) = resume {
            train_state.load(path)?;
        }
        Ok(Self {
            plan,
            composer,
            codec,
            decoder,
            train_state,
        })
    }

    /// Trains to the end; `observe` may stop it by returning false.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn run(
        &mut self,
        observe: &mut dyn FnMut(&mut Self, Progress) -> Result<bool>,
    ) -> Result<()> {
        let total = self.plan.samples / self.plan.batch;
        while self.train_state.step < total {
            let step = self.train_state.step;
            let loss = self.loss(step)?;
            loss.backward();
            let lr = learning_rate(self.plan.lr, step, total, 100, self.plan.decay);
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

    fn loss(&self, step: u64) -> Result<Tensor> {
        let DecoderPlan {
            batch, seed, noise, ..
        } = self.plan;
        let first = step * batch;
        let images = compose(self.composer, seed, first..first + batch).images;
        let latents = self.codec.encode(&images);
        let ids: Vec<u64> = (first..first + batch).collect();
        let drawn = KeyedNoise::of_stream(Seeds::new(seed), Stream::Data, 1).normal(
            &ids,
            Draw::Initial,
            &latents.size()[1..],
        )?;
        let made = self.decoder.forward(&(latents + drawn * noise));
        Ok(reconstruction_loss(&made, &images))
    }

    /// Peak signal-to-noise ratio of the averaged decoder on scenes of another seed, in dB of the range [-1, 1],
    /// over all pixels together.
    pub fn psnr(&mut self, n: u64) -> f64 {
        let images = compose(self.composer, self.plan.seed + 1_000, 0..n).images;
        let latents = self.codec.encode(&images);
        let Self {
            train_state,
            decoder,
            ..
        } = self;
        train_state.with_average(|| {
            let _guard = tch::no_grad_guard();
            let made = decoder.forward(&latents).clamp(-1.0, 1.0);
            let mse = (made - images)
                .square()
                .mean(Kind::Double)
                .double_value(&[]);
            10.0 * (4.0 / mse).log10()
        })
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

    /// The averaged weights, under the VAE's names.
    pub fn average(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.train_state.average()
    }
}

/// L1 of pixels, of their differences (edges) and of 4×4 means (colour), and the squared error.
fn reconstruction_loss(made: &Tensor, images: &Tensor) -> Tensor {
    let error = made - images;
    let difference = |dim: i64| {
        let n = error.size()[dim as usize] - 1;
        (error.narrow(dim, 1, n) - error.narrow(dim, 0, n))
            .abs()
            .mean(Kind::Float)
    };
    let pooled = error.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None::<i64>);
    error.abs().mean(Kind::Float)
        + 0.25 * (difference(2) + difference(3))
        + 0.5 * pooled.abs().mean(Kind::Float)
        + 0.5 * error.square().mean(Kind::Float)
}
