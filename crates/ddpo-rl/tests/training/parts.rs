//! Parts of a composite reward, each normalised by its own statistics.

use ddpo_reward::{Composite, Images, Prompt, Reward, WeightedReward, check_batch};
use ddpo_rl::{Baseline, Ddpo, DdpoConfig};
use ddpo_testkit::{AskedColour, Recorder, World};
use ddpo_train::{Event, Observer, Result, Retry, RewardWorker, ScoredSample, train};

use super::{epochs, importance_sampling};

/// The first byte, in another unit.
struct FirstByte(f32);

impl Reward for FirstByte {
    fn name(&self) -> &str {
        "first-byte"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        check_batch(images, prompts)?;
        let scaled = |rgb: &[u8]| f32::from(rgb[0]) * self.0;
        Ok(images.iter_bytes().map(scaled).collect())
    }
}

/// Every sample as the algorithm leaves it.
#[derive(Default)]
pub(super) struct Rows(pub(super) Vec<ScoredSample>);

impl Observer for Rows {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Rewarded { samples, .. } = event {
            self.0.extend_from_slice(samples);
        }
        Ok(())
    }
}

fn rows(unit: f32, weights: [f64; 2], normalise: bool) -> Vec<ScoredSample> {
    let mut world = World::new().unwrap();
    let reward: [Box<dyn Reward>; 2] = [Box::new(AskedColour), Box::new(FirstByte(unit))];
    let parts = reward.into_iter().zip(weights);
    let parts = parts
        .map(|(reward, weight)| WeightedReward { reward, weight })
        .collect();
    let composite = Composite::new(parts).unwrap();
    world.rewards = RewardWorker::new(vec![Box::new(composite)], Retry::never()).unwrap();
    let config = DdpoConfig {
        baseline: Baseline::Batch,
        ..importance_sampling()
    };
    let mut algorithm = Ddpo::new(config, &world.sampler, 1).unwrap();
    if normalise {
        algorithm = algorithm.normalise_parts(&weights);
    }
    let (mut rows, mut seen) = (Rows::default(), Recorder::default());
    train(
        &mut algorithm,
        &mut world.context(vec![&mut rows, &mut seen]),
        &epochs(1),
    )
    .unwrap();
    rows.0
}

#[test]
fn normalised_parts_add_up_as_the_formula_says() {
    let weights = [1.5, -0.5];
    let rows = rows(1.0, weights, true);
    let n = rows.len() as f64;
    let mut expected = vec![0.0; rows.len()];
    for (k, weight) in weights.into_iter().enumerate() {
        let values: Vec<f64> = rows.iter().map(|row| f64::from(row.parts[k])).collect();
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let terms = expected.iter_mut().zip(&values);
        terms.for_each(|(sum, v)| *sum += weight * (v - mean) / (std + 1e-8));
    }
    for (row, expected) in rows.iter().zip(expected) {
        assert!(
            (f64::from(row.advantage) - expected).abs() < 1e-6,
            "{row:?}: {expected}"
        );
        let sum = 1.5 * row.parts[0] - 0.5 * row.parts[1];
        assert!(
            (row.reward - sum).abs() < 1e-4,
            "the reward is the plain sum: {row:?}"
        );
    }
}

#[test]
fn the_unit_of_a_normalised_part_does_not_matter_and_of_a_plain_sum_it_does() {
    let advantages = |unit, normalise| -> Vec<f32> {
        let rows = rows(unit, [1.0, 1.0], normalise);
        rows.iter().map(|row| row.advantage).collect()
    };
    let apart = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    };
    assert!(apart(&advantages(1.0, true), &advantages(64.0, true)) < 1e-5);
    assert!(apart(&advantages(1.0, false), &advantages(64.0, false)) > 0.1);
}
