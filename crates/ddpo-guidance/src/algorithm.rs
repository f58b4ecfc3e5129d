//! The baseline that trains nothing, as an algorithm of the outer loop.

use ddpo_train::{
    Algorithm, Context, Error, Event, Guide, Keep, Persist, Report, Result, Rollouts, SampleRow,
    Share, StateReader, StateWriter, Unscored, rollout,
};
use tch::Tensor;

use crate::UniversalGuide;

/// How many images an epoch draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniversalConfig {
    /// Images, and so reward queries, over all ranks.
    pub samples: usize,
}

/// Draws images under guidance and has them scored; no weight changes.
///
/// Before the first epoch a run's policy draws as ever, after it the guide does: what is measured there, on the same
/// prompts from the same initial noise, is the sampler before and after.
pub struct UniversalGuidance {
    guide: UniversalGuide,
    config: UniversalConfig,
    /// An epoch whose reward failed.
    unscored: Option<Unscored>,
}

impl UniversalGuidance {
    /// Draws as `guide` does.
    ///
    /// # Errors
    /// [`Error::Config`] unless the samples can be shared out to the `world` ranks, or if there is nothing to repeat
    /// or to draw together.
    pub fn new(guide: UniversalGuide, config: UniversalConfig, world: usize) -> Result<Self> {
        let samples = config.samples;
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
            guide,
            config,
            unscored: None,
        })
    }
}

impl Algorithm for UniversalGuidance {
    type Batch = Rollouts;

    fn collect(&mut self, ctx: &mut Context<'_>, epoch: u64) -> Result<Rollouts> {
        let mine = (self.config.samples / ctx.collective.world()) as u64;
        let first = ctx.collective.rank() as u64 * mine;
        let ids: Vec<u64> = (first..first + mine).collect();
        let share = Share {
            epoch,
            sample_ids: &ids,
            batch: self.guide.batch,
            samples_per_prompt: 1,
            guide: Some(&self.guide),
        };
        let drawn = rollout(ctx, &share, &mut Nothing, &mut self.unscored)?;
        let rows: Vec<SampleRow> = drawn
            .samples
            .iter()
            .map(|sample| SampleRow {
                sample_id: sample.sample_id,
                prompt: sample.prompt.clone(),
                reward: sample.reward,
                // Nothing is learned from it.
                advantage: 0.0,
                parts: sample.parts.clone(),
                answer: sample.answer.clone(),
            })
            .collect();
        ctx.emit(&Event::Rewarded {
            epoch,
            samples: &rows,
        })?;
        Ok(drawn)
    }

    fn update(&mut self, _ctx: &mut Context<'_>, drawn: Rollouts) -> Result<Report> {
        let n = drawn.samples.len();
        let mut report = Report {
            reward_queries: n as u64,
            ..Report::default()
        };
        let (mean, std) = drawn.reward_moments();
        report.push("reward/mean", mean);
        report.push("reward/std", std);
        let gradients = n * self.guide.n_steps() * self.guide.repeats;
        report.push("guidance/reward_gradients", gradients as f64);
        report.push("time/sample_s", drawn.sample_seconds);
        report.push("time/reward_wait_s", drawn.wait_seconds);
        Ok(report)
    }

    fn guide(&self) -> Option<&dyn Guide> {
        Some(&self.guide)
    }
}

impl Persist for UniversalGuidance {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        match &self.unscored {
            Some(unscored) => out.nested("unscored", unscored),
            None => Ok(()),
        }
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.unscored = None;
        if from.contains("unscored") {
            let mut unscored = Unscored::new(0);
            from.nested("unscored", &mut unscored)?;
            self.unscored = Some(unscored);
        }
        Ok(())
    }
}

/// Of the walk nothing is kept.
struct Nothing;

impl Keep for Nothing {
    fn drawn(&mut self, _sample_ids: &[u64], _cond: &Tensor, _x_0: &Tensor) -> Result<()> {
        Ok(())
    }
}

impl Persist for Nothing {
    fn save(&self, _out: &mut StateWriter) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _from: &StateReader) -> Result<()> {
        Ok(())
    }
}
