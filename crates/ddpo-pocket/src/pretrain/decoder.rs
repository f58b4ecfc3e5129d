//! Training the VAE's decoder on latents of the encoder that was set.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_model::{VaeConfig, vae::Decoder};
use ddpo_sched::{Draw, KeyedNoise, NoiseSource, Seeds, Stream};
use ddpo_torch::Store;
use tch::{Device, Kind, Tensor};

use super::Progress;
use super::batch::compose;
use super::codec::PatchCodec;
use super::trainee::{StepArgs, Trainee, learning_rate};
use crate::Result;
use crate::scene::Composer;

/// What the training of the decoder is made of.
#[derive(Clone, Debug)]
pub struct DecoderPlan {
    /// Scenes seen in all.
    pub samples: u64,
    /// Scenes an optimiser step.
    pub batch: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps over which the rate falls to nothing.
    pub decay: f64,
    /// Seed of weights and scenes.
    pub seed: u64,
    /// Standard deviation of the noise on the latents: what the UNet makes is never exact.
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
    trainee: Trainee,
}

impl<'a> DecoderTraining<'a> {
    /// Random weights, or those of an earlier [`DecoderTraining::save`] at `resume`.
    ///
    /// # Errors
    /// A checkpoint that does not fit.
    pub fn new(
        plan: DecoderPlan,
        composer: &'a Composer<'a>,
        codec: &'a PatchCodec,
        config: &VaeConfig,
        resume: Option<&Path>,
    ) -> Result<Self> {
        let store = Store::random(plan.seed, Device::Cpu, Kind::Float);
        let decoder = Decoder::new(&store.root(), config);
        let mut trainee = Trainee::new(&store.finish()?);
        if let Some(path) = resume {
            trainee.load(path)?;
        }
        Ok(Self {
            plan,
            composer,
            codec,
            decoder,
            trainee,
        })
    }

    /// Trains to the end of the plan; `observe` may stop it by returning false.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn run(
        &mut self,
        observe: &mut dyn FnMut(&mut Self, Progress) -> Result<bool>,
    ) -> Result<()> {
        let total = self.plan.samples / self.plan.batch;
        while self.trainee.step < total {
            let step = self.trainee.step;
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
            let grad_norm = self.trainee.step(args)?;
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
            trainee, decoder, ..
        } = self;
        trainee.with_average(|| {
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
        self.trainee.start_from(weights, path)
    }

    /// Everything that a restart needs.
    ///
    /// # Errors
    /// What writing reports.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.trainee.save(path)
    }

    /// The averaged weights, under the VAE's names.
    pub fn average(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.trainee.average()
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
