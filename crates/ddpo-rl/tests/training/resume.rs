//! Runs that were stopped go on to the bytes of those that were not.

use std::path::Path;

use ddpo_rl::Ddpo;
use ddpo_testkit::{Recorder, World};
use ddpo_train::{
    Checkpoints, Outcome, StateReader, StateWriter, StopFlag, TrainPlan, run_epoch, train,
};
use tch::Tensor;

use super::{apart, epochs, importance_sampling, run, weights};

struct Finished {
    weights: Vec<Tensor>,
    state: StateReader,
    seen: Recorder,
}

/// Runs to `n` epochs, from the last checkpoint in `folder` if there is one.
fn run_in(folder: &Path, n: u64, stop_after: Option<usize>) -> (Outcome, Finished) {
    let mut world = World::new().unwrap();
    let checkpoints = Checkpoints::open(folder, 3).unwrap();
    let plan = TrainPlan {
        resume: checkpoints.latest().unwrap(),
        checkpoints: Some(checkpoints),
        ..epochs(n)
    };
    let mut seen = Recorder {
        stop_after: stop_after.map(|n| (n, world.stop.clone())),
        ..Recorder::default()
    };
    let mut algorithm = Ddpo::new(importance_sampling(), &world.sampler, 1).unwrap();
    let outcome = train(&mut algorithm, &mut world.context(vec![&mut seen]), &plan).unwrap();
    let mut state = StateWriter::new();
    state.nested("optimizer", &world.optimizer).unwrap();
    state.nested("algorithm", &algorithm).unwrap();
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
        assert_eq!(
            a.state.tensor(&name).unwrap(),
            b.state.tensor(&name).unwrap(),
            "{name}"
        );
    }
    let buffers = |f: &Finished| -> std::collections::BTreeMap<String, Vec<f64>> {
        f.state.value("algorithm.prompts.buffers").unwrap()
    };
    assert_eq!(buffers(a), buffers(b));
    assert_eq!(buffers(a).len(), 2);
}

#[test]
fn a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, whole) = run_in(folders[0].path(), 4, None);
    run_in(folders[1].path(), 2, None);
    let (outcome, resumed) = run_in(folders[1].path(), 4, None);
    assert_eq!(outcome, Outcome::Done);
    same_bytes(&whole, &resumed);
    assert_eq!(
        whole.seen.epochs[2..],
        resumed.seen.epochs,
        "rows of the table"
    );
    assert_eq!(whole.seen.samples[64..], resumed.seen.samples);
}

#[test]
fn a_run_stopped_between_two_updates_loses_nothing() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, whole) = run_in(folders[0].path(), 3, None);
    // The sixth update is the second of the second epoch.
    let (outcome, stopped) = run_in(folders[1].path(), 3, Some(6));
    assert!(
        matches!(
            outcome,
            Outcome::Interrupted {
                checkpoint: Some(_)
            }
        ),
        "{outcome:?}"
    );
    assert_eq!(stopped.seen.updates.len(), 6);
    let (outcome, resumed) = run_in(folders[1].path(), 3, None);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(resumed.seen.updates.len(), 6, "only what was left");
    same_bytes(&whole, &resumed);
    assert_eq!(
        whole.seen.epochs[1..],
        resumed.seen.epochs,
        "rows of the table"
    );
}

#[test]
fn a_run_stopped_while_sampling_begins_the_epoch_anew() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, whole) = run_in(folders[0].path(), 2, None);
    let mut world = World::new().unwrap();
    world.stop = StopFlag::new();
    world.stop.request();
    let plan = TrainPlan {
        checkpoints: Some(Checkpoints::open(folders[1].path(), 3).unwrap()),
        ..epochs(2)
    };
    let (outcome, seen, _) = run(&mut world, importance_sampling(), &plan).unwrap();
    assert!(matches!(
        outcome,
        Outcome::Interrupted {
            checkpoint: Some(_)
        }
    ));
    assert!(seen.images.is_empty());
    same_bytes(&whole, &run_in(folders[1].path(), 2, None).1);
}

/// So that the tests above cannot pass for want of state.
#[test]
fn a_weights_only_restart_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let (_, whole) = run_in(folder.path(), 4, None);
    let mut world = World::new().unwrap();
    run(&mut world, importance_sampling(), &epochs(2)).unwrap();
    let kept = weights(&world);
    let mut world = World::new().unwrap();
    for (target, source) in world.policy.params().tensors().iter().zip(&kept) {
        tch::no_grad(|| target.shallow_clone().copy_(source));
    }
    let mut seen = Recorder::default();
    let mut algorithm = Ddpo::new(importance_sampling(), &world.sampler, 1).unwrap();
    let mut ctx = world.context(vec![&mut seen]);
    for epoch in 2..4 {
        run_epoch(&mut algorithm, &mut ctx, epoch).unwrap();
    }
    drop(ctx);
    assert!(apart(&whole.weights, &weights(&world)) > 1e-4);
}
