//! `ddpo score` with rewards that somebody else computes.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_tests::chat_server::{ChatServer, Reply};
use ddpo_tests::{Ended, ddpo, text, tiny_model};

/// A folder of three images, two of one size, and a file of prompts.
struct Case {
    folder: tempfile::TempDir,
}

const PROMPTS: &str = "two cats\nthree dogs\neight wolves\n";

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let images = folder.path().join("images");
        fs::create_dir(&images).expect("a folder");
        // From the tiny model, so that files are as `ddpo sample` writes them.
        for (name, seed, model) in [
            ("a", "1", tiny_model()),
            ("b", "2", tiny_model()),
            ("c", "3", "pocket".into()),
        ] {
            let out = folder.path().join(name);
            let args = [
                "sample",
                "--model",
                text(&model),
                "--prompt",
                "cat",
                "--steps",
                "1",
            ];
            ddpo(
                args.into_iter()
                    .chain(["--seed", seed, "--out", text(&out)]),
            )
            .expect(0, &[]);
            let entries = fs::read_dir(&out).expect("a folder").flatten();
            let png = entries
                .map(|e| e.path())
                .find(|p| p.extension().is_some_and(|e| e == "png"));
            fs::copy(png.expect("an image"), images.join(format!("{name}.png"))).expect("a file");
        }
        fs::write(folder.path().join("prompts.txt"), PROMPTS).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn score(&self, reward: &str, set: &[&str]) -> Ended {
        let [images, prompts, out] = ["images", "prompts.txt", "out.csv"].map(|n| self.path(n));
        let mut args = vec!["score", "--reward", reward, "--images", text(&images)];
        args.extend(["--prompts", text(&prompts), "--out", text(&out)]);
        args.extend(set.iter().flat_map(|pair| ["--set", *pair]));
        ddpo(args)
    }

    /// Rows of the table without the file's folder.
    fn rows(&self) -> Vec<String> {
        let table = fs::read_to_string(self.path("out.csv")).expect("a table");
        let images = format!("{}/", self.path("images").display());
        table
            .lines()
            .map(|line| line.replace(&images, ""))
            .collect()
    }
}

/// Says "two" and "wolf", whatever it sees.
fn two_wolves() -> ChatServer {
    ChatServer::start(|asked| {
        let text = match asked.question.starts_with("How many") {
            true => "I see two.",
            false => "It may be a wolf, or a cat",
        };
        Reply::Says(text.to_owned())
    })
}

fn at(server: &ChatServer) -> String {
    format!("reward.vlm.url={}", server.url())
}

const MODEL: &str = "reward.vlm.model=tiny";

#[test]
fn counting_asks_two_questions_about_each_image_and_the_cache_repeats_them_offline() {
    let (case, server) = (Case::new(), two_wolves());
    let cache = format!("reward.cache={}", case.path("scores").display());
    let set = [at(&server), MODEL.to_owned(), cache];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let ended = case.score("vlm-counting", &set).expect(0, &[]);
    assert!(
        ended
            .stdout
            .contains("mean questions answered as expected 0.5000"),
        "{}",
        ended.stdout
    );
    let expected = [
        "file,prompt,reward,answer",
        "a.png,two cats,1,\"I see two. | It may be a wolf, or a cat\"",
        "b.png,three dogs,0,\"I see two. | It may be a wolf, or a cat\"",
        "c.png,eight wolves,0.5,\"I see two. | It may be a wolf, or a cat\"",
    ];
    assert_eq!(case.rows(), expected);
    let questions: Vec<String> = server
        .asked()
        .into_iter()
        .map(|(asked, _)| asked.question)
        .collect();
    assert_eq!(questions.len(), 6);
    for question in [
        "How many wolves are there in this image?",
        "What animal is in this image?",
    ] {
        assert!(
            questions.iter().any(|asked| asked == question),
            "{questions:?}"
        );
    }

    drop(server);
    let offline = [&set[..], &["reward.offline=true"]].concat();
    case.score("vlm-counting", &offline).expect(0, &[]);
    assert_eq!(case.rows(), expected);
    // Another model is another reward.
    let other = [&offline[..], &["reward.vlm.model=large"]].concat();
    case.score("vlm-counting", &other)
        .expect(4, &["2 of 2 scores are not in", "\"two cats\""]);
}

#[test]
fn a_program_scores_and_a_sum_has_a_column_for_each_part() {
    let case = Case::new();
    // The first letter of the prompt decides: t, t, e.
    let script = "while read -r line; do case $line in \
                  *'\"prompt\":\"e'*) echo '{\"score\": 3.5, \"answer\": \"e\"}';; \
                  *) echo '{\"score\": -1}';; esac; done";
    fs::write(case.path("reward.sh"), script).expect("a file");
    let command = format!(
        "reward.command=[\"sh\", \"{}\"]",
        case.path("reward.sh").display()
    );
    case.score("command", &[&command]).expect(0, &[]);
    let expected = [
        "file,prompt,reward,answer",
        "a.png,two cats,-1,",
        "b.png,three dogs,-1,",
        "c.png,eight wolves,3.5,e",
    ];
    assert_eq!(case.rows(), expected);

    case.score("jpeg-compressibility", &[]).expect(0, &[]);
    let column = |at: usize| -> Vec<f32> {
        let rows = case.rows();
        let cells = rows[1..]
            .iter()
            .map(|row| row.split(',').nth(at).expect("a cell"));
        cells.map(|cell| cell.parse().expect("a number")).collect()
    };
    let jpeg = column(2);
    let parts = "reward.parts={ jpeg-compressibility = 0.5, command = 2 }";
    case.score("composite", &[&command, parts]).expect(0, &[]);
    assert_eq!(
        case.rows()[0],
        "file,prompt,reward,reward/command,reward/jpeg-compressibility,answer"
    );
    assert_eq!((column(3), column(4)), (vec![-1.0, -1.0, 3.5], jpeg));
    for ((sum, program), jpeg) in column(2).into_iter().zip(column(3)).zip(column(4)) {
        assert!((sum - (2.0 * program + 0.5 * jpeg)).abs() < 1e-5, "{sum}");
    }
    assert!(case.rows()[3].ends_with(",command: e"), "{:?}", case.rows());
}

#[track_caller]
fn nothing_written(case: &Case) {
    assert!(
        !Path::new(&case.path("out.csv")).exists(),
        "a table with a failed score"
    );
}

#[test]
fn what_is_missing_or_fails_is_told_with_the_key_and_the_image() {
    let case = Case::new();
    let vlm = [
        "`reward.vlm.url` is missing: expected the server's address",
        "`reward.vlm.model` is missing",
    ];
    case.score("vlm-counting", &[]).expect(2, &vlm);
    case.score("command", &[]).expect(
        2,
        &[
            "`reward.command` is missing: expected a program",
            "reward.py",
        ],
    );
    case.score("composite", &[]).expect(
        2,
        &["`reward.parts` is missing", "jpeg-compressibility = 1.0"],
    );
    case.score("vlm-count", &[])
        .expect(2, &["did you mean vlm-counting?"]);

    let server = two_wolves();
    let url = at(&server);
    let key = "reward.vlm.api_key_env=NO_SUCH_KEY_OF_DDPO";
    case.score("vlm-counting", &[&url, MODEL, key])
        .expect(2, &["`reward.vlm.api_key_env` is \"NO_SUCH_KEY_OF_DDPO\""]);
    case.score("vlm-counting", &["reward.vlm.url=localhost:8000", MODEL])
        .expect(
            2,
            &["url: expected an address such as http://127.0.0.1:8000, got `localhost:8000`"],
        );
    case.score("command", &["reward.command=[\"no-such-program\"]"])
        .expect(
            4,
            &["cannot score", "a.png", "cannot start `no-such-program`"],
        );
    case.score(
        "command",
        &["reward.command=[\"true\"]", "reward.command_retry=0"],
    )
    .expect(
        4,
        &[
            "a.png",
            "the program ended before its answer (exit status: 0)",
        ],
    );
    fs::write(case.path("prompts.txt"), "two cats\nthree dogs\na wolf\n").expect("a file");
    case.score("vlm-counting", &[&url, MODEL]).expect(
        2,
        &[
            "c.png",
            "prompt: expected a number from two to eight and a plural",
            "\"a wolf\"",
        ],
    );
    nothing_written(&case);
}
