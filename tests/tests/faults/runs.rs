//! Whole runs of `ddpo`: exit 4 with the epoch kept, and `--resume` to the bytes of a run that met no fault.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use ddpo_tests::chat_server::{ChatServer, Reply};
use ddpo_tests::runs::same_bytes;
use ddpo_tests::{Ended, ddpo, text, tiny_model};

use super::{NAN, NO_JSON, WRONG_SHAPE, body, good_for, truth};

const EPOCHS: usize = 2;
const SAMPLES: usize = 8;

/// What trains.
struct Algorithm {
    /// In configurations.
    name: &'static str,
    /// Keys beside those of every run here.
    set: &'static [&'static str],
    /// The run that met no fault.
    whole: OnceLock<PathBuf>,
}

static DDPO: Algorithm = Algorithm {
    name: "ddpo-is",
    set: &[],
    whole: OnceLock::new(),
};

static RWR: Algorithm = Algorithm {
    name: "rwr",
    set: &ROUND,
    whole: OnceLock::new(),
};

static SPARSE: Algorithm = Algorithm {
    name: "rwr-sparse",
    set: &ROUND,
    whole: OnceLock::new(),
};

/// A round of as many images as an epoch of DDPO.
const ROUND: [&str; 4] = [
    "rwr.samples_per_round=8",
    "rwr.samples_per_prompt=4",
    "rwr.updates_per_round=3",
    "rwr.batch=4",
];

/// Two epochs of eight images in batches of four.
fn run(algorithm: &Algorithm, out: &Path, url: &str, set: &[&str]) -> Ended {
    let mut args = vec!["run".to_owned(), "configs/compressibility.toml".to_owned()];
    let model = format!("model.path={}", tiny_model().display());
    let (name, epochs, samples, url) = (
        format!("rl.algorithm={}", algorithm.name),
        format!("run.epochs={EPOCHS}"),
        format!("rl.samples_per_epoch={SAMPLES}"),
        format!("reward.vlm.url={url}"),
    );
    let fixed = [
        model.as_str(),
        &name,
        &epochs,
        &samples,
        &url,
        "rl.updates_per_epoch=2",
        "sampler.n_steps=3",
        "sampler.batch=4",
        "progress.prompts=[]",
        "reward.kind=vlm-vqa",
        "reward.vlm.model=tiny",
        "reward.vlm.questions=[{ ask = \"Is this a {prompt}?\", expect = \"yes\" }]",
        "reward.vlm.in_flight=3",
        "reward.vlm.timeout=1",
        "reward.vlm.deadline=2.5",
        "reward.vlm.backoff=0.01",
        "reward.vlm.longest_backoff=0.1",
    ];
    let eval = ["eval.sets=[]"];
    for pair in fixed.iter().chain(&eval).chain(algorithm.set).chain(set) {
        args.extend(["--set".to_owned(), (*pair).to_owned()]);
    }
    args.extend([
        "--out".to_owned(),
        text(out).to_owned(),
        "--resume".to_owned(),
    ]);
    ddpo(args)
}

/// The run that met no fault.
fn whole(algorithm: &'static Algorithm) -> &'static Path {
    algorithm.whole.get_or_init(|| {
        let name = format!("faults-whole-{}", algorithm.name);
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Of an earlier time.
        let _ = fs::remove_dir_all(&out);
        let server = ChatServer::start(truth);
        run(algorithm, &out, &server.url(), &[]).expect(0, &[]);
        let asked = server.asked();
        assert_eq!(asked.len(), EPOCHS * SAMPLES);
        let samples = fs::read_to_string(out.join("samples.csv")).expect("samples");
        let mut lines = samples.lines();
        assert_eq!(
            lines.next(),
            Some("epoch,sample_id,prompt,reward,advantage,answer")
        );
        assert!(
            samples.contains(",\"yes, I think that it is one\""),
            "{samples}"
        );
        assert!(samples.contains(",no\n"), "{samples}");
        out
    })
}

/// How often each image was answered as it should be.
fn answered(servers: &[&ChatServer]) -> BTreeMap<(String, String), usize> {
    let mut times = BTreeMap::new();
    for (asked, reply) in servers.iter().flat_map(|server| server.asked()) {
        if reply == truth(&asked) {
            *times.entry((asked.question, asked.image)).or_default() += 1;
        }
    }
    times
}

/// The server answers eleven times, three of them in the second epoch, and then has a fault for good; later it
/// is in good order again.
#[track_caller]
fn survives(fault: Reply, part: &str) {
    survives_in(&DDPO, fault, part);
}

#[track_caller]
fn survives_in(algorithm: &'static Algorithm, fault: Reply, part: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let broken = ChatServer::start(good_for(SAMPLES + 3, fault));
    let ended = run(algorithm, &out, &broken.url(), &[]);
    ended.expect(4, &["the same command goes on", "reward vlm-vqa", part]);
    let rows = fs::read_to_string(out.join("samples.csv")).expect("samples");
    assert_eq!(
        rows.lines().count(),
        1 + SAMPLES,
        "rows of the finished epoch only"
    );
    assert!(
        out.join("checkpoints/epoch-000001-partial").is_dir(),
        "the epoch is kept"
    );
    goes_on(algorithm, &out, &broken);
}

/// Resumes with a server in good order: nothing is asked twice that was answered.
#[track_caller]
fn goes_on(algorithm: &'static Algorithm, out: &Path, broken: &ChatServer) {
    let good = ChatServer::start(truth);
    let resumed = run(algorithm, out, &good.url(), &[]);
    resumed.expect(0, &["goes on after epoch"]);
    same_bytes(out, whole(algorithm), EPOCHS);
    let answered = answered(&[broken, &good]);
    assert_eq!(answered.len(), EPOCHS * SAMPLES);
    assert!(
        answered.values().all(|&times| times == 1),
        "{:?}",
        answered.values()
    );
    assert_eq!(good.asked().len(), EPOCHS * SAMPLES - SAMPLES - 3);
}

#[test]
fn refused_connection() {
    survives(Reply::Dies, "Connection refused");
}

#[test]
fn hang() {
    survives(Reply::Hangs, "timeout");
}

#[test]
fn too_many_requests() {
    survives(Reply::Status(429, "retry-after: 1\r\n"), "HTTP 429");
}

#[test]
fn server_error() {
    survives(Reply::Status(500, ""), "HTTP 500");
}

#[test]
fn bad_gateway_in_the_middle_of_a_batch() {
    survives(Reply::Status(502, ""), "HTTP 502");
}

#[test]
fn truncated_body() {
    survives(Reply::Truncated, "the answer breaks off");
}

#[test]
fn not_json() {
    survives(body(NO_JSON), "not JSON");
}

#[test]
fn wrong_shape() {
    survives(body(WRONG_SHAPE), "no text at choices[0].message.content");
}

#[test]
fn empty_answer() {
    survives(Reply::Says(String::new()), "an empty text");
}

#[test]
fn nan() {
    survives(body(NAN), "not JSON");
}

#[test]
fn slow_drip() {
    survives(Reply::Drips(Duration::from_millis(60)), "timeout");
}

/// What was sampled of a round, and its scores, are kept as an epoch's are.
#[test]
fn a_round_of_rwr_is_kept_whatever_the_fault() {
    survives_in(&RWR, Reply::Dies, "Connection refused");
    survives_in(&RWR, Reply::Hangs, "timeout");
    survives_in(&RWR, Reply::Status(502, ""), "HTTP 502");
    survives_in(&RWR, body(NAN), "not JSON");
}

#[test]
fn a_round_of_sparse_rwr_is_kept_whatever_the_fault() {
    survives_in(&SPARSE, Reply::Truncated, "the answer breaks off");
    let retry = Reply::Status(429, "retry-after: 1\r\n");
    survives_in(&SPARSE, retry, "HTTP 429");
    survives_in(&SPARSE, Reply::Says(String::new()), "an empty text");
}

#[test]
fn a_server_that_comes_back() {
    for algorithm in [&DDPO, &RWR] {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("run");
        let faults = [
            Reply::Status(503, ""),
            Reply::Truncated,
            body(NO_JSON),
            Reply::Status(429, "retry-after: 1\r\n"),
        ];
        let server = ChatServer::start(move |asked| match asked.number % 5 {
            0 => faults[asked.number / 5 % faults.len()].clone(),
            _ => truth(asked),
        });
        let set = ["reward.vlm.deadline=20"];
        run(algorithm, &out, &server.url(), &set).expect(0, &[]);
        same_bytes(&out, whole(algorithm), EPOCHS);
        assert!(server.asked().len() > EPOCHS * SAMPLES);
    }
}

/// Before the first epoch, after it, and after the last.
#[test]
fn an_evaluation_whose_reward_failed_is_done_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let [whole, out] = ["whole", "failed"].map(|name| folder.path().join(name));
    let set = [
        "eval.sets=[\"animals\"]",
        "eval.samples=4",
        "eval.every=1",
        "reward.vlm.deadline=0.5",
    ];
    let good = ChatServer::start(truth);
    run(&DDPO, &whole, &good.url(), &set).expect(0, &[]);
    // A resumed run begins with the evaluation that is due.
    for n in [2, 4 + SAMPLES + 2, 4 + SAMPLES + 2] {
        let broken = ChatServer::start(good_for(n, Reply::Status(500, "")));
        run(&DDPO, &out, &broken.url(), &set).expect(4, &["HTTP 500"]);
    }
    let ended = run(&DDPO, &out, &good.url(), &set).expect(0, &["goes on after epoch 2"]);
    assert!(!ended.stderr.contains("epoch 1"), "{}", ended.stderr);
    same_bytes(&out, &whole, EPOCHS);
    assert!(out.join("eval.csv").exists());
}
