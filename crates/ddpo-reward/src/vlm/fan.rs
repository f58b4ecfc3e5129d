//! Concurrent requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::Result;

/// Answers of `ask(0)` to `ask(n - 1)`, on up to `width` threads, each passed on as it arrives.
///
/// After the first error no new request begins; answers to those in flight are still passed on.
pub(super) fn each<T: Send>(
    n: usize,
    width: usize,
    ask: impl Fn(usize, &AtomicBool) -> Result<T> + Sync,
    known: &mut dyn FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (answers, queue) = channel();
    std::thread::scope(|scope| {
        for _ in 0..width.min(n) {
            let (answers, next, stop, ask) = (answers.clone(), &next, &stop, &ask);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= n {
                        return;
                    }
                    let answer = ask(i, stop);
                    if answer.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if answers.send((i, answer)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(answers);
        let mut first = Ok(());
        for (i, answer) in queue {
            let result = answer.and_then(|answer| known(i, answer));
            if result.is_err() && first.is_ok() {
                stop.store(true, Ordering::Relaxed);
                first = result;
            }
        }
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RewardError;

    #[test]
    fn answers_before_and_beside_an_error_are_kept() {
        let mut seen = Vec::new();
        let ask = |i: usize, _: &AtomicBool| match i {
            5 => Err(RewardError::permanent("r", "five")),
            i => Ok(i * i),
        };
        let result = each(100, 4, ask, &mut |i, square| {
            seen.push((i, square));
            Ok(())
        });
        assert!(result.unwrap_err().to_string().contains("five"));
        assert!(seen.len() >= 5 - 3 && seen.len() < 100);
        assert!(seen.iter().all(|&(i, square)| square == i * i));
    }

    #[test]
    fn nothing_to_ask_is_no_error() {
        let ask = |_: usize, _: &AtomicBool| Ok(());
        each(0, 4, ask, &mut |_, ()| panic!("no answer")).unwrap();
    }
}
