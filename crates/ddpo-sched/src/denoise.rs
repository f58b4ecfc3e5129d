//! The only denoising loop, and what it asks a network.

use tch::{Device, Tensor};

use crate::{Conditioning, Draw, Error, LogProb, NoiseSource, Result, Sampler};

/// What a network is asked.
#[derive(Debug, Clone, Copy)]
pub struct DenoiseInput<'a> {
    /// Noisy latents, f32 `[batch, channels, height, width]`.
    pub x_t: &'a Tensor,
    /// Model times, f32 `[batch]`, on the device of `x_t`: training timesteps of a diffusion model.
    pub t: &'a Tensor,
    /// Conditioning of each sample, on the device of `x_t`.
    pub cond: &'a Conditioning,
}

/// A denoiser with its conditioning: `x_t` and `t`, as in [`DenoiseInput`], to the model output.
pub type Conditioned<'a> = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + 'a>;

/// A network that predicts what is noise in a latent: ε, the velocity, or x₀, as its schedule says.
pub trait Denoiser {
    /// The model output, of the shape of `x_t`, any floating-point kind.
    ///
    /// A sample's output depends on its own row of the input alone.
    ///
    /// # Gradients
    /// It follows libtorch's grad mode. Under `no_grad` none is recorded; otherwise gradients flow to `x_t` and to the
    /// parameters that record them. `dev::denoiser_conforms` (feature `dev`) checks it.
    ///
    /// # Errors
    /// [`Error::Shape`], or [`Error::Denoiser`] with what the network reports.
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor>;

    /// The same output without gradients, for many steps with one conditioning: what is the same at all of them can be
    /// computed once, and is that of the weights as they are now.
    ///
    /// The numbers are those of [`predict`](Self::predict), to the rounding of f32.
    ///
    /// # Errors
    /// What the network reports of the conditioning.
    fn conditioned<'a>(&'a self, cond: &Conditioning) -> Result<Conditioned<'a>> {
        let cond = cond.clone();
        Ok(Box::new(move |x_t, t| {
            let cond = &cond;
            tch::no_grad(|| self.predict(DenoiseInput { x_t, t, cond }))
        }))
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        (**self).predict(input)
    }

    fn conditioned<'a>(&'a self, cond: &Conditioning) -> Result<Conditioned<'a>> {
        (**self).conditioned(cond)
    }
}

/// Which latents [`sample`] is to make.
#[derive(Debug, Clone, Copy)]
pub struct LatentBatch<'a> {
    /// Shape of one latent: `[channels, height, width]`.
    pub shape: &'a [i64],
    /// Conditioning of the batch; the samples are made on its device.
    pub cond: &'a Conditioning,
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
    /// Model time of the step.
    pub timestep: f64,
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
/// time but the last, noise leads back to where the step began, as [`Sampler::renoise`] says.
///
/// The last time draws [`Draw::Step`] as `sample` does, earlier ones [`Draw::Repeat`], the way back
/// [`Draw::Renoise`]. `observe` sees the last time of each step.
///
/// # Shapes
/// As [`sample`].
///
/// # Errors
/// As [`sample`]; [`Error::Config`] if steps are to be repeated of a sampler that cannot take them back.
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
    batch.cond.check(n)?;
    let device = batch.cond.device();

    let _no_grad = tch::no_grad_guard();
    let predict = net.conditioned(batch.cond)?;
    let x_t = noise.normal(batch.sample_ids, Draw::Initial, batch.shape)?;
    let mut x_t = match sampler.init_noise_scale() {
        1.0 => queued(&x_t, device),
        scale => queued(&x_t, device) * scale,
    };
    let n_steps = sampler.n_steps();
    for step in 0..n_steps {
        let at = vec![step; n];
        let t = queued(&sampler.timesteps(&at)?, device);
        let draw = |draw| noise.normal(batch.sample_ids, draw, batch.shape);
        let next = |x_t: &Tensor| {
            let output = predict(&sampler.scale_model_input(&at, x_t), &t)?;
            sampler.transition(&at, x_t, &output)
        };
        for repeat in 0..repeats.saturating_sub(1) {
            let Some((kept, added)) = sampler.renoise(step) else {
                let expected = "must be 1: this sampler cannot take a step back";
                return Err(Error::config("repeats", repeats, expected));
            };
            let z = draw(Draw::Repeat { step, repeat })?;
            let x_prev = next(&x_t)?.at(&z)?;
            let z = draw(Draw::Renoise { step, repeat })?;
            x_t = &x_prev * kept + queued(&z, device) * added;
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
            timestep: sampler.timestep(step),
            x_t: &x_t,
            x_prev: &x_prev,
            noise: &z,
            log_prob: log_prob.as_ref(),
        })?;
        x_t = x_prev;
    }
    Ok(x_t)
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
    use tch::Kind;

    use super::*;

    #[test]
    fn nothing_is_copied_where_the_host_computes() {
        let noise = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        assert_eq!(queued(&noise, Device::Cpu).data_ptr(), noise.data_ptr());
    }
}
