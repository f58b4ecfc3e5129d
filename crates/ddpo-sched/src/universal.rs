//! Universal guidance (Bansal et al. 2023): sampling that follows the gradient of any differentiable reward.

use tch::{Kind, Tensor};

use crate::denoise::check_shape;
use crate::gaussian::per_sample;
use crate::{Conditioned, DenoiseInput, Denoiser, Error, NoiseSchedule, Result};

/// What guidance is to make large: predicted x₀ latents, f32 `[batch, …]`, to one number a sample, `[batch]`,
/// recording gradients; such as a decoder and a reward network after it.
pub type Objective<'a> = Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>;

/// A denoiser whose ε follows the gradient of an [`Objective`]: forward universal guidance.
///
/// ```text
/// x̂₀ = (xₜ − √(1−ᾱ) ε) / √ᾱ          ε(xₜ) the inner denoiser's, with its own guidance
/// ε  ← ε − √(1−ᾱ) s ∇ f(x̂₀(xₜ))       the gradient is taken in xₜ, through the network
/// ```
///
/// Source: `stable-diffusion-guided/ldm/models/diffusion/ddim_with_grad.py` of the official code, branch
/// `guidance_3`; its `selected` is f, its `optim_guidance_3_wt` s. Its self-recurrence is
/// [`sample_repeating`](crate::sample_repeating). Backward guidance is not built: the comparison in Black et al.
/// (appendix B) uses the style-transfer setting, which has none.
///
/// What a sample's ε is depends on its own row alone, as far as the objective keeps to that: the gradient is that of
/// the sum over samples. With a scale of 0 the objective is not asked, and ε is the inner denoiser's to the bit.
pub struct Universal<'a, D> {
    inner: D,
    schedule: NoiseSchedule,
    scale: f64,
    objective: Objective<'a>,
}

impl<'a, D: Denoiser> Universal<'a, D> {
    /// Guides `inner` towards large values of `objective` with weight `scale` (style transfer: 6 on 100 times a
    /// cosine). `schedule` is that of the model.
    pub fn new(inner: D, schedule: NoiseSchedule, scale: f64, objective: Objective<'a>) -> Self {
        Self {
            inner,
            schedule,
            scale,
            objective,
        }
    }

    /// √ᾱ and √(1 − ᾱ) of each sample.
    fn levels(&self, t: &Tensor) -> Result<(Vec<f64>, Vec<f64>)> {
        let t = Vec::<i64>::try_from(t.to_device(tch::Device::Cpu)).map_err(Error::denoiser)?;
        let abar = self.schedule.abar();
        let level = |&timestep: &i64| {
            let found = usize::try_from(timestep).ok().and_then(|at| abar.get(at));
            let abar = found.ok_or(Error::Range {
                name: "timestep",
                index: timestep.unsigned_abs(),
                len: abar.len() as u64,
            })?;
            Ok((abar.sqrt(), (1.0 - abar).sqrt()))
        };
        let levels = t.iter().map(level).collect::<Result<Vec<_>>>()?;
        Ok(levels.into_iter().unzip())
    }

    fn guided(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        let (signal, noise) = self.levels(input.t)?;
        let x_t = input.x_t.detach().set_requires_grad(true);
        let eps = self.inner.predict(DenoiseInput { x_t: &x_t, ..input })?;
        let eps = eps.to_kind(Kind::Float);
        let (signal, noise) = (per_sample(&signal, &x_t), per_sample(&noise, &x_t));
        let x_0 = (&x_t - &eps * &noise) / signal;
        let worth = (self.objective)(&x_0)?;
        check_shape(&worth, "objective", &[x_t.size()[0]])?;
        let total = worth.sum(Kind::Float);
        let grads = Tensor::f_run_backward(&[total], &[&x_t], false, false);
        let grad = grads.map_err(Error::denoiser)?.swap_remove(0);
        Ok((eps - noise * grad * self.scale).detach())
    }
}

impl<D: Denoiser> Denoiser for Universal<'_, D> {
    /// Records gradients for itself, whatever the caller does.
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        match self.scale == 0.0 {
            true => self.inner.predict(input),
            false => tch::with_grad(|| self.guided(input)),
        }
    }

    fn conditioned<'c>(&'c self, cond: &Tensor) -> Result<Conditioned<'c>> {
        if self.scale == 0.0 {
            return self.inner.conditioned(cond);
        }
        let cond = cond.shallow_clone();
        Ok(Box::new(move |x_t, t| {
            let cond = &cond;
            self.predict(DenoiseInput { x_t, t, cond })
        }))
    }
}
