//! What a run draws depends on its seed alone: not on batches, and not on the folder or the order of keys.

use std::fs;
use std::path::Path;

use ddpo_tests::{ddpo, text, tiny_model};

/// One epoch on the tiny model; the rows of `samples.csv`, with rewards as numbers.
fn samples(out: &Path, set: &[&str]) -> Vec<(String, f64)> {
    let model = format!("model.path={}", tiny_model().display());
    let short = [
        "run.epochs=1",
        "rl.samples_per_epoch=16",
        "eval.samples=4",
        "sampler.n_steps=6",
    ];
    let mut args = vec!["run", "configs/aesthetic.toml", "--out", text(out)];
    args.extend(
        [model.as_str()]
            .iter()
            .chain(&short)
            .chain(set)
            .flat_map(|pair| ["--set", pair]),
    );
    ddpo(args).expect(0, &[]);
    let table = fs::read_to_string(out.join("samples.csv")).expect("samples");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[..3].join(","), cells[3].parse().expect("a reward"))
    };
    table.lines().skip(1).map(row).collect()
}

#[test]
fn samples_do_not_depend_on_the_sampling_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = samples(&folder.path().join("16"), &["sampler.batch=16"]);
    assert_eq!(whole.len(), 16);
    for batch in ["8", "5"] {
        let set = format!("sampler.batch={batch}");
        let parts = samples(&folder.path().join(batch), &[&set]);
        for ((key, reward), (key_of_part, reward_of_part)) in whole.iter().zip(&parts) {
            assert_eq!(key, key_of_part);
            let error = (reward - reward_of_part).abs() / reward.abs();
            assert!(
                error <= 1e-5,
                "batch {batch}, {key}: {reward} and {reward_of_part}"
            );
        }
    }
}

#[test]
fn another_seed_draws_other_samples_and_the_same_seed_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, again] = ["first", "again"].map(|name| samples(&folder.path().join(name), &[]));
    let other = samples(&folder.path().join("other"), &["run.seed=43"]);
    assert_eq!(first, again);
    assert_ne!(first, other);
}
