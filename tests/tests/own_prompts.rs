//! A model, prompts and a reward of one's own: from `ddpo init` to a run, with prompts as people write them down.

use std::fs;
use std::path::Path;

use ddpo_tests::{Ended, ddpo, text};

/// As short as a run can be.
const SHORT: [&str; 5] = [
    "run.epochs=1",
    "rl.samples_per_epoch=8",
    "eval.samples=4",
    "sampler.n_steps=3",
    "progress.every=10",
];

fn run(config: &Path, out: &Path, set: &[&str]) -> Ended {
    let mut args = vec!["run", text(config), "--out", text(out)];
    args.extend(SHORT.iter().chain(set).flat_map(|pair| ["--set", pair]));
    ddpo(args)
}

/// Columns of a table by their names.
fn columns(table: &Path, names: &[&str]) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(table).expect("a table");
    let header = reader.headers().expect("a header").clone();
    let place = |name: &&str| header.iter().position(|it| it == *name).expect(name);
    let places: Vec<usize> = names.iter().map(place).collect();
    let row = |row: csv::Result<csv::StringRecord>| {
        let row = row.expect("a row");
        places.iter().map(|&at| row[at].to_owned()).collect()
    };
    reader.records().map(row).collect()
}

#[test]
fn what_init_writes_runs_as_it_is_and_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mine, out) = (folder.path().join("mine"), folder.path().join("run"));
    let told = ddpo(["init", text(&mine)]).expect(0, &[]).stdout;
    assert!(told.contains("ddpo run "), "{told}");
    ddpo(["init", text(&mine)]).expect(2, &["reward.py are already there"]);
    run(&mine.join("ddpo.toml"), &out, &[]).expect(0, &["command on `prompts` after epoch 1"]);
    let prompts = fs::read_to_string(mine.join("prompts.txt")).expect("prompts");
    for row in columns(&out.join("samples.csv"), &["prompt", "reward"]) {
        assert!(prompts.lines().any(|line| line == row[0]), "{row:?}");
        // Brightness of an image that is neither black nor white.
        let reward: f64 = row[1].parse().expect("a number");
        assert!((0.05..0.95).contains(&reward), "{row:?}");
    }
    assert!(out.join("report.html").is_file());
    // The run's own configuration finds prompts and program again, from wherever it is read.
    ddpo(["eval", text(&out), "--samples", "2"]).expect(0, &["on `prompts` after epoch 1"]);
}

/// Scores what the metadata of a prompt says, and notes what has none.
const BY_METADATA: &str = "
import json, sys
for line in sys.stdin:
    job = json.loads(line)
    has = 'metadata' in job
    print(json.dumps({'score': job['metadata']['n'] if has else -1, 'answer': str(has)}), flush=True)
";

/// Five hundred lines with a byte order mark, carriage returns, empty lines and a prompt that comes again.
fn five_hundred() -> String {
    let mut text = "\u{feff}".to_owned();
    for n in 0..500 {
        text += &match n % 50 {
            7 => "\r\n".to_owned(),
            13 => "  \r\n".to_owned(),
            21 => "{\"text\": \"a cat\", \"weight\": 0.5}\r\n".to_owned(),
            _ => format!("{{\"text\": \"prompt {n}\", \"metadata\": {{\"n\": {n}}}}}\r\n"),
        };
    }
    text
}

#[test]
fn five_hundred_lines_with_oddities_reach_a_program_with_their_metadata() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("own.jsonl"), five_hundred()).expect("a file");
    fs::write(at("by_metadata.py"), BY_METADATA).expect("a file");
    let lines = "experiment = \"own\"\ntitle = \"Own\"\nprompts.file = \"own.jsonl\"\nreward.kind = \"command\"\n\
                 reward.command = [\"python3\", \"by_metadata.py\"]\n";
    fs::write(at("own.toml"), lines).expect("a file");
    let (config, out) = (at("own.toml"), at("run"));
    let told = [
        "own.jsonl: 20 empty lines skipped",
        "own.jsonl: 1 prompt there more than once, and drawn as often: \"a cat\" (lines 22 and 72)",
        "command on `own` after epoch 0",
    ];
    run(&config, &out, &[]).expect(0, &told);
    for row in columns(&out.join("samples.csv"), &["prompt", "reward", "answer"]) {
        let expected = match row[0].strip_prefix("prompt ") {
            Some(n) => [n, "True"],
            None => ["-1", "False"],
        };
        assert_eq!(row[1..], expected, "{row:?}");
    }
    // A run is not taken on with other prompts than it began with.
    fs::write(
        at("own.jsonl"),
        "{\"text\": \"a dog\", \"metadata\": {\"n\": 1}}\n",
    )
    .expect("a file");
    let mut again = vec!["run", text(&config), "--out", text(&out), "--resume"];
    again.extend(SHORT.iter().flat_map(|pair| ["--set", pair]));
    ddpo(again).expect(2, &["of another run", "`prompts.sha256`"]);
    // Other prompts are measured under their own name, as the run was made.
    fs::write(at("own.jsonl"), five_hundred()).expect("a file");
    fs::write(at("others.txt"), "a dog\na fox\n").expect("a file");
    let others = at("others.txt");
    let eval = ["eval", text(&out), "--samples", "2", "--prompts"];
    ddpo([&eval[..], &[text(&others)]].concat()).expect(0, &["on `others` after epoch 1"]);
    ddpo([&eval[..], &["othres"]].concat()).expect(2, &["--prompts othres", "no such file"]);
}

#[test]
fn bad_prompts_are_refused_with_their_line_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("bad.jsonl"), folder.path().join("run"));
    let config = Path::new("configs/compressibility.toml");
    let own = format!("prompts.file={}", file.display());
    for (line, parts) in [
        ("{\"text\": \"a cat\"", ["bad.jsonl, line 2", "EOF"]),
        (
            "{\"text\": \"a cat\", \"weight\": -1}",
            ["bad.jsonl, line 2", "above 0, got -1"],
        ),
    ] {
        fs::write(&file, format!("{{\"text\": \"a dog\"}}\n{line}\n")).expect("a file");
        run(config, &out, &[&own]).expect(2, &parts);
    }
    fs::write(&file, "{\"text\": \"a capybara\"}\n").expect("a file");
    let judge = "reward.kind=judge";
    run(config, &out, &[&own, judge]).expect(2, &["judge cannot judge", "capybara"]);
    run(config, &out, &["prompts.set=animal"]).expect(
        2,
        &["did you mean \"animals\"?", "prompts.file", "prompts.texts"],
    );
    assert!(!out.exists(), "something was written");
}

#[test]
fn images_have_the_size_that_was_asked_for_and_lead_away_from_the_negative_prompt() {
    let folder = tempfile::tempdir().expect("a folder");
    let sample = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let plain = "sample --model pocket --prompt cat --steps 3 --out";
        let mut args: Vec<&str> = plain.split(' ').chain([text(&out)]).collect();
        args.extend(more);
        let ended = ddpo(args);
        (ended, out.join("0000.png"))
    };
    let (ended, plain) = sample("plain", &[]);
    ended.expect(0, &[]);
    let (ended, away) = sample("away", &["--negative", "blue"]);
    ended.expect(0, &[]);
    assert_ne!(fs::read(plain).expect("png"), fs::read(away).expect("png"));
    let (ended, wide) = sample("wide", &["--width", "96"]);
    ended.expect(0, &["96x64", "trained for 64x64"]);
    assert_eq!(image::image_dimensions(wide).expect("png"), (96, 64));
    let (ended, _) = sample("odd", &["--height", "100"]);
    ended.expect(2, &["--height is 100", "96 or 104"]);
}
