//! An epoch's samples, on their way from sampling to training.

use ddpo_train::{Persist, Result, StateReader, StateWriter};

use crate::Rollout;
use crate::meter::Meter;

/// An epoch's samples of one rank, in the order in which they are trained on.
#[derive(Debug)]
pub struct Batch {
    /// Which epoch.
    pub epoch: u64,
    /// Trajectories.
    pub rollout: Rollout,
    /// One a row of the rollout, clipped.
    pub advantages: Vec<f32>,
    /// Mean and population deviation of the epoch's rewards, over all ranks.
    pub reward: (f64, f64),
    pub(crate) next_update: usize,
    pub(crate) meter: Meter,
    pub(crate) sample_seconds: f64,
    pub(crate) wait_seconds: f64,
    pub(crate) update_seconds: f64,
}

impl Batch {
    /// Nothing, for state to be loaded into.
    pub(crate) fn empty() -> Result<Self> {
        Ok(Self {
            epoch: 0,
            rollout: Rollout::empty()?,
            advantages: Vec::new(),
            reward: (0.0, 0.0),
            next_update: 0,
            meter: Meter::default(),
            sample_seconds: 0.0,
            wait_seconds: 0.0,
            update_seconds: 0.0,
        })
    }
}

impl Persist for Batch {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("rollout", &self.rollout)?;
        out.nested("meter", &self.meter)?;
        out.value("epoch", &self.epoch)?;
        out.value("advantages", &self.advantages)?;
        out.value("reward", &self.reward)?;
        out.value("next_update", &self.next_update)?;
        let seconds = (self.sample_seconds, self.wait_seconds, self.update_seconds);
        out.value("seconds", &seconds)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("rollout", &mut self.rollout)?;
        from.nested("meter", &mut self.meter)?;
        self.epoch = from.value("epoch")?;
        self.advantages = from.value("advantages")?;
        self.reward = from.value("reward")?;
        self.next_update = from.value("next_update")?;
        (self.sample_seconds, self.wait_seconds, self.update_seconds) = from.value("seconds")?;
        Ok(())
    }
}
