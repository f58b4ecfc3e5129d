//! Rewards on threads of their own, so that images are scored while the next batch is sampled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ddpo_reward::{Images, Prompt, Reward, RewardError, RewardInfo, Score};

use crate::{Error, Result};

/// How long a reward that fails for now is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// No new attempt begins after this long.
    pub deadline: Duration,
    /// Pause before the second attempt; doubles each time.
    pub pause: Duration,
}

impl Retry {
    /// One attempt.
    pub fn never() -> Self {
        Self {
            deadline: Duration::ZERO,
            pause: Duration::ZERO,
        }
    }
}

/// How often somebody who waits looks whether to go on waiting.
const LOOK: Duration = Duration::from_millis(50);

/// How long threads that are still at work are waited for at the end.
const FAREWELL: Duration = Duration::from_millis(500);

struct Job {
    number: u64,
    images: Arc<Images>,
    prompts: Vec<Prompt>,
    answer: Sender<(Vec<Option<Score>>, Option<RewardError>)>,
}

/// Threads that score images.
#[derive(Debug)]
pub struct RewardWorker {
    name: String,
    info: RewardInfo,
    parts: Vec<String>,
    jobs: Option<Sender<Job>>,
    n_submitted: AtomicU64,
    /// Jobs with a lower number are dropped unless they have begun.
    dropped_below: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl RewardWorker {
    /// One thread for each of `rewards`, which must be copies of one reward.
    ///
    /// # Errors
    /// [`Error::Config`] without a reward, [`Error::Io`] if a thread cannot start.
    pub fn new(rewards: Vec<Box<dyn Reward>>, retry: Retry) -> Result<Self> {
        let first = rewards
            .first()
            .ok_or_else(|| Error::config("reward threads", 0, "must be at least 1"))?;
        let (name, info, parts) = (first.name().to_owned(), first.info(), first.parts());
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let dropped_below = Arc::new(AtomicU64::new(0));
        let threads = rewards
            .into_iter()
            .map(|reward| {
                let (queue, dropped_below) = (Arc::clone(&queue), Arc::clone(&dropped_below));
                std::thread::Builder::new()
                    .name(format!("reward {name}"))
                    .spawn(move || work(reward, &queue, &dropped_below, retry))
                    .map_err(Error::io("start a thread for reward", &name))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            name,
            info,
            parts,
            jobs: Some(jobs),
            n_submitted: AtomicU64::new(0),
            dropped_below,
            threads,
        })
    }

    /// Name of the reward.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the reward measures.
    pub fn info(&self) -> &RewardInfo {
        &self.info
    }

    /// Names of its parts; empty if it has none.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Puts a batch in the queue and returns at once.
    pub fn submit(&self, images: Arc<Images>, prompts: Vec<Prompt>) -> Ticket {
        let (answer, receiver) = channel();
        let n = images.len();
        let job = Job {
            number: self.n_submitted.fetch_add(1, Ordering::Relaxed),
            images,
            prompts,
            answer,
        };
        // Without threads the job is dropped here, and the ticket reports that.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
        Ticket {
            receiver,
            n,
            n_parts: self.parts.len(),
            reward: self.name.clone(),
        }
    }

    /// Drops the batches that wait in the queue; those that are being scored are finished.
    pub fn drop_queued(&self) {
        let next = self.n_submitted.load(Ordering::Relaxed);
        self.dropped_below.fetch_max(next, Ordering::Relaxed);
    }
}

impl Drop for RewardWorker {
    /// Idle threads end here. One that waits for a service is left to itself: nobody wants its answer any more,
    /// and its deadline may be minutes away.
    fn drop(&mut self) {
        self.drop_queued();
        self.jobs = None;
        let begin = Instant::now();
        while begin.elapsed() < FAREWELL && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            // A thread that panicked has already been reported through its ticket.
            let _ = thread.join();
        }
    }
}

/// The promise of a batch's rewards.
#[derive(Debug)]
pub struct Ticket {
    receiver: Receiver<(Vec<Option<Score>>, Option<RewardError>)>,
    n: usize,
    n_parts: usize,
    reward: String,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Answered {
    /// What is known of each image; every score is finite.
    pub scores: Vec<Option<Score>>,
    /// Why some are not known.
    pub error: Option<Error>,
}

impl Ticket {
    /// Waits for the rewards: one finite number per image.
    ///
    /// # Errors
    /// [`Error::Reward`] with what the reward reports, [`Error::BadReward`] for a number that is not finite,
    /// [`Error::RewardGone`] if the reward panicked.
    pub fn wait(self) -> Result<Vec<f32>> {
        let mut answered = self.settle(&|| true);
        match answered.error.take() {
            Some(error) => Err(error),
            None => Ok(answered.scores.iter().flatten().map(|s| s.value).collect()),
        }
    }

    /// Waits as long as `go_on` says so, and hands out what is known then: all scores, or some and the reason
    /// why not all. What came before a failure is good.
    pub fn settle(self, go_on: &dyn Fn() -> bool) -> Answered {
        let none = |error| Answered {
            scores: vec![None; self.n],
            error: Some(error),
        };
        loop {
            match self.receiver.recv_timeout(LOOK) {
                Ok((scores, error)) => return self.check(scores, error),
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                Err(RecvTimeoutError::Timeout) => return none(Error::Stopped),
                Err(RecvTimeoutError::Disconnected) => {
                    let reward = self.reward.clone();
                    return none(Error::RewardGone { reward });
                }
            }
        }
    }

    fn check(&self, mut scores: Vec<Option<Score>>, error: Option<RewardError>) -> Answered {
        let is_bad = |score: &Score| {
            !score.value.is_finite() || score.parts.iter().any(|part| !part.is_finite())
        };
        let mut bad = None;
        for (sample, score) in scores.iter_mut().enumerate() {
            // Parts of another number than announced are as good as none.
            if score
                .as_ref()
                .is_some_and(|s| s.parts.len() != self.n_parts)
            {
                *score = None;
            }
            if let Some(score) = score.take_if(|score| is_bad(score)) {
                bad = bad.or(Some(Error::BadReward {
                    reward: self.reward.clone(),
                    value: score.value,
                    sample,
                }));
            }
        }
        let n_known = scores.iter().flatten().count();
        let too_few = || {
            let reason = format!("{n_known} scores for {} images", self.n);
            RewardError::permanent(&self.reward, reason).into()
        };
        let error = error.map(Error::from).or(bad);
        Answered {
            error: error.or_else(|| (n_known < self.n).then(too_few)),
            scores,
        }
    }
}

fn work(
    mut reward: Box<dyn Reward>,
    queue: &Mutex<Receiver<Job>>,
    dropped_below: &AtomicU64,
    retry: Retry,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else {
            return;
        };
        if job.number < dropped_below.load(Ordering::Relaxed) {
            continue;
        }
        let scores = score(reward.as_mut(), &job, retry);
        // Whoever asked may have given up.
        let _ = job.answer.send(scores);
    }
}

/// Asks until all is known or nothing more is to be expected; again only for what is not known yet.
fn score(
    reward: &mut dyn Reward,
    job: &Job,
    retry: Retry,
) -> (Vec<Option<Score>>, Option<RewardError>) {
    let begin = Instant::now();
    let mut pause = retry.pause;
    let mut scores: Vec<Option<Score>> = vec![None; job.images.len()];
    loop {
        let open: Vec<usize> = (0..scores.len()).filter(|&i| scores[i].is_none()).collect();
        let mut known = |at: usize, score: Score| {
            if let Some(&i) = open.get(at) {
                scores[i] = Some(score);
            }
        };
        let result = if open.len() == job.images.len() {
            reward.score_each(&job.images, &job.prompts, &mut known)
        } else {
            let prompts: Vec<Prompt> = open.iter().map(|&i| job.prompts[i].clone()).collect();
            reward.score_each(&job.images.select(&open), &prompts, &mut known)
        };
        match result {
            Err(error) if error.is_transient() && begin.elapsed() + pause < retry.deadline => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return (scores, result.err()),
        }
    }
}
