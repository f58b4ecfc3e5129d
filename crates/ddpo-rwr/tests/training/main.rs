//! Whole runs in a world of 2 × 2 pixels.

mod resume;
mod unscored;

use ddpo_rwr::{Latents, Moments, Order, Rewards, Rwr, RwrConfig, Scope, Weighting};
use ddpo_sched::{NoiseSchedule, ScheduleConfig};
use ddpo_testkit::{Recorder, TinyPolicy, World};
use ddpo_train::{Error, Outcome, Result, Threads, TrainPlan, train};
use tch::Tensor;

fn softmax() -> RwrConfig {
    RwrConfig {
        weighting: Weighting::Softmax {
            beta: 2.0,
            rewards: Rewards::Standardised,
        },
        samples_per_round: 64,
        updates_per_round: 16,
        batch: 32,
        sample_batch: 16,
        micro_batch: 32,
        ..RwrConfig::softmax()
    }
}

fn sparse() -> RwrConfig {
    RwrConfig {
        weighting: Weighting::Percentile { percentile: 0.75 },
        samples_per_prompt: 8,
        ..softmax()
    }
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&ScheduleConfig::sd_v1_4()).unwrap()
}

/// Trains in `world` and tells what was seen.
fn run(world: &mut World, config: RwrConfig, plan: &TrainPlan) -> Result<(Outcome, Recorder)> {
    let (mut seen, n_ranks) = (Recorder::default(), world.collective.world());
    let mut algorithm = Rwr::new(config, schedule(), n_ranks)?;
    let outcome = train(&mut algorithm, &mut world.context(vec![&mut seen]), plan)?;
    Ok((outcome, seen))
}

fn rounds(epochs: u64) -> TrainPlan {
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

/// Mean reward of the first and of the last three rounds, and the standard error of their difference.
fn learned(config: RwrConfig, n_rounds: u64) -> (f64, f64, f64) {
    let mut world = World::new().unwrap();
    let (_, seen) = run(&mut world, config, &rounds(n_rounds)).unwrap();
    let moments = |from: u64, to: u64| {
        let rows = seen
            .samples
            .iter()
            .filter(|row| (from..to).contains(&row.0));
        let values: Vec<f64> = rows.map(|row| f64::from(row.2)).collect();
        let (mean, std) = ddpo_train::moments(values.iter().copied());
        (mean, std * std / (values.len() - 1) as f64)
    };
    let (first, first_error) = moments(0, 3);
    let (last, last_error) = moments(n_rounds - 3, n_rounds);
    (first, last, (first_error + last_error).sqrt())
}

#[track_caller]
fn learns(config: RwrConfig) {
    let (first, last, se) = learned(config, 30);
    assert!(
        last > first + 10.0 && last > first + 6.0 * se,
        "{first} to {last}, standard error {se}"
    );
}

#[test]
fn rwr_learns() {
    learns(softmax());
}

#[test]
fn sparse_rwr_learns() {
    learns(sparse());
}

#[test]
fn every_other_choice_learns_too() {
    learns(RwrConfig {
        latents: Latents::Sampled,
        moments: Moments::Carried,
        order: Order::Shuffled,
        scope: Scope::Pool,
        ..softmax()
    });
}

#[test]
fn the_advantage_of_a_row_is_its_weight_and_metrics_count_them() {
    let mut world = World::new().unwrap();
    let (_, seen) = run(&mut world, sparse(), &rounds(1)).unwrap();
    assert_eq!(seen.samples.len(), 64);
    let kept = seen.samples.iter().filter(|row| row.3 == 1.0).count();
    let dropped = seen.samples.iter().filter(|row| row.3 == 0.0).count();
    assert!(
        kept >= 16 && kept + dropped == 64,
        "{kept} kept, {dropped} dropped"
    );
    let metric = |name: &str| seen.epochs[0].get(name).unwrap();
    assert_eq!(metric("rwr/kept"), kept as f64);
    assert!((metric("rwr/effective_samples") - kept as f64).abs() < 1e-9);
    assert_eq!(metric("policy/updates"), 16.0);
    assert_eq!(seen.epochs[0].reward_queries, 64);
    // The policy starts as the exact denoiser of standard normal latents, of which E|ε − ε̂|² is the mean of ᾱ.
    let abar = schedule().abar().iter().sum::<f64>() / 1000.0;
    let loss = metric("rwr/loss");
    assert!(
        (0.3 * abar..3.0 * abar).contains(&loss),
        "{loss}, about {abar}"
    );
}

#[test]
fn updates_whose_gradients_overflow_are_skipped_and_do_not_end_the_run() {
    let mut world = World::new().unwrap();
    world.policy = Box::new(TinyPolicy::new(1).unwrap().with_overflows(6));
    let before = weights(&world);
    let (_, seen) = run(&mut world, softmax(), &rounds(1)).unwrap();
    assert_eq!((seen.skipped.len(), seen.updates.len()), (6, 10));
    assert!(apart(&before, &weights(&world)) > 0.0);
}

#[test]
fn neighbours_share_a_prompt_where_they_are_to() {
    let prompts = |samples_per_prompt| -> Vec<String> {
        let mut world = World::new().unwrap();
        let mut seen = Prompts::default();
        let config = RwrConfig {
            samples_per_prompt,
            updates_per_round: 1,
            ..softmax()
        };
        let mut algorithm = Rwr::new(config, schedule(), 1).unwrap();
        train(
            &mut algorithm,
            &mut world.context(vec![&mut seen]),
            &rounds(1),
        )
        .unwrap();
        seen.0
    };
    let grouped = prompts(8);
    assert_eq!(grouped.len(), 64);
    assert!(
        grouped
            .chunks(8)
            .all(|group| group.iter().all(|p| *p == group[0]))
    );
    assert!(grouped.iter().any(|p| *p != grouped[0]));
    assert!(
        prompts(1)
            .chunks(8)
            .any(|group| group.iter().any(|p| *p != group[0]))
    );
}

#[derive(Default)]
struct Prompts(Vec<String>);

impl ddpo_train::Observer for Prompts {
    fn on(&mut self, event: &ddpo_train::Event<'_>) -> Result<()> {
        if let ddpo_train::Event::Rewarded { samples, .. } = event {
            self.0
                .extend(samples.iter().map(|row| row.prompt.text.clone()));
        }
        Ok(())
    }
}

#[test]
fn batch_sizes_in_memory_change_neither_samples_nor_gradients() {
    let run_with = |sample_batch, micro_batch| {
        let mut world = World::new().unwrap();
        let config = RwrConfig {
            sample_batch,
            micro_batch,
            ..softmax()
        };
        let (_, seen) = run(&mut world, config, &rounds(1)).unwrap();
        (seen.samples.clone(), weights(&world))
    };
    let (samples, after) = run_with(16, 32);
    for (sample_batch, micro_batch) in [(5, 32), (16, 7)] {
        let (other_samples, other_after) = run_with(sample_batch, micro_batch);
        assert_eq!(samples, other_samples);
        let difference = apart(&after, &other_after);
        assert!(
            difference < 1e-5,
            "{sample_batch}, {micro_batch}: {difference}"
        );
    }
}

#[test]
fn two_ranks_are_one_with_the_double_batch() {
    for config in [softmax(), sparse()] {
        let mut alone = World::new().unwrap();
        let (_, seen) = run(&mut alone, config, &rounds(2)).unwrap();
        let runs: Vec<(Recorder, Vec<Tensor>)> = std::thread::scope(|scope| {
            let spawn = |rank: Threads| {
                scope.spawn(move || {
                    let mut world = World::new().unwrap();
                    world.collective = Box::new(rank);
                    let (_, seen) = run(&mut world, config, &rounds(2)).unwrap();
                    (seen, weights(&world))
                })
            };
            let ranks: Vec<_> = Threads::group(2).into_iter().map(spawn).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(apart(&runs[0].1, &runs[1].1), 0.0, "ranks stay together");
        for (rank, _) in &runs {
            assert_eq!(
                rank.samples[..64],
                seen.samples[..64],
                "samples of the first round"
            );
            let metric = |seen: &Recorder, name| seen.updates[0].get(name).unwrap();
            for name in ["policy/grad_norm", "rwr/loss"] {
                let difference = (metric(rank, name) / metric(&seen, name) - 1.0).abs();
                assert!(difference < 1e-5, "{name}: {difference}");
            }
        }
        let drawn: usize = runs
            .iter()
            .flat_map(|(seen, _)| &seen.images)
            .map(|i| i.1.len())
            .sum();
        assert_eq!(drawn, 128, "each rank draws its share");
        let difference = apart(&weights(&alone), &runs[0].1);
        assert!(difference < 1e-5, "weights differ by {difference}");
    }
}

#[test]
fn numbers_that_do_not_fit_are_refused_by_name() {
    let refused =
        |config: RwrConfig, world| Rwr::new(config, schedule(), world).unwrap_err().to_string();
    let batch = RwrConfig {
        batch: 33,
        ..softmax()
    };
    assert_eq!(
        refused(batch, 2),
        "batch = 33: must be a multiple of 2, the number of ranks"
    );
    let percentile = RwrConfig {
        weighting: Weighting::Percentile { percentile: 1.0 },
        ..softmax()
    };
    assert_eq!(refused(percentile, 1), "percentile = 1: must be in [0, 1)");
    let none = RwrConfig {
        updates_per_round: 0,
        ..softmax()
    };
    assert_eq!(
        refused(none, 1),
        "updates_per_round = 0: must be at least 1"
    );
}

#[test]
fn weights_that_are_not_finite_end_the_run_before_anything_is_scored() {
    let mut world = World::new().unwrap();
    let params = world.policy.params().tensors();
    let _ = tch::no_grad(|| params[0].shallow_clone().fill_(f64::NAN));
    let mut seen = Recorder::default();
    let mut algorithm = Rwr::new(softmax(), schedule(), 1).unwrap();
    let ended = train(
        &mut algorithm,
        &mut world.context(vec![&mut seen]),
        &rounds(1),
    );
    let Err(Error::NonFinite { what, .. }) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(what, "latent", "nothing is scored that is not finite");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_another() {
    let run_with = |seed| {
        let mut world = World::new().unwrap();
        world.seeds = ddpo_sched::Seeds::new(seed);
        run(&mut world, softmax(), &rounds(2)).unwrap();
        weights(&world)
    };
    let first = run_with(3);
    assert_eq!(apart(&first, &run_with(3)), 0.0);
    assert!(apart(&first, &run_with(4)) > 1e-4);
}
