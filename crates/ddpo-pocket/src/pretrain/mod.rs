//! Training of the pocket model and the judges, on composed scenes.

pub mod batch;
pub mod codec;
pub mod decoder;
pub mod diffusion;
pub mod judges;
pub mod train_state;

use tch::Tensor;

/// The progress of a training.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Updates done.
    pub step: u64,
    /// Updates planned.
    pub total: u64,
    /// Scenes per update.
    pub samples_per_step: u64,
    /// Loss of the last update.
    pub loss: f64,
    /// Its learning rate.
    pub lr: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
}

/// The tensors whose name starts with `part.`, with the prefix removed.
fn prefixed<'t>(
    tensors: impl Iterator<Item = (&'t str, &'t Tensor)>,
    part: &'t str,
) -> impl Iterator<Item = (&'t str, &'t Tensor)> {
    tensors.filter_map(move |(name, t)| Some((name.strip_prefix(part)?.strip_prefix('.')?, t)))
}
