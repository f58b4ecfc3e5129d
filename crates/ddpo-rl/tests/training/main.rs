//! Whole runs in a world of 2 × 2 pixels.

mod groups;
mod parts;
mod resume;
mod unscored;

use ddpo_reward::{Images, Prompt, Reward};
use ddpo_rl::{Baseline, Ddpo, DdpoConfig, Estimator};
use ddpo_sched::{DenoiseInput, Denoiser, Guided, Sampler};
use ddpo_testkit::{Recorder, TinyPolicy, World};
use ddpo_train::{
    Error, Outcome, ParamSet, Persist, Policy, Result, Retry, RewardWorker, StateReader,
    StateWriter, Threads, TrainPlan, train,
};
use tch::{Kind, Tensor};

fn importance_sampling() -> DdpoConfig {
    DdpoConfig {
        samples_per_epoch: 32,
        sample_batch: 16,
        micro_batch: 16,
        baseline: Baseline::PerPrompt {
            buffer_size: 32,
            min_count: 8,
        },
        ..DdpoConfig::importance_sampling()
    }
}

fn score_function() -> DdpoConfig {
    DdpoConfig {
        estimator: Estimator::ScoreFunction,
        updates_per_epoch: 1,
        ..importance_sampling()
    }
}

/// Trains in `world` and tells what was seen.
fn run(
    world: &mut World,
    config: DdpoConfig,
    plan: &TrainPlan,
) -> Result<(Outcome, Recorder, Ddpo)> {
    let (mut seen, n_ranks) = (Recorder::default(), world.collective.world());
    let mut algorithm = Ddpo::new(config, &world.sampler, n_ranks)?;
    let outcome = train(&mut algorithm, &mut world.context(vec![&mut seen]), plan)?;
    Ok((outcome, seen, algorithm))
}

fn epochs(epochs: u64) -> TrainPlan {
    TrainPlan {
        epochs,
        ..TrainPlan::default()
    }
}

fn weights(world: &World) -> Vec<Tensor> {
    let params = world.policy.params().tensors().iter();
    params.map(|t| t.detach().copy()).collect()
}

/// Largest difference of any weight, relative to the largest weight.
fn apart(a: &[Tensor], b: &[Tensor]) -> f64 {
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    let differences = a.iter().zip(b).map(|(a, b)| largest(&(a - b)));
    differences.fold(0.0, f64::max) / a.iter().map(largest).fold(0.0, f64::max)
}

/// Mean reward of the first and of the last three epochs, and the standard error of their difference.
fn learned(config: DdpoConfig, n_epochs: u64) -> (f64, f64, f64) {
    let mut world = World::new().unwrap();
    let (_, seen, _) = run(&mut world, config, &epochs(n_epochs)).unwrap();
    let rewards = |from: u64, to: u64| -> Vec<f64> {
        let rows = seen
            .samples
            .iter()
            .filter(|row| (from..to).contains(&row.0));
        rows.map(|row| f64::from(row.2)).collect()
    };
    let moments = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    };
    let (first, first_error) = moments(&rewards(0, 3));
    let (last, last_error) = moments(&rewards(n_epochs - 3, n_epochs));
    (first, last, (first_error + last_error).sqrt())
}

#[test]
fn importance_sampling_learns() {
    let (first, last, se) = learned(importance_sampling(), 80);
    assert!(
        last > first + 10.0 && last > first + 6.0 * se,
        "{first} to {last}, standard error {se}"
    );
}

#[test]
fn the_score_function_learns() {
    let (first, last, se) = learned(score_function(), 80);
    assert!(
        last > first + 10.0 && last > first + 6.0 * se,
        "{first} to {last}, standard error {se}"
    );
}

#[test]
fn ratio_is_one_before_the_first_update() {
    for config in [importance_sampling(), score_function()] {
        let mut world = World::new().unwrap();
        let (_, seen, _) = run(&mut world, config, &epochs(2)).unwrap();
        assert_eq!(seen.ratios.len(), 1, "checked once a run");
        assert_eq!(seen.ratios[0].len(), 10, "at every step");
        let largest = seen.ratios[0].iter().copied().fold(0.0, f64::max);
        assert!(largest <= 1e-5, "{largest}: {:?}", seen.ratios);
    }
}

#[test]
fn ratio_is_one_under_guidance_too() {
    let mut world = World::new().unwrap();
    let uncond = Tensor::zeros([1, 1, 4], (Kind::Float, tch::Device::Cpu));
    world.policy = Box::new(Guided::new(TinyPolicy::new(1).unwrap(), uncond, 5.0));
    let (_, seen, _) = run(&mut world, importance_sampling(), &epochs(1)).unwrap();
    let largest = seen.ratios[0].iter().copied().fold(0.0, f64::max);
    assert!(largest <= 1e-5, "{largest}");
    assert!(
        seen.updates
            .iter()
            .all(|r| r.get("policy/grad_norm").unwrap() > 0.0)
    );
}

#[test]
fn the_first_update_is_on_policy_and_the_later_ones_clip() {
    let mut world = World::new().unwrap();
    let (_, seen, _) = run(&mut world, importance_sampling(), &epochs(1)).unwrap();
    assert_eq!(seen.updates.len(), 4);
    let metric = |update: usize, name: &str| seen.updates[update].get(name).unwrap();
    assert_eq!(metric(0, "policy/clip_fraction"), 0.0);
    assert!(metric(0, "policy/approx_kl") < 1e-10);
    assert!((metric(0, "policy/ratio_mean") - 1.0).abs() < 1e-6);
    assert!(metric(3, "policy/clip_fraction") > 0.5);
    assert!(metric(3, "policy/approx_kl") > metric(0, "policy/approx_kl"));
}

/// A policy whose training pass is not its sampling pass.
struct TwoFaced {
    inner: TinyPolicy,
    factor: f64,
}

impl Denoiser for TwoFaced {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.inner.predict(input)
    }
}

impl Policy for TwoFaced {
    fn params(&self) -> &ParamSet {
        self.inner.params()
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        self.inner
            .accumulate(input, &mut |eps| loss(&(eps * self.factor)))
    }
}

impl Persist for TwoFaced {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.inner.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.inner.load(from)
    }
}

fn two_faced(factor: f64) -> World {
    let mut world = World::new().unwrap();
    let inner = TinyPolicy::new(1).unwrap();
    world.policy = Box::new(TwoFaced { inner, factor });
    world
}

#[test]
fn a_policy_that_trains_another_distribution_is_stopped_before_its_first_update() {
    let mut world = two_faced(1.01);
    let before = weights(&world);
    let error = run(&mut world, importance_sampling(), &epochs(1)).unwrap_err();
    let Error::Ratio {
        deviation,
        step,
        timestep,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(deviation > 1e-5);
    assert_eq!(timestep, Sampler::timestep(&world.sampler, step));
    assert_eq!(apart(&before, &weights(&world)), 0.0);
    // Training that is not meant to replay what was sampled only reports it.
    let reports_only = DdpoConfig {
        ratio_bound: None,
        ..importance_sampling()
    };
    let (_, seen, _) = run(&mut two_faced(1.01), reports_only, &epochs(1)).unwrap();
    assert!(seen.ratios[0].iter().any(|&deviation| deviation > 1e-5));
}

#[test]
fn updates_that_are_not_finite_are_skipped_and_end_the_run_when_there_are_too_many() {
    let mut world = two_faced(f64::NAN);
    let before = weights(&world);
    let (mut seen, config) = (Recorder::default(), importance_sampling());
    let mut algorithm = Ddpo::new(config, &world.sampler, 1).unwrap();
    let ended = train(
        &mut algorithm,
        &mut world.context(vec![&mut seen]),
        &epochs(5),
    );
    let message = ended.unwrap_err().to_string();
    assert!(message.contains("3 updates in a row"), "{message}");
    assert_eq!(seen.skipped.len(), 3);
    assert!(seen.skipped[0].contains("loss NaN"), "{}", seen.skipped[0]);
    assert_eq!(apart(&before, &weights(&world)), 0.0);
}

#[test]
fn updates_whose_gradients_overflow_are_skipped_and_do_not_end_the_run() {
    let mut world = World::new().unwrap();
    world.policy = Box::new(TinyPolicy::new(1).unwrap().with_overflows(6));
    let before = weights(&world);
    // Six of eight, more in a row than updates that are not finite may be.
    let (outcome, seen, _) = run(&mut world, importance_sampling(), &epochs(2)).unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert_eq!((seen.skipped.len(), seen.updates.len()), (6, 2));
    let reason = &seen.skipped[0];
    assert!(
        reason.contains("overflowed at a loss scale of 2"),
        "{reason}"
    );
    assert!(apart(&before, &weights(&world)) > 0.0);
}

#[test]
fn a_reward_that_is_not_finite_ends_the_run() {
    struct Nan;
    impl Reward for Nan {
        fn name(&self) -> &str {
            "nan"
        }
        fn score(&mut self, images: &Images, _: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
            Ok(vec![f32::NAN; images.len()])
        }
    }
    let mut world = World::new().unwrap();
    world.rewards = RewardWorker::new(vec![Box::new(Nan)], Retry::never()).unwrap();
    let error = run(&mut world, importance_sampling(), &epochs(1)).unwrap_err();
    assert!(matches!(error, Error::BadReward { .. }), "{error}");
}

fn images_by_id(seen: &Recorder) -> Vec<(u64, Images)> {
    let mut all: Vec<(u64, Images)> = seen
        .images
        .iter()
        .flat_map(|(_, ids, images)| {
            let each = ids.iter().enumerate();
            each.map(|(i, &id)| (id, images.select(&[i])))
        })
        .collect();
    all.sort_by_key(|(id, _)| *id);
    all
}

#[test]
fn batch_sizes_change_neither_samples_nor_gradients() {
    let run_with = |sample_batch, micro_batch| {
        let mut world = World::new().unwrap();
        let config = DdpoConfig {
            sample_batch,
            micro_batch,
            ..importance_sampling()
        };
        let (_, seen, _) = run(&mut world, config, &epochs(1)).unwrap();
        (
            images_by_id(&seen),
            seen.updates[0].clone(),
            weights(&world),
        )
    };
    let (images, first, after) = run_with(16, 16);
    for (sample_batch, micro_batch) in [(8, 16), (16, 7), (5, 80)] {
        let case = format!("batches {sample_batch} and {micro_batch}");
        let (other_images, other_first, other_after) = run_with(sample_batch, micro_batch);
        assert_eq!(images, other_images, "{case}");
        let norm = |report: &ddpo_train::Metrics| report.get("policy/grad_norm").unwrap();
        let difference = (norm(&first) / norm(&other_first) - 1.0).abs();
        assert!(
            difference < 1e-6,
            "{case}: gradient norms differ by {difference}"
        );
        let difference = apart(&after, &other_after);
        assert!(difference < 1e-5, "{case}: weights differ by {difference}");
    }
}

#[test]
fn two_ranks_are_one_with_the_double_batch() {
    let config = DdpoConfig {
        sample_batch: 8,
        micro_batch: 40,
        ..importance_sampling()
    };
    let mut alone = World::new().unwrap();
    let (_, seen, _) = run(&mut alone, config, &epochs(2)).unwrap();
    let runs: Vec<(Recorder, Vec<Tensor>)> = std::thread::scope(|scope| {
        let spawn = |rank: Threads| {
            scope.spawn(move || {
                let mut world = World::new().unwrap();
                world.collective = Box::new(rank);
                let (_, seen, _) = run(&mut world, config, &epochs(2)).unwrap();
                (seen, weights(&world))
            })
        };
        let ranks: Vec<_> = Threads::group(2).into_iter().map(spawn).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(apart(&runs[0].1, &runs[1].1), 0.0, "ranks stay together");
    let first = |seen: &Recorder| {
        seen.samples
            .iter()
            .filter(|row| row.0 == 0)
            .copied()
            .collect::<Vec<_>>()
    };
    for (rank, _) in &runs {
        assert_eq!(
            first(rank),
            first(&seen),
            "all samples of the first epoch, on every rank"
        );
        let metric = |seen: &Recorder, name| seen.updates[0].get(name).unwrap();
        for name in ["policy/grad_norm", "policy/ratio_mean"] {
            let difference = (metric(rank, name) / metric(&seen, name) - 1.0).abs();
            assert!(difference < 1e-5, "{name}: {difference}");
        }
    }
    let images: usize = runs.iter().map(|(seen, _)| images_by_id(seen).len()).sum();
    assert_eq!(images, 64, "each rank draws its share");
    let difference = apart(&weights(&alone), &runs[0].1);
    assert!(difference < 1e-5, "weights differ by {difference}");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_another() {
    let run_with = |seed| {
        let mut world = World::new().unwrap();
        world.seeds = ddpo_sched::Seeds::new(seed);
        run(&mut world, importance_sampling(), &epochs(2)).unwrap();
        weights(&world)
    };
    let first = run_with(3);
    assert_eq!(apart(&first, &run_with(3)), 0.0);
    assert!(apart(&first, &run_with(4)) > 1e-4);
}
