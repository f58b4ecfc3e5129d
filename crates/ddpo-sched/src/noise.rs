//! Standard normal noise as a function of who needs it, not of when it is drawn.

use tch::{Kind, Tensor};

use crate::{Error, Result, Seeds, Stream};

/// What noise is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// The initial latent.
    Initial,
    /// The denoising step at this position, noisiest first.
    Step(usize),
    /// An earlier time that a step is taken which is taken several times; [`Step`](Draw::Step) is the last.
    Repeat {
        /// Position of the step, noisiest first.
        step: usize,
        /// Which time, from 0.
        repeat: usize,
    },
    /// Back from such a step to the noise before it.
    Renoise {
        /// Position of the step, noisiest first.
        step: usize,
        /// After which time, from 0.
        repeat: usize,
    },
}

impl Draw {
    /// The ChaCha nonce: 0 for the initial latent, 1 + step for a denoising step; repetitions count in the upper
    /// half, whose highest bit tells steps from the way back.
    fn nonce(self) -> u64 {
        let repeated = |step: usize, repeat: usize| ((1 + repeat as u64) << 32) | (1 + step as u64);
        match self {
            Self::Initial => 0,
            Self::Step(step) => 1 + step as u64,
            Self::Repeat { step, repeat } => repeated(step, repeat),
            Self::Renoise { step, repeat } => (1 << 63) | repeated(step, repeat),
        }
    }
}

/// Where standard normal noise comes from.
pub trait NoiseSource: Send {
    /// Noise for each sample. What a sample gets depends on its id and the draw alone.
    ///
    /// # Shapes
    /// - `shape`: that of one sample, such as `[channels, height, width]`
    /// - returns: f32 `[sample_ids.len(), …shape]`, on the host
    ///
    /// # Errors
    /// [`Error::Range`] or [`Error::Shape`] if the source holds no such noise.
    fn normal(&self, sample_ids: &[u64], draw: Draw, shape: &[i64]) -> Result<Tensor>;
}

/// Noise keyed by (seed, stream, epoch, sample id, draw); see [`Seeds`] for the derivation.
///
/// The draw is the ChaCha nonce.
#[derive(Debug, Clone, Copy)]
pub struct KeyedNoise {
    seeds: Seeds,
    stream: Stream,
    epoch: u64,
    group: u64,
}

impl KeyedNoise {
    /// The noise of the training samples of an epoch.
    pub fn new(seeds: Seeds, epoch: u64) -> Self {
        Self::of_stream(seeds, Stream::Noise, epoch)
    }

    /// Noise for another purpose, such as [`Stream::Evaluation`].
    pub fn of_stream(seeds: Seeds, stream: Stream, epoch: u64) -> Self {
        Self {
            seeds,
            stream,
            epoch,
            group: 1,
        }
    }

    /// Gives `group` samples of neighbouring ids the initial latent of the first of them, as group baselines may
    /// want it; the noise of their steps stays their own. 1 changes nothing.
    #[must_use]
    pub fn with_shared_initial(mut self, group: usize) -> Self {
        self.group = group.max(1) as u64;
        self
    }
}

impl NoiseSource for KeyedNoise {
    fn normal(&self, sample_ids: &[u64], draw: Draw, shape: &[i64]) -> Result<Tensor> {
        let len = shape.iter().product::<i64>() as usize;
        let mut values = vec![0.0_f32; len * sample_ids.len()];
        for (row, &id) in values.chunks_exact_mut(len.max(1)).zip(sample_ids) {
            let id = match draw {
                Draw::Initial => id - id % self.group,
                _ => id,
            };
            self.seeds
                .derive(self.stream, self.epoch, id)
                .sub(draw.nonce())
                .fill_normal(row);
        }
        Ok(Tensor::from_slice(&values).view(batch_shape(sample_ids, shape).as_slice()))
    }
}

/// Noise from files; what a file does not give comes from `otherwise`. Sample ids are rows.
pub struct FixedNoise {
    latents: Option<Tensor>,
    noise: Option<Tensor>,
    otherwise: Box<dyn NoiseSource>,
}

impl FixedNoise {
    /// Nothing is fixed yet.
    pub fn new(otherwise: impl NoiseSource + 'static) -> Self {
        Self {
            latents: None,
            noise: None,
            otherwise: Box::new(otherwise),
        }
    }

    /// Fixes the initial latents, `[batch, channels, height, width]`.
    #[must_use]
    pub fn with_latents(mut self, latents: &Tensor) -> Self {
        self.latents = Some(on_host(latents));
        self
    }

    /// Fixes the noise of the steps, `[steps, batch, channels, height, width]`, noisiest first.
    #[must_use]
    pub fn with_noise(mut self, noise: &Tensor) -> Self {
        self.noise = Some(on_host(noise));
        self
    }
}

impl NoiseSource for FixedNoise {
    fn normal(&self, sample_ids: &[u64], draw: Draw, shape: &[i64]) -> Result<Tensor> {
        let (rows, name) = match (draw, &self.latents, &self.noise) {
            (Draw::Initial, Some(latents), _) => (latents.shallow_clone(), "initial latents"),
            (Draw::Step(step), _, Some(noise)) => (
                row(noise, step as u64, "steps of noise")?,
                "noise of a step",
            ),
            _ => return self.otherwise.normal(sample_ids, draw, shape),
        };
        let picked = sample_ids
            .iter()
            .map(|&id| row(&rows, id, name))
            .collect::<Result<Vec<_>>>()?;
        for sample in &picked {
            crate::denoise::check_shape(sample, "fixed noise of a sample", shape)?;
        }
        if picked.is_empty() {
            return Ok(Tensor::zeros(
                batch_shape(sample_ids, shape),
                (Kind::Float, tch::Device::Cpu),
            ));
        }
        Ok(Tensor::stack(&picked, 0))
    }
}

fn row(tensor: &Tensor, index: u64, name: &'static str) -> Result<Tensor> {
    let len = tensor.size().first().copied().unwrap_or(0) as u64;
    if index >= len {
        return Err(Error::Range { name, index, len });
    }
    Ok(tensor.get(index as i64))
}

fn on_host(tensor: &Tensor) -> Tensor {
    tensor
        .detach()
        .to_device(tch::Device::Cpu)
        .to_kind(Kind::Float)
}

fn batch_shape(sample_ids: &[u64], shape: &[i64]) -> Vec<i64> {
    let mut full = vec![sample_ids.len() as i64];
    full.extend_from_slice(shape);
    full
}
