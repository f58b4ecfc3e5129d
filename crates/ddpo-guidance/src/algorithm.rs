//! The baseline that trains nothing, as an algorithm of the outer loop.

use ddpo_train::{
    Algorithm, Error, Meter, Persist, Result, RolloutRequest, RolloutSink, ScoredSample,
    StateReader, StateWriter, TrainContext, UpdateIndex,
};

use crate::UniversalGuide;

/// Draws images and has them scored; no weight changes. How they are drawn is the strategy of the context, a
/// [`UniversalGuide`].
///
/// Before the first epoch a run draws with the policy as ever, after it with the strategy: what is measured there, on
/// the same prompts from the same initial noise, is the sampler before and after.
#[derive(Debug)]
pub struct UniversalGuidance {
    samples: usize,
    batch: usize,
    /// Gradients of the reward per image.
    gradients: usize,
    sink: (),
}

impl UniversalGuidance {
    /// `samples` images per epoch, and so reward queries, over all ranks, drawn as `guide` does.
    ///
    /// # Errors
    /// [`Error::Config`] unless the samples can be shared out to the `world` ranks, or if there is nothing to repeat
    /// or to draw together.
    pub fn new(guide: &UniversalGuide, samples: usize, world: usize) -> Result<Self> {
        if samples == 0 || !samples.is_multiple_of(world) {
            let expected = format!("must be a multiple of the {world} ranks, and at least 1");
            return Err(Error::config("samples", samples, expected));
        }
        for (field, value) in [("repeats", guide.repeats), ("batch", guide.batch)] {
            if value == 0 {
                return Err(Error::config(field, value, "must be at least 1"));
            }
        }
        Ok(Self {
            samples,
            batch: guide.batch,
            gradients: guide.sampler.n_steps() * guide.repeats,
            sink: (),
        })
    }
}

impl Algorithm for UniversalGuidance {
    fn request(&self, ctx: &TrainContext<'_>, _epoch: u64) -> Result<RolloutRequest> {
        Ok(RolloutRequest::new(
            ctx.ids_of_rank(self.samples),
            self.batch,
        ))
    }

    fn sink(&mut self) -> &mut dyn RolloutSink {
        &mut self.sink
    }

    fn prepare(
        &mut self,
        _ctx: &mut TrainContext<'_>,
        _epoch: u64,
        samples: &mut [ScoredSample],
        stats: &mut Meter,
    ) -> Result<()> {
        let gradients = samples.len() * self.gradients;
        stats.add("guidance/reward_gradients", gradients as f64);
        Ok(())
    }

    fn n_updates(&self) -> usize {
        0
    }

    fn update(&mut self, _: &mut TrainContext<'_>, _: UpdateIndex, _: &mut Meter) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> Meter {
        Meter::of_means(&["guidance/reward_gradients"])
    }
}

impl Persist for UniversalGuidance {
    fn save(&self, _out: &mut StateWriter) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _from: &StateReader) -> Result<()> {
        Ok(())
    }
}
