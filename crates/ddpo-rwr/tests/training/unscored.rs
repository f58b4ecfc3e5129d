//! A round whose reward failed goes on where it ended: nothing is sampled or asked twice, and the bytes are
//! those of a run whose reward never failed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ddpo_rwr::{Latents, Rwr, RwrConfig};
use ddpo_train::dev::{Recorder, Service, World};
use ddpo_train::{Checkpoints, Error, Outcome, Plan, Result, Retry, RewardWorker, train};
use tch::Tensor;

use super::{rounds, schedule, softmax, sparse, weights};

struct Ended {
    result: Result<Outcome>,
    weights: Vec<Tensor>,
    seen: Recorder,
    asked: Vec<Vec<u8>>,
}

/// Three rounds of 64 samples in batches of 16, from the last checkpoint in the folder.
fn run_in(folder: &Path, config: RwrConfig, answers: usize) -> Ended {
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
        ..rounds(3)
    };
    let mut seen = Recorder::default();
    let mut algorithm = Rwr::new(config, schedule(), 1).unwrap();
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
fn a_failed_reward_keeps_the_round_and_a_resumed_run_asks_for_the_rest() {
    let sampled = RwrConfig {
        latents: Latents::Sampled,
        ..sparse()
    };
    for config in [softmax(), sampled] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let whole = run_in(folders[0].path(), config, usize::MAX);
        assert_eq!(whole.result.unwrap(), Outcome::Done);
        assert_eq!(whole.asked.len(), 192);

        // Fails in the second round, five pictures into its third batch; then not at all.
        let failed = run_in(folders[1].path(), config, 64 + 2 * 16 + 5);
        assert!(matches!(failed.result, Err(Error::Reward(e)) if e.is_transient()));
        assert!(folders[1].path().join("epoch-000001-partial").is_dir());
        let resumed = run_in(folders[1].path(), config, usize::MAX);
        assert_eq!(resumed.result.unwrap(), Outcome::Done);

        let asked = [failed.asked, resumed.asked].concat();
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
}
