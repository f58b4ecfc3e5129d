//! What runs have written, and whether it is the same.

use std::fs;
use std::path::Path;

/// `metrics.csv` without its times.
pub fn metrics(out: &Path) -> Vec<Vec<String>> {
    let table = fs::read_to_string(out.join("metrics.csv")).expect("metrics");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    let is_time: Vec<bool> = rows[0]
        .iter()
        .map(|name| name.starts_with("time/"))
        .collect();
    let kept = |row: &Vec<&str>| {
        let cells = row.iter().zip(&is_time).filter(|(_, is_time)| !**is_time);
        cells.map(|(cell, _)| (*cell).to_owned()).collect()
    };
    rows.iter().map(kept).collect()
}

/// Checks that two runs of so many epochs have the same rows, weights, moments and statistics, byte for byte.
#[track_caller]
pub fn same_bytes(a: &Path, b: &Path, epochs: usize) {
    assert_eq!(metrics(a), metrics(b), "metrics.csv");
    assert_eq!(metrics(a).len(), epochs + 1);
    let last = format!("checkpoints/epoch-{epochs:06}");
    let weights = [
        "policy.safetensors",
        "optimizer.safetensors",
        "algorithm.json",
    ];
    let mut files: Vec<String> = weights
        .iter()
        .map(|file| format!("{last}/{file}"))
        .collect();
    files.push("samples.csv".to_owned());
    // Evaluations and progress images, where there are any.
    let images = (0..=epochs).map(|epoch| format!("samples/epoch-{epoch:06}.png"));
    let more = images.chain(["eval.csv".to_owned()]);
    files.extend(more.filter(|file| a.join(file).exists() || b.join(file).exists()));
    for file in files {
        let [left, right] = [a, b].map(|run| fs::read(run.join(&file)).expect(&file));
        assert!(left == right, "{file} differs");
    }
}
