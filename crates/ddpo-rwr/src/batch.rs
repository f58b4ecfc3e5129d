//! A round, on its way from sampling to training.

use ddpo_train::{Persist, Result, StateReader, StateWriter};

use crate::Pool;
use crate::meter::Meter;

/// A round's samples with their weights, and how far training on them has got.
#[derive(Debug)]
pub struct Batch {
    /// Which round.
    pub epoch: u64,
    /// What is trained on.
    pub pool: Pool,
    /// Mean and population deviation of the round's rewards, over all ranks and all samples.
    pub reward: (f64, f64),
    pub(crate) next_update: usize,
    pub(crate) meter: Meter,
    pub(crate) sample_seconds: f64,
    pub(crate) wait_seconds: f64,
    pub(crate) update_seconds: f64,
}

impl Batch {
    /// Of a pool that nothing has been trained on.
    pub(crate) fn new(epoch: u64, pool: Pool, reward: (f64, f64), seconds: (f64, f64)) -> Self {
        Self {
            epoch,
            pool,
            reward,
            next_update: 0,
            meter: Meter::default(),
            sample_seconds: seconds.0,
            wait_seconds: seconds.1,
            update_seconds: 0.0,
        }
    }
}

impl Persist for Batch {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("pool", &self.pool)?;
        out.nested("meter", &self.meter)?;
        out.value("epoch", &self.epoch)?;
        out.value("reward", &self.reward)?;
        out.value("next_update", &self.next_update)?;
        let seconds = (self.sample_seconds, self.wait_seconds, self.update_seconds);
        out.value("seconds", &seconds)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("pool", &mut self.pool)?;
        from.nested("meter", &mut self.meter)?;
        self.epoch = from.value("epoch")?;
        self.reward = from.value("reward")?;
        self.next_update = from.value("next_update")?;
        (self.sample_seconds, self.wait_seconds, self.update_seconds) = from.value("seconds")?;
        Ok(())
    }
}
