//! Overlap of sampling and scoring: `ddpo run` against a chat server that takes a fixed time for each answer.
//!
//! The lower bound of an epoch is the longer of the two: sampling alone, or `n · latency / N` for `n` questions of
//! which the server answers `N` concurrently. It is compared with the time from the epoch's first latent to its last
//! score.

use std::path::Path;
use std::time::Duration;

use ddpo_benches::Result;
use ddpo_tests::chat_server::{ChatServer, Reply};
use ddpo_tests::{ddpo, text};

const SAMPLES: usize = 128;
const BATCH: usize = 8;
const IN_FLIGHT: usize = 8;
/// Largest allowed ratio to the longer of the two.
const MOST: f64 = 1.10;

/// Seconds of an epoch.
#[derive(Clone, Copy)]
struct Times {
    sampling: f64,
    waiting: f64,
}

/// An epoch of the pocket model.
fn run(out: &Path, set: &[String]) -> Result<Times> {
    let fixed = [
        "run.epochs=1".to_owned(),
        format!("rl.samples_per_epoch={SAMPLES}"),
        format!("sampler.batch={BATCH}"),
        "sampler.n_steps=4".to_owned(),
        "rl.updates_per_epoch=1".to_owned(),
        "eval.sets=[]".to_owned(),
        "progress.prompts=[]".to_owned(),
    ];
    let mut args = vec!["run", "configs/compressibility.toml", "--out", text(out)];
    args.extend(fixed.iter().chain(set).flat_map(|pair| ["--set", pair]));
    let ended = ddpo(args);
    if ended.code != 0 {
        return Err(ended.stderr.into());
    }
    let table = std::fs::read_to_string(out.join("metrics.csv"))?;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split(',').collect()).collect();
    let last = |name: &str| -> Result<f64> {
        let at = rows[0].iter().position(|column| *column == name);
        let at = at.ok_or_else(|| format!("metrics.csv has no column {name}"))?;
        Ok(rows[rows.len() - 1][at].parse()?)
    };
    Ok(Times {
        sampling: last("time/sample_s")?,
        waiting: last("time/reward_wait_s")?,
    })
}

fn against(folder: &Path, latency: Duration) -> Result<(Times, usize)> {
    let server = ChatServer::start_at(0, latency, |_| Reply::Says("a cat".to_owned()));
    let set = [
        "reward.kind=vlm-vqa".to_owned(),
        format!("reward.vlm.url={}", server.url()),
        "reward.vlm.model=m".to_owned(),
        format!("reward.vlm.in_flight={IN_FLIGHT}"),
    ];
    let times = run(&folder.join(format!("{}-ms", latency.as_millis())), &set)?;
    Ok((times, server.most_in_flight()))
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let alone = run(
        &folder.path().join("alone"),
        &["reward.kind=colourfulness".to_owned()],
    )?;
    println!(
        "{SAMPLES} images in batches of {BATCH}, {IN_FLIGHT} requests in flight; sampling alone {:.2} s",
        alone.sampling
    );
    println!(
        "scoring alone | sampling | waiting after it | both | of the longer | sampling, of alone"
    );
    let mut worst: f64 = 0.0;
    for part in [0.4, 1.0, 2.5] {
        let latency =
            Duration::from_secs_f64(part * alone.sampling * IN_FLIGHT as f64 / SAMPLES as f64);
        let (times, most) = against(folder.path(), latency)?;
        let scoring = latency.as_secs_f64() * SAMPLES as f64 / IN_FLIGHT as f64;
        let both = times.sampling + times.waiting;
        let ratio = both / scoring.max(times.sampling);
        worst = worst.max(ratio);
        println!(
            "{scoring:11.2} s | {:6.2} s | {:14.2} s | {both:5.2} s | {ratio:12.3} | {:.3}",
            times.sampling,
            times.waiting,
            times.sampling / alone.sampling
        );
        if most != IN_FLIGHT {
            return Err(format!("{most} requests in flight, not {IN_FLIGHT}").into());
        }
    }
    if worst > MOST {
        return Err(format!("{worst:.3} times the longer of the two, more than {MOST}").into());
    }
    Ok(())
}
