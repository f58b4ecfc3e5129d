//! Sparse RWR and RWR in a world of four pixels: `cargo run -p ddpo-rwr --example toy_rwr`.
//!
//! Prompts ask for red or blue, the reward is how much of that there is, from 0 to 255. A round draws images, weighs
//! them by their reward, and trains on them as on data. Exits with 1 unless both make images redder and bluer.

use std::process::ExitCode;

use ddpo_rwr::{Result, Rewards, Rwr, RwrConfig, Weighting};
use ddpo_sched::{NoiseSchedule, ScheduleConfig};
use ddpo_testkit::World;
use ddpo_train::{Event, Observer, TrainPlan, train};

/// Mean reward of each round.
#[derive(Default)]
struct Means(Vec<f64>);

impl Observer for Means {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::EpochDone { report, .. } = event {
            self.0.extend(report.get("reward/mean"));
        }
        Ok(())
    }
}

fn run(weighting: Weighting) -> Result<Vec<f64>> {
    // Small numbers beside the paper's 10,240 samples and 400 updates a round.
    let config = RwrConfig {
        weighting,
        samples_per_round: 128,
        samples_per_prompt: 8,
        updates_per_round: 32,
        batch: 32,
        sample_batch: 64,
        micro_batch: 32,
        ..RwrConfig::softmax()
    };
    let (mut world, mut means) = (World::new()?, Means::default());
    let mut rwr = Rwr::new(config, NoiseSchedule::new(&ScheduleConfig::sd_v1_4())?, 1)?;
    let mut ctx = world.context(vec![&mut means]);
    train(&mut rwr, &mut ctx, &TrainPlan::epochs(8))?;
    drop(ctx);
    Ok(means.0)
}

fn main() -> Result<ExitCode> {
    let softmax = Weighting::Softmax {
        beta: 2.0,
        rewards: Rewards::Standardised,
    };
    let best_tenth = Weighting::Percentile { percentile: 0.9 };
    let mut rose = true;
    for (name, weighting) in [("RWR", softmax), ("sparse RWR", best_tenth)] {
        let means = run(weighting)?;
        println!("{name}, mean reward by round: {means:.0?}");
        rose &= means[means.len() - 1] > means[0] + 20.0;
    }
    Ok(ExitCode::from(u8::from(!rose)))
}
