//! Runs that were stopped go on to the bytes of those that were not.

use std::path::Path;

use ddpo_rwr::{Moments, Rwr, RwrConfig};
use ddpo_testkit::{Recorder, World};
use ddpo_train::{Checkpoints, Outcome, StateReader, StateWriter, TrainPlan, run_epoch, train};
use tch::Tensor;

use super::{apart, rounds, run, schedule, softmax, sparse, weights};

struct Finished {
    weights: Vec<Tensor>,
    state: StateReader,
    seen: Recorder,
}

/// Moments that outlive a round, so that a restart which forgot them would show.
fn kept(config: RwrConfig) -> RwrConfig {
    RwrConfig {
        moments: Moments::Carried,
        ..config
    }
}

/// Runs to `n` rounds, from the last checkpoint in `folder` if there is one.
fn run_in(
    folder: &Path,
    config: RwrConfig,
    n: u64,
    stop_after: Option<usize>,
) -> (Outcome, Finished) {
    let mut world = World::new().unwrap();
    let checkpoints = Checkpoints::open(folder, 3).unwrap();
    let plan = TrainPlan {
        resume: checkpoints.latest().unwrap(),
        checkpoints: Some(checkpoints),
        ..rounds(n)
    };
    let mut seen = Recorder {
        stop_after: stop_after.map(|n| (n, world.stop.clone())),
        ..Recorder::default()
    };
    let mut algorithm = Rwr::new(config, schedule(), 1).unwrap();
    let outcome = train(&mut algorithm, &mut world.context(vec![&mut seen]), &plan).unwrap();
    let mut state = StateWriter::new();
    state.nested("optimizer", &world.optimizer).unwrap();
    let finished = Finished {
        weights: weights(&world),
        state: state.into_reader(),
        seen,
    };
    (outcome, finished)
}

#[track_caller]
fn same_bytes(a: &Finished, b: &Finished) {
    assert_eq!(a.weights, b.weights, "weights");
    for name in ["exp_avg.in.weight", "exp_avg_sq.out.bias", "step.in.bias"] {
        let name = format!("optimizer.{name}");
        let [a, b] = [a, b].map(|f| f.state.tensor(&name).unwrap());
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one() {
    for config in [softmax(), kept(sparse())] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (_, whole) = run_in(folders[0].path(), config, 4, None);
        run_in(folders[1].path(), config, 2, None);
        let (outcome, resumed) = run_in(folders[1].path(), config, 4, None);
        assert_eq!(outcome, Outcome::Done);
        same_bytes(&whole, &resumed);
        assert_eq!(
            whole.seen.epochs[2..],
            resumed.seen.epochs,
            "rows of the table"
        );
        assert_eq!(whole.seen.samples[128..], resumed.seen.samples);
    }
}

#[test]
fn a_run_stopped_between_two_updates_loses_nothing() {
    // With the encoder's posterior and with the samples' own latents.
    let sampled = RwrConfig {
        latents: ddpo_rwr::Latents::Sampled,
        order: ddpo_rwr::Order::Shuffled,
        ..kept(softmax())
    };
    for config in [sparse(), sampled] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (_, whole) = run_in(folders[0].path(), config, 3, None);
        // The twentieth update is the fourth of the second round.
        let (outcome, stopped) = run_in(folders[1].path(), config, 3, Some(20));
        assert!(
            matches!(
                outcome,
                Outcome::Interrupted {
                    checkpoint: Some(_)
                }
            ),
            "{outcome:?}"
        );
        assert_eq!(stopped.seen.updates.len(), 20);
        let (outcome, resumed) = run_in(folders[1].path(), config, 3, None);
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(resumed.seen.updates.len(), 28, "only what was left");
        assert_eq!(
            resumed.seen.samples.len(),
            64,
            "samples of the last round only"
        );
        same_bytes(&whole, &resumed);
        assert_eq!(
            whole.seen.epochs[1..],
            resumed.seen.epochs,
            "rows of the table"
        );
    }
}

/// So that the tests above cannot pass for want of state: what a restart must know beside the weights.
#[test]
fn a_weights_only_restart_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = kept(softmax());
    let (_, whole) = run_in(folder.path(), config, 4, None);
    let mut world = World::new().unwrap();
    run(&mut world, config, &rounds(2)).unwrap();
    let weights_then = weights(&world);
    let mut world = World::new().unwrap();
    for (target, source) in world.policy.params().tensors().iter().zip(&weights_then) {
        tch::no_grad(|| target.shallow_clone().copy_(source));
    }
    let mut seen = Recorder::default();
    let mut algorithm = Rwr::new(config, schedule(), 1).unwrap();
    let mut ctx = world.context(vec![&mut seen]);
    for round in 2..4 {
        run_epoch(&mut algorithm, &mut ctx, round).unwrap();
    }
    drop(ctx);
    assert!(apart(&whole.weights, &weights(&world)) > 1e-4);
}

/// With fresh moments there is nothing but weights to forget between rounds.
#[test]
fn fresh_moments_are_those_of_the_round() {
    let folder = tempfile::tempdir().unwrap();
    let (_, finished) = run_in(folder.path(), softmax(), 3, None);
    let steps = finished.state.tensor("optimizer.step.in.bias").unwrap();
    assert_eq!(steps.double_value(&[0]), 16.0);
    let folder = tempfile::tempdir().unwrap();
    let (_, finished) = run_in(folder.path(), kept(softmax()), 3, None);
    let steps = finished.state.tensor("optimizer.step.in.bias").unwrap();
    assert_eq!(steps.double_value(&[0]), 48.0);
}
