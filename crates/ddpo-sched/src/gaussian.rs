//! A denoising step as a probability distribution: sampling and log-probability are two views of one value.

use tch::{Kind, Tensor};

use crate::denoise::{check_shape, queued};
use crate::{Error, Result};

/// How a log-density over many dimensions becomes one number per sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum LogProb {
    /// Mean over the dimensions: what both public DDPO codebases do (ddpo-pytorch,
    /// `ddim_with_logprob.py`, last lines), and what the clip range 1e-4 is tuned to.
    Mean,
    /// Sum over the dimensions: the log-density of the paper's formulas.
    Sum,
}

/// `N(mean, std² I)` for a batch of latents.
#[derive(Debug)]
pub struct Gaussian {
    /// f32 `[batch, …]`.
    pub mean: Tensor,
    /// One per sample, on the host.
    pub std: Vec<f64>,
}

impl Gaussian {
    /// The steps of samplers that are linear in latent and network: `mean = a x_t + b model_output`.
    ///
    /// # Shapes
    /// - `x_t`, `model_output`: `[batch, …]`, computed in f32
    /// - `a`, `b`, `std`: one per sample
    ///
    /// # Errors
    /// [`Error::Shape`] if the batch is not that of the coefficients, or the two tensors differ.
    pub fn affine(
        x_t: &Tensor,
        a: &[f64],
        model_output: &Tensor,
        b: &[f64],
        std: Vec<f64>,
    ) -> Result<Self> {
        let mut shape = x_t.size();
        check_shape(model_output, "model output", &shape)?;
        if let Some(batch) = shape.first_mut() {
            *batch = std.len() as i64;
        }
        check_shape(x_t, "x_t", &shape)?;
        let mean = x_t.to_kind(Kind::Float) * per_sample(a, x_t)
            + model_output.to_kind(Kind::Float) * per_sample(b, x_t);
        Ok(Self { mean, std })
    }

    /// The value that standard normal `noise` stands for: `mean + std · noise`.
    ///
    /// # Shapes
    /// - `noise`: that of `mean`
    /// - returns: that of `mean`, f32
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn at(&self, noise: &Tensor) -> Result<Tensor> {
        check_shape(noise, "noise", &self.mean.size())?;
        let std = per_sample(&self.std, &self.mean);
        let noise = queued(noise, self.mean.device()).to_kind(Kind::Float);
        Ok(&self.mean + std * noise)
    }

    /// Log-density of `x` under this step, one value per sample.
    ///
    /// `log N(x; mean, std² I)` reduced over all dimensions but the first. No gradient flows into `x`, as
    /// in the reference; one flows into `mean`.
    ///
    /// # Shapes
    /// - `x`: that of `mean`
    /// - returns: `[batch]`, f32
    ///
    /// # Errors
    /// [`Error::NoDensity`] if a `std` is zero, [`Error::Shape`].
    pub fn log_prob(&self, x: &Tensor, reduce: LogProb) -> Result<Tensor> {
        check_shape(x, "x", &self.mean.size())?;
        if let Some(sample) = self.std.iter().position(|&std| std <= 0.0) {
            return Err(Error::NoDensity { sample });
        }
        let x = queued(&x.detach(), self.mean.device()).to_kind(Kind::Float);
        let z = (x - &self.mean) / per_sample(&self.std, &self.mean);
        let squares = z.square().flatten(1, -1).mean_dim(1, false, Kind::Float);
        // −½z² − log σ − log √(2π), a dimension.
        let constants: Vec<f64> = self
            .std
            .iter()
            .map(|std| std.ln() + 0.5 * std::f64::consts::TAU.ln())
            .collect();
        Ok(self.reduced(squares * -0.5, &constants, -1.0, reduce))
    }

    /// Kullback-Leibler divergence from `other` to this step, one value per sample: `KL(self ‖ other)`.
    ///
    /// A dimension: `ln(σ' / σ) + (σ² + (μ − μ')²) / (2 σ'²) − ½`, which is `(μ − μ')² / (2 σ²)` where the
    /// deviations are equal; reduced over all dimensions but the first as a log-probability is. A gradient flows
    /// into this step's mean and none into `other`.
    ///
    /// # Shapes
    /// - returns: `[batch]`, f32
    ///
    /// # Errors
    /// [`Error::NoDensity`] if a `std` is zero, [`Error::Shape`].
    pub fn kl(&self, other: &Self, reduce: LogProb) -> Result<Tensor> {
        check_shape(&other.mean, "mean of the other step", &self.mean.size())?;
        for std in [&self.std, &other.std] {
            if let Some(sample) = std.iter().position(|&std| std <= 0.0) {
                return Err(Error::NoDensity { sample });
            }
        }
        let z = (&self.mean - other.mean.detach()) / per_sample(&other.std, &self.mean);
        let squares = z.square().flatten(1, -1).mean_dim(1, false, Kind::Float);
        let constants: Vec<f64> = self
            .std
            .iter()
            .zip(&other.std)
            .map(|(std, of_other)| {
                let ratio = std / of_other;
                (ratio * ratio - 1.0) / 2.0 - ratio.ln()
            })
            .collect();
        Ok(self.reduced(squares * 0.5, &constants, 1.0, reduce))
    }

    /// Means over dimensions, `[batch]`, plus `sign` times a constant each, as `reduce` asks for.
    fn reduced(&self, means: Tensor, constants: &[f64], sign: f64, reduce: LogProb) -> Tensor {
        let constants = Tensor::from_slice(constants).to_kind(Kind::Float);
        let constants = queued(&constants, self.mean.device());
        let mean = means + constants * sign;
        match reduce {
            LogProb::Mean => mean,
            LogProb::Sum => {
                let n: i64 = self.mean.size()[1..].iter().product();
                mean * n as f64
            }
        }
    }
}

/// One number per sample, broadcast over the other dimensions of `like`.
pub(crate) fn per_sample(values: &[f64], like: &Tensor) -> Tensor {
    let mut shape = vec![1; like.dim()];
    shape[0] = values.len() as i64;
    let values = Tensor::from_slice(values)
        .to_kind(Kind::Float)
        .view(shape.as_slice());
    queued(&values, like.device())
}
