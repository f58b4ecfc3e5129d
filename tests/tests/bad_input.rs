//! Bad input gets one clear message that names the file or key and the remedy, the documented exit code, and
//! leaves nothing written.

use std::fs;
use std::path::Path;

use ddpo_tests::ddpo;

const CONFIG: &str = "configs/compressibility.toml";

/// One message, in a line unless it lists several problems.
#[track_caller]
fn refused(args: &[&str], code: i32, parts: &[&str]) {
    let ended = ddpo(args).expect(code, parts);
    let messages = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("error:"))
        .count();
    assert_eq!(messages, 1, "{}", ended.stderr);
}

#[track_caller]
fn nothing_written(folder: &Path) {
    assert!(!folder.exists(), "{} was written", folder.display());
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let out = tempfile::tempdir().expect("a folder");
    let out = out.path().join("run");
    let to = out.to_str().expect("UTF-8");
    let set = "rl.learning_rte=1";
    refused(
        &["run", CONFIG, "--set", set, "--out", to],
        2,
        &["rl.learning_rte", "--set"],
    );
    refused(
        &["run", CONFIG, "--set", "run.epoch=1", "--out", to],
        2,
        &["did you mean `run.epochs`?"],
    );
    nothing_written(&out);
}

#[test]
fn a_value_out_of_range_is_named_with_its_range() {
    refused(
        &["run", CONFIG, "--set", "sampler.n_steps=0"],
        2,
        &["sampler.n_steps", "is 0", "from 1 to 1000"],
    );
}

#[test]
fn several_problems_are_told_at_once() {
    let ended = ddpo([
        "run",
        CONFIG,
        "--set",
        "rl.lr=-1",
        "--set",
        "run.epochs=many",
    ]);
    ended.expect(
        2,
        &["2 problems", "`rl.lr` is -1", "`run.epochs` is \"many\""],
    );
}

#[test]
fn a_configuration_that_is_no_toml_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broken.toml");
    fs::write(&file, "[run]\nepochs = \n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    ddpo(["run", file]).expect(2, &["broken.toml", "line 2"]);
}

#[test]
fn missing_files_and_unknown_names_are_told() {
    refused(
        &["run", "configs/nowhere.toml"],
        2,
        &["configs/nowhere.toml"],
    );
    refused(
        &["run", CONFIG, "--preset", "pockett"],
        2,
        &["did you mean `pocket`?"],
    );
    refused(
        &["reproduce", CONFIG, "--algorithms", "ddpo-iss"],
        2,
        &["`ddpo-iss`", "did you mean `ddpo-is`?"],
    );
    refused(&["reprodce", CONFIG], 2, &["'reproduce'"]);
    refused(&["run", CONFIG, "--presett", "x"], 2, &["'--preset'"]);
    let score = [
        "score",
        "--images",
        "nowhere.png",
        "--out",
        "x.csv",
        "--reward",
    ];
    refused(
        &[&score[..], &["colorfulness"]].concat(),
        2,
        &["did you mean `colourfulness`?"],
    );
    refused(
        &[&score[..], &["colourfulness"]].concat(),
        3,
        &["nowhere.png"],
    );
    refused(&["report", "configs"], 3, &["configs is no run"]);
}
