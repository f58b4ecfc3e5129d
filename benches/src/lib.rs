//! Shared by the benches: the shipped pocket model, images of its world, and two optimisers with equal work.
//!
//! Nothing here is timed; the benches are in `benches/`, the same work in Python in `peers/`.

mod images;
mod optimizers;
mod pocket;

pub use images::{animals, scenes};
pub use optimizers::Optimizers;
pub use pocket::{Pairs, Pocket};

/// Any error, which ends a bench.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
