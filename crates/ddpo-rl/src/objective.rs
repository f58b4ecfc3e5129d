//! The two estimators of the policy gradient, as losses per sample and step.

use tch::{Kind, Tensor};

/// How log-probabilities and advantages become a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Estimator {
    /// DDPO-SF: the score function, `−A log p`. On-policy only, so one update per epoch.
    ScoreFunction,
    /// DDPO-IS: importance sampling with PPO's clipping,
    /// `max(−A r, −A clip(r, 1 − c, 1 + c))` with `r = p / p_old` of one denoising step.
    ImportanceSampling {
        /// c; the paper uses 1e-4 for all experiments, tuned to log-probabilities that are means over the
        /// latent's dimensions.
        clip_range: f64,
    },
}

/// A loss and what it was made of.
#[derive(Debug)]
pub struct Surrogate {
    /// To be minimised, `[batch]`, f32; its gradient is the estimator's, negated.
    pub loss: Tensor,
    /// `p / p_old`, `[batch]`, f32, without gradient.
    pub ratio: Tensor,
}

impl Estimator {
    /// The loss of each sample at its step. A pure function.
    ///
    /// Sources: paper section 4.3; ddpo-pytorch `scripts/train.py` lines 539-551; jannerm/ddpo
    /// `ddpo/training/policy_gradient.py` lines 121-125. In the references DDPO-SF is the clipped surrogate
    /// at ratio 1, whose gradient is that of `−A log p`.
    ///
    /// # Shapes
    /// All `[batch]`, f32; only `log_prob` carries a gradient.
    pub fn surrogate(
        &self,
        log_prob: &Tensor,
        log_prob_old: &Tensor,
        advantage: &Tensor,
    ) -> Surrogate {
        let ratio = (log_prob - log_prob_old).exp();
        let loss = match *self {
            Self::ScoreFunction => -(advantage * log_prob),
            Self::ImportanceSampling { clip_range } => {
                let clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range);
                (-(advantage * &ratio)).maximum(&-(advantage * clipped))
            }
        };
        Surrogate {
            loss: loss.to_kind(Kind::Float),
            ratio: ratio.detach(),
        }
    }

    /// Whether a ratio lies outside the clip range; never without clipping.
    pub fn clips(&self, ratio: f64) -> bool {
        match *self {
            Self::ScoreFunction => false,
            Self::ImportanceSampling { clip_range } => (ratio - 1.0).abs() > clip_range,
        }
    }
}
