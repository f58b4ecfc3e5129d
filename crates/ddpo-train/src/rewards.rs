//! Rewards on threads of their own, so that pictures are scored while the next batch is sampled.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ddpo_reward::{Images, Prompt, Reward, RewardError, RewardInfo};

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

struct Job {
    images: Arc<Images>,
    prompts: Vec<Prompt>,
    answer: Sender<Result<Vec<f32>, RewardError>>,
}

/// Threads that score pictures.
#[derive(Debug)]
pub struct RewardWorker {
    name: String,
    info: RewardInfo,
    jobs: Option<Sender<Job>>,
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
        let (name, info) = (first.name().to_owned(), first.info());
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let threads = rewards
            .into_iter()
            .map(|reward| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new()
                    .name(format!("reward {name}"))
                    .spawn(move || work(reward, &queue, retry))
                    .map_err(Error::io("start a thread for reward", &name))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            name,
            info,
            jobs: Some(jobs),
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

    /// Puts a batch in the queue and returns at once.
    pub fn submit(&self, images: Arc<Images>, prompts: Vec<Prompt>) -> Ticket {
        let (answer, receiver) = channel();
        let n = images.len();
        let job = Job {
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
            reward: self.name.clone(),
        }
    }
}

impl Drop for RewardWorker {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has already been reported through its ticket.
            let _ = thread.join();
        }
    }
}

/// The promise of a batch's rewards.
#[derive(Debug)]
pub struct Ticket {
    receiver: Receiver<Result<Vec<f32>, RewardError>>,
    n: usize,
    reward: String,
}

impl Ticket {
    /// Waits for the rewards: one finite number an image.
    ///
    /// # Errors
    /// [`Error::Reward`] with what the reward reports, [`Error::BadReward`] for a number that is not finite,
    /// [`Error::RewardGone`] if the reward panicked.
    pub fn wait(self) -> Result<Vec<f32>> {
        let Ok(answer) = self.receiver.recv() else {
            return Err(Error::RewardGone {
                reward: self.reward,
            });
        };
        let scores = answer?;
        if scores.len() != self.n {
            let reason = format!("{} scores for {} images", scores.len(), self.n);
            return Err(RewardError::permanent(self.reward, reason).into());
        }
        match scores.iter().position(|score| !score.is_finite()) {
            None => Ok(scores),
            Some(sample) => Err(Error::BadReward {
                reward: self.reward,
                value: scores[sample],
                sample,
            }),
        }
    }
}

fn work(mut reward: Box<dyn Reward>, queue: &Mutex<Receiver<Job>>, retry: Retry) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else {
            return;
        };
        let scores = score(reward.as_mut(), &job, retry);
        // Whoever asked may have given up.
        let _ = job.answer.send(scores);
    }
}

fn score(reward: &mut dyn Reward, job: &Job, retry: Retry) -> Result<Vec<f32>, RewardError> {
    let begin = Instant::now();
    let mut pause = retry.pause;
    loop {
        match reward.score(&job.images, &job.prompts) {
            Err(error) if error.is_transient() && begin.elapsed() + pause < retry.deadline => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
}
