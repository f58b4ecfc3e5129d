//! An epoch whose reward failed goes on where it ended: nothing is sampled or asked twice, and the bytes are
//! those of a run whose reward never failed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ddpo_rl::Ddpo;
use ddpo_train::dev::{Recorder, Service, World};
use ddpo_train::{Checkpoints, Error, Outcome, Plan, Result, Retry, RewardWorker, train};
use tch::Tensor;

use super::{epochs, importance_sampling, weights};

struct Ended {
    result: Result<Outcome>,
    weights: Vec<Tensor>,
    seen: Recorder,
    asked: Vec<Vec<u8>>,
}

/// Three epochs of 32 samples in batches of 16, from the last checkpoint in the folder.
fn run_in(folder: &Path, answers: usize) -> Ended {
    let mut world = World::new().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let service = Service {
        left: answers,
        asked: Arc::clone(&asked),
    };
    world.rewards = RewardWorker::new(vec![Box::new(service)], Retry::never()).unwrap();
    let checkpoints = Checkpoints::open(folder, 3).unwrap();
    let plan = Plan {
        resume: checkpoints.latest().unwrap(),
        checkpoints: Some(checkpoints),
        ..epochs(3)
    };
    let mut seen = Recorder::default();
    let mut algorithm = Ddpo::new(importance_sampling(), &world.sampler, 1).unwrap();
    let result = train(&mut algorithm, &mut world.context(vec![&mut seen]), &plan);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    Ended {
        result,
        weights: weights(&world),
        seen,
        asked,
    }
}

#[test]
fn a_failed_reward_keeps_the_epoch_and_a_resumed_run_asks_for_the_rest() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let whole = run_in(folders[0].path(), usize::MAX);
    assert_eq!(whole.result.unwrap(), Outcome::Done);
    assert_eq!(whole.asked.len(), 96);

    // Fails in the second epoch, five pictures into its second batch; then at once; then not at all.
    let failed = run_in(folders[1].path(), 32 + 16 + 5);
    assert!(matches!(failed.result, Err(Error::Reward(e)) if e.is_transient()));
    assert_eq!(failed.seen.epochs.len(), 1);
    let partial = folders[1].path().join("epoch-000001-partial");
    assert!(partial.is_dir(), "the epoch is kept");
    let again = run_in(folders[1].path(), 0);
    assert!(matches!(again.result, Err(Error::Reward(_))));
    assert!(again.seen.images.is_empty(), "nothing is sampled again");
    let resumed = run_in(folders[1].path(), usize::MAX);
    assert_eq!(resumed.result.unwrap(), Outcome::Done);

    let asked = [failed.asked, again.asked, resumed.asked].concat();
    assert_eq!(
        asked, whole.asked,
        "each picture is asked about once, in order"
    );
    assert_eq!(resumed.weights, whole.weights);
    let samples = [failed.seen.samples, resumed.seen.samples].concat();
    assert_eq!(samples, whole.seen.samples);
    let reports = [failed.seen.epochs, resumed.seen.epochs].concat();
    assert_eq!(reports, whole.seen.epochs);
}
