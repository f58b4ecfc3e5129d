//! Comparison with peers: medians of single calls, and the ratio to tch's optimiser in alternation.
//!
//! Each line has wall-clock times and the mean CPU time of the calling thread, which is the one to compare on a busy
//! machine; with OMP_NUM_THREADS=1 it covers all work.
//! `benches/peers/diffusers_unet.py` prints the same lines for the same work in Python.

use std::time::Instant;

use ddpo_benches::{Optimizers, Pocket, Result};
use ddpo_train::Policy;

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`; anything else only checks that it runs.
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
        let ours = time(|| both.step_ours())?;
        let theirs = time(|| {
            both.step_peer();
            Ok(())
        })?;
        // The first call allocates the state.
        if turn > 0 {
            fused.push(ours);
            peer.push(theirs);
        }
    }
    print("adamw step, fused", &fused);
    print("adamw step, tch nn::AdamW", &peer);
    println!(
        "adamw, fused / tch: wall {:.2}, cpu {:.2}",
        median_wall(&fused) / median_wall(&peer),
        mean_cpu(&fused) / mean_cpu(&peer)
    );
    Ok(())
}

/// Duration of a call, in seconds.
struct Times {
    wall: f64,
    /// CPU time of the calling thread; zero if the system does not report it.
    cpu: f64,
}

fn time(call: impl FnOnce() -> Result<()>) -> Result<Times> {
    let (begin, on_cpu) = (Instant::now(), cpu_seconds());
    call()?;
    Ok(Times {
        wall: begin.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - on_cpu,
    })
}

/// CPU time of this thread so far; Linux counts it in nanoseconds.
fn cpu_seconds() -> f64 {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = counts.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) * 1e-9
}

/// `n` calls after one warm-up call.
fn seconds(n: usize, mut call: impl FnMut() -> Result<()>) -> Result<Vec<Times>> {
    call()?;
    (0..n).map(|_| time(&mut call)).collect()
}

fn print(what: &str, times: &[Times]) {
    let least = times.iter().map(|t| t.wall).fold(f64::INFINITY, f64::min);
    println!(
        "{what}: median {:.2} ms, least {:.2} ms, cpu {:.2} ms",
        1e3 * median_wall(times),
        1e3 * least,
        1e3 * mean_cpu(times)
    );
}

fn median_wall(times: &[Times]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|t| t.wall).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The counter has a resolution of some milliseconds: means are accurate where single differences are not.
fn mean_cpu(times: &[Times]) -> f64 {
    times.iter().map(|t| t.cpu).sum::<f64>() / times.len() as f64
}
