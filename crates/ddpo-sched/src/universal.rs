//! Universal guidance (Bansal et al. 2023): sampling that follows the gradient of any differentiable reward.

use tch::{Kind, Tensor};

use crate::denoise::check_shape;
use crate::{
    Conditioned, Conditioning, DenoiseInput, Denoiser, Error, NoiseSchedule, Prediction, Result,
};

/// What guidance is to make large: predicted x₀ latents, f32 `[batch, …]`, to one number per sample, `[batch]`,
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

    /// What the gradient adds to ε, f32 of the shape of `x_t`, and ε itself, both without gradient.
    fn guidance(&self, input: DenoiseInput<'_>) -> Result<(Tensor, Tensor)> {
        if self.schedule.prediction() != Prediction::Epsilon {
            let expected = "must be epsilon: universal guidance is a change of the predicted noise";
            return Err(Error::config(
                "prediction_type",
                format!("{:?}", self.schedule.prediction()),
                expected,
            ));
        }
        let timesteps = timesteps(input.t)?;
        let x_t = input.x_t.detach().set_requires_grad(true);
        let eps = self.inner.predict(DenoiseInput { x_t: &x_t, ..input })?;
        let eps = eps.to_kind(Kind::Float);
        let x_0 = self.schedule.predict_x0(&x_t, &eps, &timesteps)?;
        let score = (self.objective)(&x_0)?;
        check_shape(&score, "objective", &[x_t.size()[0]])?;
        let total = score.sum(Kind::Float);
        // libtorch crashes if asked for a gradient of what has none.
        if !total.requires_grad() {
            return Err(Error::denoiser("the objective has no gradient in x₀"));
        }
        let grads = Tensor::f_run_backward(&[total], &[&x_t], false, false);
        let grad = grads.map_err(Error::denoiser)?.swap_remove(0);
        let noise = self.schedule.noise_levels(&x_t, &timesteps)?;
        Ok(((noise * grad * self.scale).detach(), eps.detach()))
    }
}

/// Model times as places in the schedule.
fn timesteps(t: &Tensor) -> Result<Vec<usize>> {
    let t = t.to_device(tch::Device::Cpu).to_kind(Kind::Double);
    let t = Vec::<f64>::try_from(&t).map_err(Error::denoiser)?;
    // A time below 0 becomes a place that no schedule has.
    let place = |&t: &f64| match t {
        t if t >= 0.0 => t.round() as usize,
        _ => usize::MAX,
    };
    Ok(t.iter().map(place).collect())
}

/// Whether operations record gradients here; tch has no question for it.
fn grad_mode() -> bool {
    let leaf = Tensor::zeros([0], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    leaf.alias().requires_grad()
}

impl<D: Denoiser> Denoiser for Universal<'_, D> {
    /// The guidance records gradients for itself, whatever the caller does, and is a constant in what it returns:
    /// gradients of the output are those of the inner denoiser.
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        if self.scale == 0.0 {
            return self.inner.predict(input);
        }
        let (guidance, eps) = tch::with_grad(|| self.guidance(input))?;
        let eps = match grad_mode() {
            true => self.inner.predict(input)?.to_kind(Kind::Float),
            false => eps,
        };
        Ok(eps - guidance)
    }

    fn conditioned<'c>(&'c self, cond: &Conditioning) -> Result<Conditioned<'c>> {
        if self.scale == 0.0 {
            return self.inner.conditioned(cond);
        }
        let cond = cond.clone();
        Ok(Box::new(move |x_t, t| {
            let cond = &cond;
            tch::no_grad(|| self.predict(DenoiseInput { x_t, t, cond }))
        }))
    }
}
