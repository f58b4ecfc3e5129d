//! A run that was stopped, in whatever way, goes on to the bytes of one that was not.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ddpo_tests::runs::same_bytes;
use ddpo_tests::{command, ddpo, text, tiny_model};

const EPOCHS: usize = 5;

/// A short run on the tiny model; each epoch takes a good fraction of a second.
fn arguments(out: &Path, set: &[&str]) -> Vec<String> {
    let mut args = vec!["run".to_owned(), "configs/compressibility.toml".to_owned()];
    let model = format!("model.path={}", tiny_model().display());
    let epochs = format!("run.epochs={EPOCHS}");
    let keep = format!("run.keep_checkpoints={EPOCHS}");
    let short = [
        "rl.samples_per_epoch=16",
        "sampler.n_steps=4",
        "progress.every=1",
        "eval.samples=4",
        "eval.every=1",
    ];
    let all = [&[model.as_str(), &epochs, &keep], &short[..], set].concat();
    args.extend(
        all.iter()
            .flat_map(|pair| ["--set".to_owned(), (*pair).to_owned()]),
    );
    args.extend(["--out".to_owned(), text(out).to_owned()]);
    args
}

fn start(out: &Path, set: &[&str]) -> Child {
    let mut command = command(arguments(out, set));
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ddpo starts")
}

/// Waits until the run has written rows for so many epochs.
fn wait_for_epochs(out: &Path, n: usize) {
    let begin = Instant::now();
    let n_rows = || {
        let table = fs::read_to_string(out.join("metrics.csv")).unwrap_or_default();
        table.lines().count().saturating_sub(1)
    };
    while n_rows() < n {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "no epoch {n} after two minutes"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn resume(out: &Path, set: &[&str]) {
    let mut args = arguments(out, set);
    args.push("--resume".to_owned());
    ddpo(args).expect(0, &["goes on after epoch"]);
}

#[test]
fn a_stopped_run_goes_on_to_the_bytes_of_one_that_was_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let [whole, killed, interrupted] =
        ["whole", "killed", "interrupted"].map(|n| folder.path().join(n));
    ddpo(arguments(&whole, &[])).expect(0, &["|ratio - 1| is at most"]);
    assert!(whole.join("eval.csv").exists());
    assert!(whole.join("samples/epoch-000003.png").exists());

    let mut child = start(&killed, &[]);
    wait_for_epochs(&killed, 2);
    child.kill().expect("a running process");
    child.wait().expect("a process");
    resume(&killed, &[]);
    same_bytes(&whole, &killed, EPOCHS);

    let mut child = start(&interrupted, &[]);
    wait_for_epochs(&interrupted, 1);
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.expect("kill starts").success());
    let status = child.wait().expect("a process");
    assert_eq!(
        status.code(),
        Some(75),
        "interrupted with a checkpoint written"
    );
    resume(&interrupted, &[]);
    same_bytes(&whole, &interrupted, EPOCHS);
}

#[test]
fn a_stopped_run_of_weighted_regression_does_so_too() {
    let set = [
        "rl.algorithm=rwr-sparse",
        "rwr.samples_per_round=16",
        "rwr.samples_per_prompt=4",
        "rwr.updates_per_round=6",
        "rwr.batch=8",
        // Moments that are kept must be in the checkpoint.
        "rwr.moments=kept",
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let [whole, killed] = ["whole", "killed"].map(|n| folder.path().join(n));
    ddpo(arguments(&whole, &set)).expect(0, &["effective samples 4"]);
    let mut child = start(&killed, &set);
    wait_for_epochs(&killed, 2);
    child.kill().expect("a running process");
    child.wait().expect("a process");
    resume(&killed, &set);
    same_bytes(&whole, &killed, EPOCHS);
}

#[test]
fn a_folder_belongs_to_one_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let mut child = start(&out, &[]);
    wait_for_epochs(&out, 1);
    ddpo(arguments(&out, &[])).expect(2, &["another run is writing to", "--out"]);
    child.kill().expect("a running process");
    child.wait().expect("a process");
    ddpo(arguments(&out, &[])).expect(2, &["has a run already", "--resume"]);
    let mut args = arguments(&out, &["rl.lr=0.5", "run.epochs=9"]);
    args.push("--resume".to_owned());
    // A longer run is the same run; another learning rate is not.
    let ended = ddpo(args).expect(2, &["`rl.lr` was ", ", is 0.5"]);
    assert!(!ended.stderr.contains("run.epochs"), "{}", ended.stderr);
}
