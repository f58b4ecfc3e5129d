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

pub(super) fn read(r: &mut Reader) -> GuidancePlan {
    GuidancePlan {
        weight: r.number("guidance.weight"),
        repeats: r.count("guidance.repeats") as usize,
        steps: r.count("guidance.steps") as usize,
        eta: r.number("guidance.eta"),
        guidance_scale: r.number("guidance.guidance_scale"),
        samples: r.count("guidance.samples") as usize,
        batch: r.count("guidance.batch") as usize,
    }
}
