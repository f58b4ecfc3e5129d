//! Every feature of ddpo-reward by itself, and ddpo-encoder: their examples are built with nothing else, and run. The
//! examples of the other libraries, which check themselves. And the example that measures an iteration, which says what
//! it cannot measure.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ddpo_tests::chat_server::{ChatServer, Reply};
use ddpo_tests::scoring::small_aesthetic;
use ddpo_tests::{Ended, cargo, ended, golden, text, tiny_model};

/// The folder `target/PROFILE` that this test runs from.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2);
    profile.expect("target/PROFILE/deps/test").to_owned()
}

/// Builds an example with these features alone, and runs it.
fn example(package: &str, features: &str, name: &str, args: &[&str]) -> Ended {
    let mut cargo = cargo(&profile(), &["run", "--quiet"]);
    cargo.args(["--package", package, "--example", name]);
    cargo.args(["--no-default-features", "--features", features]);
    ended(cargo.arg("--").args(args)).expect(0, &[])
}

/// What the example of one feature of ddpo-reward prints.
fn reward(feature: &str, name: &str, args: &[&str]) -> String {
    example("ddpo-reward", feature, name, args).stdout
}

/// The folder of all examples, built as the workspace's tests are, so that next to them nothing is built twice.
fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let mut cargo = cargo(
            &profile(),
            &["build", "--quiet", "--workspace", "--examples"],
        );
        let status = cargo.status().expect("cargo starts");
        assert!(status.success(), "examples do not build");
        profile().join("examples")
    })
}

/// Runs an example, which must end well and print this; what it printed in all.
#[track_caller]
fn says(name: &str, args: &[&str], key: &str) -> String {
    let mut command = Command::new(built().join(name));
    command.args(args).env("OMP_NUM_THREADS", "1");
    let shown = ended(&mut command).expect(0, &[]).stdout;
    assert!(shown.contains(key), "{name}: `{key}` is not in: {shown}");
    shown
}

fn number(text: &str) -> f64 {
    text.trim().parse().expect("a number")
}

/// A small network each, from the golden files.
#[test]
fn networks_score_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let clip = folder.path().join("clip");
    small_aesthetic(&clip);
    let head = clip.join("sac+logos+ava1-l14-linearMSE.pth");
    let args = [text(&clip), text(&head)];
    assert!(number(&reward("aesthetic", "aesthetic", &args)).is_finite());

    let liked = folder.path().join("image-reward");
    std::fs::create_dir(&liked).expect("a folder");
    for (from, to) in [
        ("ImageReward.safetensors", "ImageReward.pt"),
        ("config.json", "config.json"),
        ("vocab.txt", "vocab.txt"),
    ] {
        let from = golden("image_reward").join(from);
        std::fs::copy(from, liked.join(to)).expect("a copy");
    }
    let score = reward("image-reward", "image_reward", &[text(&liked)]);
    assert!(number(&score).is_finite());
}

#[test]
fn a_server_a_program_and_a_cache_are_asked_alone() {
    let server = ChatServer::start(|asked| {
        Reply::Says(match asked.question.starts_with("How many") {
            true => "six of them".to_owned(),
            false => "a lion".to_owned(),
        })
    });
    let asked = reward("vlm", "vlm", &[&server.url(), "tiny"]);
    assert_eq!(asked.trim(), "0.5 for: six of them | a lion");

    let script = "while read -r line; do echo '{\"score\": 0.25}'; done";
    let scores = reward("command", "command", &["sh", "-c", script]);
    assert_eq!(scores, "night: 0.25\nsnow: 0.25\n");

    let folder = tempfile::tempdir().expect("a folder");
    let scores = reward("cache,jpeg", "cache", &[text(folder.path())]);
    let lines: Vec<&str> = scores.lines().collect();
    let [first, again] = lines.as_slice() else {
        panic!("{scores}");
    };
    let same = first.strip_prefix("Compute: ").expect("a score");
    assert_eq!(again.strip_prefix("Fail: "), Some(same));
}

#[test]
fn what_needs_no_weights_runs_alone() {
    let scores = reward("jpeg", "composite", &[]);
    assert!(scores.lines().count() > 0, "{scores}");
    let scores = reward("", "own_reward", &[]);
    assert_eq!(scores, "night: 255\nsnow: 0\n");
}

/// Against bert-score 0.3.13. Files: tests/golden/text_encoders.py.
#[test]
fn texts_are_compared_alone() {
    let folder = golden("text_encoders/deberta");
    let golden = std::fs::read(Path::new(&folder).join("scores.json")).expect("golden scores");
    let golden: serde_json::Value = serde_json::from_slice(&golden).expect("golden scores");
    let layer = golden["n_layers"].to_string();
    let pair = &golden["pairs"][1];
    let words = |key: &str| pair[key].as_str().expect("a text").to_owned();
    let (candidate, reference) = (words("candidate"), words("reference"));
    let args = [text(&folder), &layer, &candidate, &reference];
    let shown = example("ddpo-encoder", "", "bert_score", &args).stdout;
    let [p, r, f] = [0, 1, 2].map(|i| pair["scores"][i].as_f64().expect("a score"));
    assert_eq!(
        shown.trim(),
        format!("precision {p:.4}, recall {r:.4}, F1 {f:.4}")
    );
}

#[test]
fn examples_without_files_say_that_they_worked() {
    for (name, key) in [
        (
            "weights",
            "changed in memory: true; the file as it was: true",
        ),
        (
            "own_sampler",
            "the sampler keeps every promise of a sampler",
        ),
        ("prompts", "one vector per token"),
        ("bert_score", "F1 "),
        ("ranks", "resumed: "),
        ("toy_rwr", "sparse RWR, mean reward by round"),
        ("colourful", "weight 16: colourfulness"),
    ] {
        says(name, &[], key);
    }
}

#[test]
fn examples_that_write_leave_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (name, key, [width, height]) in [
        (
            "toy_ddpo",
            "mean distance from what was asked for",
            [726, 360],
        ),
        ("draw", "a butterfly: ", [4 * 64 + 3 * 4, 64]),
    ] {
        let file = at(&format!("{name}.png"));
        says(name, &[text(&file)], key);
        let drawn = image::open(&file).expect("a PNG");
        assert_eq!((drawn.width(), drawn.height()), (width, height), "{name}");
    }
    let (model, out) = (tiny_model(), at("sd_lora"));
    let args = [text(&model), text(&out)];
    says(
        "sd_lora",
        &args,
        "96 factors read back as they were trained",
    );
    let (out, report) = (at("adapter"), at("report"));
    says("adapter", &[text(&model), text(&out)], "");
    says("demo_report", &[text(&report)], "report.html");
    for file in [out.join("unet.safetensors"), report.join("report.html")] {
        assert!(file.is_file(), "{}", file.display());
    }
}

/// On a model of other sizes than Stable Diffusion v1.4's, without a GPU, in fewer steps.
#[test]
fn an_iteration_is_measured_and_what_could_not_be_is_said() {
    let model = tiny_model();
    let fewer = ["--samples", "4", "--steps", "2", "--updates", "2"];
    let mut args = vec![text(&model), "--device", "cpu"];
    args.extend(fewer);
    let shown = example("ddpo-tests", "", "lora_iteration", &args).stdout;
    for part in [
        "on Cpu in Float",
        "LoRA of rank 4, guidance 5, 4 samples, 2 steps, 2 updates",
        "GFLOP/s, the measured peak",
        "differs from the preset: 16 samples of 50 steps",
        "not measured: operations",
        "not measured: a GPU",
    ] {
        assert!(shown.contains(part), "{part} is not in: {shown}");
    }
    for phase in ["sampling: ", "update: "] {
        let line = shown.lines().find_map(|line| line.strip_prefix(phase));
        let (seconds, rest) = line.and_then(|l| l.split_once(" s, ")).expect(phase);
        let (rate, rest) = rest.split_once(" images/s, peak ").expect(phase);
        let (mib, _) = rest.split_once(" MiB").expect(phase);
        let product = number(seconds) * number(rate);
        // Seconds have two digits after the point.
        assert!(
            (product - 4.0).abs() < 0.005 * number(rate) + 0.01,
            "{line:?}"
        );
        assert!(number(mib) > 1.0, "{line:?}");
    }
}
