//! Several runs at the same time, each on a thread of its own.
//!
//! One single-threaded run a core is faster than one run on all cores, and gives the same bytes however many run
//! side by side. All of them share the process's stop flag.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ddpo_train::{Outcome, StopFlag};

use crate::config::Plan;
use crate::failure::{Failure, Result};

/// How many of these fit the machine side by side: as many as it has cores for, one on a GPU.
pub fn jobs(plans: &[&Plan]) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = plans.iter().map(|plan| plan.run.threads).max().unwrap_or(1);
    match plans
        .iter()
        .all(|plan| plan.model.device == tch::Device::Cpu)
    {
        true => (cores / threads).clamp(1, plans.len().max(1)),
        false => 1,
    }
}

/// Calls `run` with 0 to `n` − 1, in that order, at most `jobs` at a time; whether all of them were done.
///
/// The first failure asks those that run to stop, keeps others from starting, and is returned.
pub fn run(
    jobs: usize,
    n: usize,
    stop: &StopFlag,
    run: &(dyn Fn(usize) -> Result<Outcome> + Sync),
) -> Result<bool> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let unfinished = AtomicUsize::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            if at >= n {
                return;
            }
            if stop.requested() {
                unfinished.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            match run(at) {
                Ok(Outcome::Done) => {}
                Ok(_) => {
                    unfinished.fetch_add(1, Ordering::SeqCst);
                }
                Err(failure) => {
                    stop.request();
                    let mut first = failed.lock().unwrap_or_else(|e| e.into_inner());
                    first.get_or_insert(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, n.max(1)) {
            scope.spawn(work);
        }
    });
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(failure) => Err(failure),
        None => Ok(unfinished.into_inner() == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn every_run_is_called_once_whatever_the_number_of_jobs() {
        for jobs in [1, 3, 10] {
            let calls = Mutex::new(vec![0; 7]);
            let all = run(jobs, 7, &StopFlag::new(), &|at| {
                calls.lock().expect("no panic")[at] += 1;
                Ok(Outcome::Done)
            });
            assert!(all.is_ok_and(|done| done));
            assert_eq!(calls.into_inner().expect("no panic"), [1; 7]);
        }
    }

    #[test]
    fn a_failure_keeps_others_from_starting_and_is_returned() {
        let (stop, calls) = (StopFlag::new(), AtomicUsize::new(0));
        let ended = run(1, 5, &stop, &|at| {
            calls.fetch_add(1, Ordering::SeqCst);
            match at {
                1 => Err(Failure::new(Exit::Numerical, "not finite")),
                _ => Ok(Outcome::Done),
            }
        });
        assert_eq!(ended.map_err(|f| f.exit).unwrap_err(), Exit::Numerical);
        assert_eq!(calls.into_inner(), 2);
    }

    #[test]
    fn an_interrupted_run_leaves_the_whole_unfinished() {
        let stop = StopFlag::new();
        let ended = run(2, 4, &stop, &|_| {
            stop.request();
            Ok(Outcome::Interrupted { checkpoint: None })
        });
        assert!(ended.is_ok_and(|done| !done));
    }
}
