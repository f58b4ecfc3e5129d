//! An epoch whose reward failed goes on where it ended: nothing is sampled or asked twice, and the bytes are
//! those of a run whose reward never failed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ddpo_rl::Ddpo;
use ddpo_testkit::{Recorder, Service, World};
use ddpo_train::{
    Checkpoints, Collective, Error, Outcome, Result, Retry, RewardWorker, Solo, Threads, TrainPlan,
    train,
};
use tch::Tensor;

use super::{epochs, importance_sampling, weights};

struct Ended {
    result: Result<Outcome>,
    weights: Vec<Tensor>,
    seen: Recorder,
    asked: Vec<Vec<u8>>,
}

/// Three epochs of 32 samples in batches of 16, from the last checkpoint in the folder.
fn run_in(folder: &Path, answers: usize, ranks: Box<dyn Collective>) -> Ended {
    let mut world = World::new().unwrap();
    let n_ranks = ranks.world();
    world.collective = ranks;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let service = Service {
        left: answers,
        asked: Arc::clone(&asked),
    };
    world.rewards = RewardWorker::new(vec![Box::new(service)], Retry::never()).unwrap();
    let checkpoints = Checkpoints::open(folder, 3).unwrap();
    let plan = TrainPlan {
        resume: checkpoints.latest().unwrap(),
        checkpoints: Some(checkpoints),
        ..epochs(3)
    };
    let mut seen = Recorder::default();
    let mut algorithm = Ddpo::new(importance_sampling(), &world.sampler, n_ranks).unwrap();
    let result = train(&mut algorithm, &mut world.context(vec![&mut seen]), &plan);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    Ended {
        result,
        weights: weights(&world),
        seen,
        asked,
    }
}

fn alone(folder: &Path, answers: usize) -> Ended {
    run_in(folder, answers, Box::new(Solo))
}

/// The same with ranks that share the samples, each with a reward of its own that gives so many answers.
fn together(folder: &Path, answers: &[usize]) -> Vec<Ended> {
    std::thread::scope(|scope| {
        let spawn = |(rank, &answers): (Threads, &usize)| {
            scope.spawn(move || run_in(folder, answers, Box::new(rank)))
        };
        let group = Threads::group(answers.len()).into_iter().zip(answers);
        let ranks: Vec<_> = group.map(spawn).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn a_failed_reward_keeps_the_epoch_and_a_resumed_run_asks_for_the_rest() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let whole = alone(folders[0].path(), usize::MAX);
    assert_eq!(whole.result.unwrap(), Outcome::Done);
    assert_eq!(whole.asked.len(), 96);

    // Fails in the second epoch, five images into its second batch; then at once; then not at all.
    let failed = alone(folders[1].path(), 32 + 16 + 5);
    assert!(matches!(failed.result, Err(Error::Reward(e)) if e.is_transient()));
    assert_eq!(failed.seen.epochs.len(), 1);
    let partial = folders[1].path().join("epoch-000001-partial");
    assert!(partial.is_dir(), "the epoch is kept");
    let again = alone(folders[1].path(), 0);
    assert!(matches!(again.result, Err(Error::Reward(_))));
    assert!(again.seen.images.is_empty(), "nothing is sampled again");
    let resumed = alone(folders[1].path(), usize::MAX);
    assert_eq!(resumed.result.unwrap(), Outcome::Done);

    let asked = [failed.asked, again.asked, resumed.asked].concat();
    assert_eq!(
        asked, whole.asked,
        "each image is asked about once, in order"
    );
    assert_eq!(resumed.weights, whole.weights);
    let samples = [failed.seen.samples, resumed.seen.samples].concat();
    assert_eq!(samples, whole.seen.samples);
    let reports = [failed.seen.epochs, resumed.seen.epochs].concat();
    assert_eq!(reports, whole.seen.epochs);
}

/// The second of two ranks fails in its second epoch, which both of them keep, and go on with.
#[test]
fn every_rank_keeps_its_part_of_an_epoch_whose_reward_failed_on_one() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (all, [whole, broken]) = (usize::MAX, &folders);
    let whole = together(whole.path(), &[all; 2]);
    for rank in &whole {
        assert_eq!(rank.result.as_ref().unwrap(), &Outcome::Done);
        assert_eq!(rank.asked.len(), 48);
    }

    let failed = together(broken.path(), &[all, 16 + 5]);
    let [first, second] = failed.as_slice() else {
        panic!("two ranks");
    };
    assert!(matches!(
        first.result,
        Err(Error::RewardElsewhere { rank: 0 })
    ));
    assert!(matches!(&second.result, Err(Error::Reward(e)) if e.is_transient()));
    assert!(broken.path().join("epoch-000001-partial").is_dir());
    let again = together(broken.path(), &[0, 0]);
    assert!(matches!(
        again[0].result,
        Err(Error::RewardElsewhere { .. })
    ));
    assert!(matches!(again[1].result, Err(Error::Reward(_))));
    let refused = alone(broken.path(), all).result.unwrap_err().to_string();
    let reason = "of 2 ranks that a reward failed in: go on with 2, not 1";
    assert!(refused.contains(reason), "{refused}");

    let resumed = together(broken.path(), &[all; 2]);
    for (rank, resumed) in resumed.into_iter().enumerate() {
        assert_eq!(resumed.result.unwrap(), Outcome::Done);
        assert!(
            again[rank].seen.images.is_empty(),
            "nothing is sampled again"
        );
        let asked = [failed[rank].asked.clone(), resumed.asked].concat();
        assert_eq!(asked, whole[rank].asked, "each image is asked about once");
        assert_eq!(resumed.weights, whole[rank].weights);
        let samples = [failed[rank].seen.samples.clone(), resumed.seen.samples].concat();
        assert_eq!(samples, whole[rank].seen.samples);
    }
}
