//! Classifier-free guidance (Ho and Salimans 2022), both passes in one forward.

use tch::{Kind, Tensor};

use crate::denoise::check_shape;
use crate::{Conditioned, Conditioning, DenoiseInput, Denoiser, Result};

/// A denoiser whose output is guided: `ε_u + w (ε_c − ε_u)`, paper formula 3.
///
/// The network sees one batch of twice the size: all samples with `uncond` first, then all with their own
/// conditioning. The two are combined in f32, whatever the network's kind. With `w = 1` the two terms of ε_u cancel, and only the conditional pass is made.
/// Gradients flow through both passes.
#[derive(Debug)]
pub struct Guided<D> {
    /// The network.
    pub inner: D,
    /// Conditioning of the empty or negative prompt, a batch of one.
    pub uncond: Conditioning,
    /// w; the paper uses 5.0.
    pub scale: f64,
}

impl<D> Guided<D> {
    /// Guides `inner` with strength `scale`; `uncond` is a batch of one, in kind and device of the conditioning.
    pub fn new(inner: D, uncond: impl Into<Conditioning>, scale: f64) -> Self {
        Self {
            inner,
            uncond: uncond.into(),
            scale,
        }
    }

    /// Whether the network sees a doubled batch: not with `scale` 1, where ε_u cancels.
    pub fn doubles(&self) -> bool {
        self.scale != 1.0
    }

    /// The batch twice: unconditional, then conditional. Returns `x_t`, `t` and conditioning.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `uncond` does not fit the conditioning.
    pub fn doubled(&self, input: DenoiseInput<'_>) -> Result<(Tensor, Tensor, Conditioning)> {
        Ok((twice(input.x_t), twice(input.t), self.both(input.cond)?))
    }

    /// `uncond` for every sample, then `cond`.
    fn both(&self, cond: &Conditioning) -> Result<Conditioning> {
        let mut one = cond.tokens.size();
        if let Some(batch) = one.first_mut() {
            *batch = 1;
        }
        check_shape(&self.uncond.tokens, "unconditional embedding", &one)?;
        Conditioning::cat(&[&self.uncond.expand(cond.batch())?, cond])
    }

    /// Output of a doubled batch, `[2 · batch, …]`, to guided output, f32 `[batch, …]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the batch is odd.
    pub fn combine(&self, eps: &Tensor) -> Result<Tensor> {
        let mut even = eps.size();
        if let Some(batch) = even.first_mut() {
            *batch += *batch % 2;
        }
        check_shape(eps, "output of the doubled batch", &even)?;
        let half = eps.to_kind(Kind::Float).chunk(2, 0);
        Ok(&half[0] + (&half[1] - &half[0]) * self.scale)
    }
}

impl<D: Denoiser> Denoiser for Guided<D> {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        if !self.doubles() {
            return self.inner.predict(input);
        }
        let (x_t, t, cond) = self.doubled(input)?;
        let (x_t, t, cond) = (&x_t, &t, &cond);
        let eps = self.inner.predict(DenoiseInput { x_t, t, cond })?;
        self.combine(&eps)
    }

    fn conditioned<'a>(&'a self, cond: &Conditioning) -> Result<Conditioned<'a>> {
        if !self.doubles() {
            return self.inner.conditioned(cond);
        }
        let predict = self.inner.conditioned(&self.both(cond)?)?;
        Ok(Box::new(move |x_t, t| {
            self.combine(&predict(&twice(x_t), &twice(t))?)
        }))
    }
}

fn twice(tensor: &Tensor) -> Tensor {
    Tensor::cat(&[tensor, tensor], 0)
}
