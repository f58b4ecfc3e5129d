//! The only denoising loop, and the two traits that it joins: a network and a sampler.

use tch::{Device, Kind, Tensor};

use crate::gaussian::per_sample;
use crate::{Ddim, Draw, Error, Gaussian, LogProb, NoiseSource, Result, StepCoeffs};

/// What a network is asked.
#[derive(Debug, Clone, Copy)]
pub struct DenoiseInput<'a> {
    /// Noisy latents, f32 `[batch, channels, height, width]`.
    pub x_t: &'a Tensor,
    /// Training timesteps, i64 `[batch]`, on the device of `x_t`.
    pub t: &'a Tensor,
    /// Conditioning, such as text embeddings `[batch, tokens, dim]`, on the device of `x_t`.
    pub cond: &'a Tensor,
}

/// A denoiser with its conditioning: `x_t` and `t`, as in [`DenoiseInput`], to ε.
pub type Conditioned<'a> = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + 'a>;

/// A network that predicts the noise ε in a latent.
pub trait Denoiser {
    /// ε, of the shape of `x_t`, any floating-point kind.
    ///
    /// A sample's ε depends on its own row of the input alone.
    ///
    /// # Errors
    /// [`Error::Shape`], or [`Error::Denoiser`] with what the network reports.
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor>;

    /// The same ε without gradients, for many steps with one conditioning: what is the same at all of them can be
    /// computed once, and is that of the weights as they are now.
    ///
    /// The numbers are those of [`predict`](Self::predict), to the rounding of f32.
    ///
    /// # Errors
    /// What the network reports of the conditioning.
    fn conditioned<'a>(&'a self, cond: &Tensor) -> Result<Conditioned<'a>> {
        let cond = cond.shallow_clone();
        Ok(Box::new(move |x_t, t| {
            let cond = &cond;
            self.predict(DenoiseInput { x_t, t, cond })
        }))
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        (**self).predict(input)
    }

    fn conditioned<'a>(&'a self, cond: &Tensor) -> Result<Conditioned<'a>> {
        (**self).conditioned(cond)
    }
}

/// A denoising process whose every step is a Gaussian. It has no mutable state.
pub trait Sampler: Send + Sync {
    /// The coefficients of all steps, noisiest first.
    fn steps(&self) -> &[StepCoeffs];

    /// The distribution of the next latent of each sample.
    ///
    /// Samples may be at different steps: `at[i]` is the position of sample i in [`steps`](Self::steps).
    /// Differentiable in `eps`.
    ///
    /// # Shapes
    /// - `x_t`, `eps`: `[batch, …]`, computed in f32
    /// - `at`: batch
    ///
    /// # Errors
    /// [`Error::Shape`], or [`Error::Range`] for a step that is not there.
    fn transition(&self, at: &[usize], x_t: &Tensor, eps: &Tensor) -> Result<Gaussian>;

    /// Refuses a process with a step that adds no noise: such a step has no log-probability.
    ///
    /// # Errors
    /// [`Error::Deterministic`] with the step.
    fn require_stochastic(&self) -> Result<()> {
        let steps = self.steps();
        match steps.iter().position(|step| step.std <= 0.0) {
            None => Ok(()),
            Some(step) => Err(Error::Deterministic {
                step,
                timestep: steps[step].timestep,
            }),
        }
    }

    /// The training timesteps of samples at these steps, i64 `[batch]`, on the host.
    ///
    /// # Errors
    /// [`Error::Range`] for a step that is not there.
    fn timesteps(&self, at: &[usize]) -> Result<Tensor> {
        let coeffs = lookup(self.steps(), at)?;
        let timesteps: Vec<i64> = coeffs.iter().map(|c| c.timestep as i64).collect();
        Ok(Tensor::from_slice(&timesteps))
    }
}

impl Sampler for Ddim {
    fn steps(&self) -> &[StepCoeffs] {
        self.steps()
    }

    fn transition(&self, at: &[usize], x_t: &Tensor, eps: &Tensor) -> Result<Gaussian> {
        let coeffs = lookup(self.steps(), at)?;
        let mut shape = x_t.size();
        check_shape(eps, "eps", &shape)?;
        if let Some(batch) = shape.first_mut() {
            *batch = at.len() as i64;
        }
        check_shape(x_t, "x_t", &shape)?;
        let (a, b): (Vec<f64>, Vec<f64>) = coeffs.iter().map(|c| c.mean_weights()).unzip();
        let mean = x_t.to_kind(Kind::Float) * per_sample(&a, x_t)
            + eps.to_kind(Kind::Float) * per_sample(&b, x_t);
        let std = coeffs.iter().map(|c| c.std).collect();
        Ok(Gaussian { mean, std })
    }
}

/// Which latents [`sample`] is to make.
#[derive(Debug, Clone, Copy)]
pub struct LatentBatch<'a> {
    /// Shape of one latent: `[channels, height, width]`.
    pub shape: &'a [i64],
    /// Conditioning, `[batch, …]`; the samples are made on its device.
    pub cond: &'a Tensor,
    /// Keys of the samples' noise, one per sample.
    pub sample_ids: &'a [u64],
    /// Whether to compute log-probabilities, and how.
    pub log_prob: Option<LogProb>,
}

/// What the denoising loop did at one step.
#[derive(Debug, Clone, Copy)]
pub struct StepRecord<'a> {
    /// Position in the run, noisiest first.
    pub step: usize,
    /// How many steps there are.
    pub n_steps: usize,
    /// Training timestep.
    pub timestep: usize,
    /// The latent before, f32 `[batch, channels, height, width]`.
    pub x_t: &'a Tensor,
    /// The latent after: the very value whose log-probability was taken.
    pub x_prev: &'a Tensor,
    /// The standard normal that the step consumed, f32, of the same shape, on the host.
    pub noise: &'a Tensor,
    /// Log-probability of `x_prev`, f32 `[batch]`, if it was asked for.
    pub log_prob: Option<&'a Tensor>,
}

/// Draws latents by walking a sampler from noise to x₀, without recording gradients.
///
/// All noise is an argument: the initial latent is [`Draw::Initial`] of `noise`, step i adds [`Draw::Step`] i.
/// `observe` sees every step and may end the loop with [`Error::Stopped`].
///
/// # Shapes
/// - returns: x₀, f32 `[batch, channels, height, width]`, on the device of `cond`
///
/// # Errors
/// [`Error::Deterministic`] before anything is computed if log-probabilities are wanted of a sampler that
/// has none; what the network, the noise or `observe` reports.
pub fn sample(
    net: &dyn Denoiser,
    sampler: &dyn Sampler,
    batch: &LatentBatch<'_>,
    noise: &dyn NoiseSource,
    observe: &mut dyn FnMut(StepRecord<'_>) -> Result<()>,
) -> Result<Tensor> {
    sample_repeating(net, sampler, batch, noise, 1, observe)
}

/// [`sample`], with every step taken `repeats` times (self-recurrence: Bansal et al. 2023, algorithm 1): after each
/// time but the last, noise leads back to where the step began,
/// `x_t = √(ᾱ / ᾱ_prev) x_prev + √(1 − ᾱ / ᾱ_prev) z`.
///
/// The last time draws [`Draw::Step`] as `sample` does, earlier ones [`Draw::Repeat`], the way back
/// [`Draw::Renoise`]. `observe` sees the last time of each step.
///
/// # Shapes
/// As [`sample`].
///
/// # Errors
/// As [`sample`].
pub fn sample_repeating(
    net: &dyn Denoiser,
    sampler: &dyn Sampler,
    batch: &LatentBatch<'_>,
    noise: &dyn NoiseSource,
    repeats: usize,
    observe: &mut dyn FnMut(StepRecord<'_>) -> Result<()>,
) -> Result<Tensor> {
    if batch.log_prob.is_some() {
        sampler.require_stochastic()?;
    }
    let n = batch.sample_ids.len();
    let mut cond_shape = batch.cond.size();
    if let Some(first) = cond_shape.first_mut() {
        *first = n as i64;
    }
    check_shape(batch.cond, "cond", &cond_shape)?;
    let device = batch.cond.device();

    let _no_grad = tch::no_grad_guard();
    let predict = net.conditioned(batch.cond)?;
    let x_t = noise.normal(batch.sample_ids, Draw::Initial, batch.shape)?;
    let mut x_t = queued(&x_t, device);
    let n_steps = sampler.steps().len();
    for (step, coeffs) in sampler.steps().iter().enumerate() {
        let at = vec![step; n];
        let t = queued(&sampler.timesteps(&at)?, device);
        let draw = |draw| noise.normal(batch.sample_ids, draw, batch.shape);
        let next = |x_t: &Tensor| {
            let eps = predict(x_t, &t)?;
            sampler.transition(&at, x_t, &eps)
        };
        for repeat in 0..repeats.saturating_sub(1) {
            let z = draw(Draw::Repeat { step, repeat })?;
            let x_prev = next(&x_t)?.at(&z)?;
            let z = draw(Draw::Renoise { step, repeat })?;
            x_t = coeffs.renoised(&x_prev, &z);
        }
        let next = next(&x_t)?;
        let z = draw(Draw::Step(step))?;
        let x_prev = next.at(&z)?;
        let log_prob = match batch.log_prob {
            Some(reduce) => Some(next.log_prob(&x_prev, reduce)?),
            None => None,
        };
        observe(StepRecord {
            step,
            n_steps,
            timestep: coeffs.timestep,
            x_t: &x_t,
            x_prev: &x_prev,
            noise: &z,
            log_prob: log_prob.as_ref(),
        })?;
        x_t = x_prev;
    }
    Ok(x_t)
}

impl StepCoeffs {
    /// A latent after this step with the noise put back that the step took out.
    fn renoised(&self, x_prev: &Tensor, z: &Tensor) -> Tensor {
        let kept = self.sqrt_abar / self.sqrt_abar_prev;
        let added = (1.0 - kept * kept).max(0.0).sqrt();
        x_prev * kept + queued(z, x_prev.device()) * added
    }
}

fn lookup(steps: &[StepCoeffs], at: &[usize]) -> Result<Vec<StepCoeffs>> {
    at.iter()
        .map(|&step| {
            steps.get(step).copied().ok_or(Error::Range {
                name: "step",
                index: step as u64,
                len: steps.len() as u64,
            })
        })
        .collect()
}

/// A copy on the device that the host does not wait for; the tensor itself if it is there already.
///
/// By way of pinned memory: before a copy from any other, CUDA may wait for what is queued, such as the forward
/// pass that noise is drawn beside. The pinned copy may be dropped at once, since libtorch's allocator gives its
/// memory to nobody before CUDA has read it.
pub(crate) fn queued(host: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) if host.device() == Device::Cpu => {
            let pinned = host.pin_memory(device);
            pinned.internal_to_copy((host.kind(), device), true)
        }
        // On the way back the host would read before the bytes are there.
        _ => host.to_device(device),
    }
}

/// Refuses a tensor, called `name` in the message, of another shape than `expected`.
///
/// # Errors
/// [`Error::Shape`].
pub fn check_shape(tensor: &Tensor, name: &'static str, expected: &[i64]) -> Result<()> {
    let actual = tensor.size();
    if actual == expected {
        return Ok(());
    }
    Err(Error::Shape {
        name,
        expected: expected.to_vec(),
        actual,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_copied_where_the_host_computes() {
        let noise = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        assert_eq!(queued(&noise, Device::Cpu).data_ptr(), noise.data_ptr());
    }
}
