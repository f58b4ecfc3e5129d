//! The sampler of a run, made in one place.

use ddpo_sched::{Ddim, Sampler, ScheduleConfig};

use crate::failure::{Exit, OrExit, Result};

/// A sampler of so many steps over a model's noise schedule; with `eta` 0 its steps have no noise.
///
/// # Errors
/// Exit 2, with the numbers that do not fit the schedule.
pub fn sampler(schedule: &ScheduleConfig, n_steps: usize, eta: f64) -> Result<Box<dyn Sampler>> {
    let doing = || format!("no sampler has {n_steps} steps and eta {eta} on the model's schedule");
    let ddim = Ddim::new(schedule, n_steps, eta).or_exit(Exit::Config, doing())?;
    Ok(Box::new(ddim))
}
