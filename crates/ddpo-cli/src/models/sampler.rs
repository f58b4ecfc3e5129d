//! The sampler of a run, made in one place.

use ddpo_sched::{Ddim, EulerAncestral, Sampler, ScheduleConfig};

use crate::config::SamplerPlan;
use crate::failure::{Exit, OrExit, Result};

/// Which sampler, with its own numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SamplerKind {
    /// DDIM: η 0 is deterministic, 1 has the variance of DDPM.
    Ddim {
        /// Noise of a step.
        eta: f64,
    },
    /// Ancestral Euler. Its last step adds no noise, so that nothing can be trained with it.
    EulerAncestral,
}

/// A sampler of so many steps over a model's noise schedule.
///
/// # Errors
/// Exit 2, with the numbers that do not fit the schedule.
pub fn sampler(
    schedule: &ScheduleConfig,
    n_steps: usize,
    kind: SamplerKind,
) -> Result<Box<dyn Sampler>> {
    let doing = || format!("no sampler has {n_steps} steps on the model's schedule with {kind:?}");
    Ok(match kind {
        SamplerKind::Ddim { eta } => {
            Box::new(Ddim::new(schedule, n_steps, eta).or_exit(Exit::Config, doing())?)
        }
        SamplerKind::EulerAncestral => {
            Box::new(EulerAncestral::new(schedule, n_steps).or_exit(Exit::Config, doing())?)
        }
    })
}

/// Samplers by the names that are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SamplerName {
    /// DDIM, with the noise of --eta
    Ddim,
    /// Ancestral Euler, as diffusers' EulerAncestralDiscreteScheduler
    EulerAncestral,
}

impl SamplerName {
    /// With its own numbers.
    pub fn kind(self, eta: f64) -> SamplerKind {
        match self {
            Self::Ddim => SamplerKind::Ddim { eta },
            Self::EulerAncestral => SamplerKind::EulerAncestral,
        }
    }
}

impl From<&SamplerPlan> for SamplerKind {
    fn from(plan: &SamplerPlan) -> Self {
        Self::Ddim { eta: plan.eta }
    }
}
