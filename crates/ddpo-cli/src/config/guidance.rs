//! `[guidance]`: the numbers of universal guidance.

use super::reader::Reader;

/// `[guidance]`. The reward that is followed is that of `[reward]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuidancePlan {
    /// The gradient's weight.
    pub weight: f64,
    /// How often every step is taken.
    pub repeats: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Noise of a step.
    pub eta: f64,
    /// Strength of classifier-free guidance in it.
    pub guidance_scale: f64,
    /// Images of the epoch.
    pub samples: usize,
    /// Images that are differentiated together.
    pub batch: usize,
}

/// Keys that may be there while an algorithm trains.
pub(super) const KEYS: [&str; 7] = [
    "guidance.weight",
    "guidance.repeats",
    "guidance.steps",
    "guidance.eta",
    "guidance.guidance_scale",
    "guidance.samples",
    "guidance.batch",
];

pub(super) fn read(r: &mut Reader) -> GuidancePlan {
    GuidancePlan {
        weight: r.number("guidance.weight", 0.0..=1e9),
        repeats: r.count("guidance.repeats", 1..=1000) as usize,
        steps: r.count("guidance.steps", 1..=1000) as usize,
        eta: r.number("guidance.eta", 0.0..=1.0),
        guidance_scale: r.number("guidance.guidance_scale", 0.0..=100.0),
        samples: r.count("guidance.samples", 2..=1_000_000) as usize,
        batch: r.count("guidance.batch", 1..=100_000) as usize,
    }
}
