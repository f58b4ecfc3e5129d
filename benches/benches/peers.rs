//! Figures to be set beside a peer's: medians of single calls, and the ratio to tch's optimiser, in turns.
//!
//! `benches/peers/diffusers_unet.py` prints the same lines for the same work in Python.

use std::time::Instant;

use ddpo_benches::{Optimizers, Pocket, Result};
use ddpo_train::Policy;

fn main() -> Result<()> {
    // `cargo bench` says `--bench`; anything else only asks whether it runs.
    let timed = std::env::args().any(|arg| arg == "--bench");
    let n = if timed { 15 } else { 1 };
    println!("threads: {}", tch::get_num_threads());
    let pocket = Pocket::load()?;

    let pairs = pocket.pairs(64)?;
    let forward = seconds(n, || pocket.predict(&pairs).map(drop))?;
    print("guided forward, batch 64", &forward);
    let pairs = pocket.pairs(32)?;
    let accumulate = seconds(n, || pocket.accumulate(&pairs))?;
    print("guided accumulate, micro-batch 32", &accumulate);

    let mut both = Optimizers::new(pocket.policy.params())?;
    let (mut fused, mut peer) = (Vec::new(), Vec::new());
    for turn in 0..2 * n {
        both.refill();
        let begin = Instant::now();
        both.step_ours()?;
        let ours = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        both.step_peer();
        // The first turn makes the state.
        if turn > 0 {
            fused.push(ours);
            peer.push(begin.elapsed().as_secs_f64());
        }
    }
    print("adamw step, fused", &fused);
    print("adamw step, tch nn::AdamW", &peer);
    println!("adamw, fused / tch: {:.3}", median(&fused) / median(&peer));
    Ok(())
}

/// Durations of `n` calls after one that is not counted.
fn seconds(n: usize, mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    call()?;
    let timed = |_| {
        let begin = Instant::now();
        call()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    (0..n).map(timed).collect()
}

fn print(what: &str, seconds: &[f64]) {
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let (median, least) = (1e3 * median(seconds), 1e3 * least);
    println!("{what}: median {median:.2} ms, least {least:.2} ms");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
