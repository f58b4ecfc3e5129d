//! What a reward said before it failed, and rewards that nobody waits for any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ddpo_reward::{Images, Prompt, Reward, RewardError};
use ddpo_train::{Error, Retry, RewardWorker};

/// Scores one image after the other; fails at the first byte it is told to, once each.
struct OneByOne {
    fails_at: Vec<u8>,
    asked: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Reward for OneByOne {
    fn name(&self) -> &str {
        "one-by-one"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>, RewardError> {
        ddpo_reward::collect(self, images, prompts)
    }

    fn score_each(
        &mut self,
        images: &Images,
        _: &[Prompt],
        known: &mut dyn FnMut(usize, ddpo_reward::Score),
    ) -> Result<(), RewardError> {
        for (i, rgb) in images.iter_bytes().enumerate() {
            if let Some(at) = self.fails_at.iter().position(|&byte| byte == rgb[0]) {
                self.fails_at.remove(at);
                return Err(RewardError::transient("one-by-one", rgb[0]));
            }
            self.asked.lock().unwrap().push(rgb[0]);
            known(i, f32::from(rgb[0]).into());
        }
        Ok(())
    }
}

#[test]
fn what_was_answered_before_a_failure_is_kept_and_not_asked_again() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let batch = || {
        let images = Images::from_bytes(4, 1, 1, (1..=4).flat_map(|b| [b; 3]).collect()).unwrap();
        (
            Arc::new(images),
            ddpo_reward::prompts::numbered(["a", "b", "c", "d"]),
        )
    };
    let worker = |retry| {
        let (fails_at, asked) = (vec![3, 4], Arc::clone(&asked));
        RewardWorker::new(vec![Box::new(OneByOne { fails_at, asked })], retry).unwrap()
    };
    let submit = |worker: &RewardWorker| {
        let (images, prompts) = batch();
        worker.submit(images, prompts)
    };
    let answered = submit(&worker(Retry::never())).settle(&|| true);
    let values = |scores: &[Option<ddpo_reward::Score>]| -> Vec<Option<f32>> {
        scores
            .iter()
            .map(|score| score.as_ref().map(|s| s.value))
            .collect()
    };
    assert_eq!(values(&answered.scores), [Some(1.0), Some(2.0), None, None]);
    assert!(answered.error.is_some_and(|error| error.is_of_reward()));

    asked.lock().unwrap().clear();
    let patient = Retry {
        deadline: Duration::from_secs(5),
        pause: Duration::from_millis(1),
    };
    assert_eq!(
        submit(&worker(patient)).wait().unwrap(),
        [1.0, 2.0, 3.0, 4.0]
    );
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3, 4], "each once");
}

#[test]
fn queued_batches_can_be_dropped_and_nobody_waits_for_ever() {
    struct Hangs;
    impl Reward for Hangs {
        fn name(&self) -> &str {
            "hangs"
        }
        fn score(&mut self, _: &Images, _: &[Prompt]) -> Result<Vec<f32>, RewardError> {
            std::thread::sleep(Duration::from_secs(3600));
            Ok(Vec::new())
        }
    }
    let begin = Instant::now();
    let worker = RewardWorker::new(vec![Box::new(Hangs)], Retry::never()).unwrap();
    let images = Arc::new(Images::from_bytes(1, 1, 1, vec![0; 3]).unwrap());
    let submit = || worker.submit(Arc::clone(&images), vec![Prompt::new(0, "a")]);
    let (first, second) = (submit(), submit());
    let stopped = first.settle(&|| begin.elapsed() < Duration::from_millis(200));
    assert!(matches!(stopped.error, Some(Error::Stopped)));
    worker.drop_queued();
    drop(worker);
    drop(second);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "the end waits for the reward"
    );
}
