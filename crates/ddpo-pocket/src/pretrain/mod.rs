//! How the pocket model came to be: each part trained by this crate, on scenes that it composes.

pub mod batch;
pub mod codec;
pub mod decoder;
pub mod diffusion;
pub mod judges;
pub mod trainee;

use tch::Tensor;

/// Where a training stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Optimiser steps taken.
    pub step: u64,
    /// Optimiser steps planned.
    pub total: u64,
    /// Scenes an optimiser step.
    pub samples_per_step: u64,
    /// Loss of the last step.
    pub loss: f64,
    /// Its learning rate.
    pub lr: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
}

/// The tensors whose name starts with `part.`, without it.
fn prefixed<'t>(
    tensors: impl Iterator<Item = (&'t str, &'t Tensor)>,
    part: &'t str,
) -> impl Iterator<Item = (&'t str, &'t Tensor)> {
    tensors.filter_map(move |(name, t)| Some((name.strip_prefix(part)?.strip_prefix('.')?, t)))
}
