//! `ddpo eval` and the queue of `ddpo reproduce`, on the tiny model.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ddpo_tests::{command, ddpo, text, tiny_model};

/// What makes runs short.
fn short() -> Vec<String> {
    let model = format!("model.path={}", tiny_model().display());
    let set = [
        model.as_str(),
        "run.epochs=2",
        "rl.samples_per_epoch=8",
        "rwr.samples_per_round=8",
        "rwr.samples_per_prompt=4",
        "rwr.updates_per_round=2",
        "rwr.batch=4",
        "sampler.n_steps=3",
        "eval.samples=6",
        "eval.every=2",
        "progress.every=2",
        // Factors start at nothing: a checkpoint that was not read would show as rows that do not change.
        "policy.train=lora",
    ];
    set.iter()
        .flat_map(|pair| ["--set".to_owned(), (*pair).to_owned()])
        .collect()
}

fn run(out: &Path) {
    let mut args = vec!["run".to_owned(), "configs/compressibility.toml".to_owned()];
    args.extend(short());
    args.extend(["--out".to_owned(), text(out).to_owned()]);
    ddpo(args).expect(0, &["the held-out judge does not measure"]);
}

#[test]
fn a_finished_run_is_measured_again_to_the_same_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    run(&out);
    let own = fs::read_to_string(out.join("eval.csv")).expect("the run's evaluations");
    assert!(own.starts_with(
        "epoch,reward_queries,set,sample_id,prompt,reward,jpeg-size,colourfulness,edges,diversity\n"
    ));
    let ended = ddpo(["eval", text(&out)]).expect(0, &[]);
    let again = out.join("evaluations/animals-seed-42/eval.csv");
    assert_eq!(own, fs::read_to_string(&again).expect("rows"));
    for part in ["same prompts, same noise", "95 % interval", "diversity"] {
        assert!(ended.stdout.contains(part), "{}", ended.stdout);
    }

    // Other prompts than those of the run.
    ddpo(["eval", text(&out), "--prompts", "objects", "--samples", "3"]).expect(0, &[]);
    let others = fs::read_to_string(out.join("evaluations/objects-seed-42/eval.csv"));
    let others = others.expect("rows");
    assert_eq!(others.lines().count(), 1 + 2 * 3);
    assert!(others.contains("Toaster"), "{others}");

    ddpo(["eval", text(&out), "--prompts", "object"])
        .expect(2, &["--prompts object", "did you mean \"objects\"?"]);
    ddpo(["eval", text(&out), "--epoch", "7"]).expect(3, &["no checkpoint after epoch 7"]);
    ddpo(["eval", text(folder.path())]).expect(3, &["is no run", "config.toml"]);
}

fn reproduce(out: &Path) -> Command {
    let mut args: Vec<String> = [
        "reproduce",
        "configs/cfg-ablation.toml",
        "configs/aesthetic.toml",
    ]
    .map(str::to_owned)
    .into();
    args.extend(short());
    args.extend(["--algorithms", "ddpo-sf,rwr", "--out", text(out)].map(str::to_owned));
    command(args)
}

#[test]
fn several_experiments_are_one_queue_that_goes_on_and_ends_in_an_index() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("all");
    let mut child = reproduce(&out);
    let child = child.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.spawn().expect("ddpo starts");
    let first = out.join("cfg-ablation/ddpo-sf/seed-42/report.html");
    let begin = Instant::now();
    while !first.exists() {
        assert!(begin.elapsed() < Duration::from_secs(180), "no first run");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a running process");
    child.wait().expect("a process");
    let written = |path: &Path| {
        fs::metadata(path)
            .and_then(|it| it.modified())
            .expect("a file")
    };
    let metrics = out.join("cfg-ablation/ddpo-sf/seed-42/metrics.csv");
    let before = written(&metrics);

    // Nothing was learned in two epochs of noise that a claim could stand on.
    let ended = ddpo_tests::ended(&mut reproduce(&out));
    assert_eq!(ended.code, 10, "{}", ended.stderr);
    // What was finished is not run again.
    assert_eq!(before, written(&metrics));
    assert!(
        ended
            .stderr
            .contains("stands in for the paper's reward `aesthetic`")
    );
    for part in ["cfg-ablation", "Fig. 10", "aesthetic", "Fig. 4", "index: "] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let index = fs::read_to_string(out.join("index.html")).expect("an index");
    for part in [
        "Finding of the paper",
        "./cfg-ablation/report.html",
        "./aesthetic/report.html",
        "Stand-in reward.",
    ] {
        assert!(index.contains(part), "{part}");
    }
    assert!(!index.contains("Not finished"));
    // Each experiment has two figures of the reward and four of the panel, whose judge does not know this model's world.
    assert_eq!(index.matches("<svg").count(), 2 * (2 + 4));
    assert_eq!(index.matches("Images through training").count(), 2);

    // Of other settings than these no folder is taken, and all are named before one of them runs.
    let refused = ddpo_tests::ended(reproduce(&out).args(["--set", "rl.lr=1e-5"]));
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for part in [
        "cfg-ablation/ddpo-sf",
        "cfg-ablation/rwr",
        "aesthetic/ddpo-sf",
        "aesthetic/rwr",
        "`rl.lr` was",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
}
