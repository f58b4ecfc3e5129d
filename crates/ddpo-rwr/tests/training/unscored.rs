//! A round whose reward failed goes on where it ended: nothing is sampled or asked twice, and the bytes are
//! those of a run whose reward never failed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ddpo_rwr::{Latents, Rwr, RwrConfig};
use ddpo_testkit::{Recorder, Service, World};
use ddpo_train::{
    Checkpoints, Collective, Error, Outcome, Result, Retry, RewardWorker, Solo, Threads, TrainPlan,
    train,
};
use tch::Tensor;

use super::{rounds, schedule, softmax, sparse, weights};

struct Ended {
    result: Result<Outcome>,
    weights: Vec<Tensor>,
    seen: Recorder,
    asked: Vec<Vec<u8>>,
}

/// Three rounds of 64 samples in batches of 16, from the last checkpoint in the folder.
fn run_in(folder: &Path, config: RwrConfig, answers: usize, ranks: Box<dyn Collective>) -> Ended {
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
        ..rounds(3)
    };
    let mut seen = Recorder::default();
    let mut algorithm = Rwr::new(config, schedule(), n_ranks).unwrap();
    let result = train(&mut algorithm, &mut world.context(vec![&mut seen]), &plan);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    Ended {
        result,
        weights: weights(&world),
        seen,
        asked,
    }
}

fn alone(folder: &Path, config: RwrConfig, answers: usize) -> Ended {
    run_in(folder, config, answers, Box::new(Solo))
}

/// The same with ranks that share the samples, each with a reward of its own that gives so many answers.
fn together(folder: &Path, config: RwrConfig, answers: &[usize]) -> Vec<Ended> {
    std::thread::scope(|scope| {
        let spawn = |(rank, &answers): (Threads, &usize)| {
            scope.spawn(move || run_in(folder, config, answers, Box::new(rank)))
        };
        let group = Threads::group(answers.len()).into_iter().zip(answers);
        let ranks: Vec<_> = group.map(spawn).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn a_failed_reward_keeps_the_round_and_a_resumed_run_asks_for_the_rest() {
    let sampled = RwrConfig {
        latents: Latents::Sampled,
        ..sparse()
    };
    for config in [softmax(), sampled] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let whole = alone(folders[0].path(), config, usize::MAX);
        assert_eq!(whole.result.unwrap(), Outcome::Done);
        assert_eq!(whole.asked.len(), 192);

        // Fails in the second round, five images into its third batch; then not at all.
        let failed = alone(folders[1].path(), config, 64 + 2 * 16 + 5);
        assert!(matches!(failed.result, Err(Error::Reward(e)) if e.is_transient()));
        assert!(folders[1].path().join("epoch-000001-partial").is_dir());
        let resumed = alone(folders[1].path(), config, usize::MAX);
        assert_eq!(resumed.result.unwrap(), Outcome::Done);

        let asked = [failed.asked, resumed.asked].concat();
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
}

/// The second of two ranks fails in its second round, which both of them keep, and go on with.
#[test]
fn every_rank_keeps_its_part_of_a_round_whose_reward_failed_on_one() {
    let config = softmax();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (all, [whole, broken]) = (usize::MAX, &folders);
    let whole = together(whole.path(), config, &[all; 2]);
    for rank in &whole {
        assert_eq!(rank.result.as_ref().unwrap(), &Outcome::Done);
        assert_eq!(rank.asked.len(), 96);
    }

    let failed = together(broken.path(), config, &[all, 32 + 5]);
    let [first, second] = failed.as_slice() else {
        panic!("two ranks");
    };
    assert!(matches!(
        first.result,
        Err(Error::RewardElsewhere { rank: 0 })
    ));
    assert!(matches!(&second.result, Err(Error::Reward(e)) if e.is_transient()));
    assert!(broken.path().join("epoch-000001-partial").is_dir());
    let again = together(broken.path(), config, &[0, 0]);
    assert!(matches!(
        again[0].result,
        Err(Error::RewardElsewhere { .. })
    ));
    assert!(matches!(again[1].result, Err(Error::Reward(_))));
    let refused = alone(broken.path(), config, all)
        .result
        .unwrap_err()
        .to_string();
    let reason = "of 2 ranks that a reward failed in: go on with 2, not 1";
    assert!(refused.contains(reason), "{refused}");

    let resumed = together(broken.path(), config, &[all; 2]);
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
