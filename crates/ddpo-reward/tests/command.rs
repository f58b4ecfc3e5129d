//! Programs as rewards: their answers are scores, and each kind of failure is its own error.
#![cfg(all(feature = "command", unix))]

use std::time::{Duration, Instant};

use ddpo_reward::{
    CommandConfig, CommandReward, Images, Prompt, Reward, RewardError, Score, prompts,
};

fn shell(script: &str, deadline: Duration) -> CommandReward {
    let command = ["sh", "-c", script].map(str::to_owned).into();
    CommandReward::new(CommandConfig { command, deadline }).unwrap()
}

fn batch(n: usize) -> (Images, Vec<Prompt>) {
    let images = Images::from_bytes(n, 2, 2, vec![9; n * 12]).unwrap();
    (
        images,
        prompts::numbered((0..n).map(|i| format!("prompt {i}"))),
    )
}

const ECHO: &str =
    r#"while read -r line; do echo "{\"score\": ${#line}, \"answer\": \"long\"}"; done"#;

#[test]
fn each_line_has_its_answer_and_the_program_lives_on() {
    let mut reward = shell(ECHO, Duration::from_secs(20));
    ddpo_reward::dev::conforms(&mut reward);
    // More than the pipes hold, both ways.
    let (images, prompts) = batch(600);
    let mut answers = Vec::new();
    reward
        .score_each(&images, &prompts, &mut |i, score| answers.push((i, score)))
        .unwrap();
    assert_eq!(answers.len(), 600);
    assert!(answers.iter().all(|(_, score)| score.answer == "long"));
    // One digit more in the prompt is one byte more in the line.
    assert_eq!(answers[10].1.value, answers[9].1.value + 1.0);
}

#[track_caller]
fn fails(script: &str, part: &str) -> RewardError {
    let (images, prompts) = batch(3);
    let mut reward = shell(script, Duration::from_millis(300));
    let mut known: Vec<(usize, Score)> = Vec::new();
    let begin = Instant::now();
    let error = reward
        .score_each(&images, &prompts, &mut |i, score| known.push((i, score)))
        .unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(error.to_string().contains(part), "{error}");
    // Every script answers the first line as it should.
    assert_eq!(known, [(0, Score::from(0.5))]);
    error
}

#[test]
fn a_program_that_fails_is_an_error_of_its_kind_and_keeps_what_it_said() {
    let good = r#"read -r x; echo '{"score": 0.5}';"#;
    let after = |rest: &str| format!("{good} {rest}");
    let ended = fails(&after("exit 3"), "ended before its answer (exit status: 3)");
    assert!(ended.is_transient());
    let hangs = fails(&after("exec sleep 60"), "has no answer after 0.3 s");
    assert!(matches!(hangs, RewardError::Deadline { .. }));
    for (line, part) in [
        ("echo garbage", "got `garbage`"),
        (r#"echo '{"score": NaN}'"#, "got `{\"score\": NaN}`"),
        (r#"echo '{"score": null}'"#, "expected f32"),
        (r#"echo '{"score": 1e39}'"#, "number out of range"),
        (r#"echo '{"Score": 1}'"#, "missing field `score`"),
        ("echo", "got ``"),
    ] {
        let error = fails(&after(&format!("{line}; exec sleep 60")), part);
        assert!(matches!(error, RewardError::BadAnswer { .. }), "{error}");
    }
}

#[test]
fn a_program_that_failed_is_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("second");
    let script = format!(
        "if [ -e {0} ]; then while read -r x; do echo '{{\"score\": 2}}'; done; else touch {0}; exit 1; fi",
        flag.display()
    );
    let mut reward = shell(&script, Duration::from_secs(20));
    let (images, prompts) = batch(2);
    assert!(reward.score(&images, &prompts).unwrap_err().is_transient());
    assert_eq!(reward.score(&images, &prompts).unwrap(), [2.0, 2.0]);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let command = vec!["no-such-program".to_owned()];
    let deadline = Duration::from_secs(1);
    let mut reward = CommandReward::new(CommandConfig { command, deadline }).unwrap();
    let (images, prompts) = batch(1);
    let error = reward.score(&images, &prompts).unwrap_err();
    assert!(
        error.to_string().contains("cannot start `no-such-program`"),
        "{error}"
    );
    let none = CommandConfig {
        command: Vec::new(),
        deadline,
    };
    assert!(
        CommandReward::new(none)
            .unwrap_err()
            .to_string()
            .contains("python")
    );
}

#[test]
fn scores_are_remembered_under_the_content_of_the_program_s_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("reward.sh");
    let version = |text: &str| {
        std::fs::write(&script, text).unwrap();
        let command = vec!["sh".to_owned(), script.display().to_string()];
        let deadline = Duration::from_secs(1);
        let reward = CommandReward::new(CommandConfig { command, deadline }).unwrap();
        reward.version()
    };
    assert_eq!(version("exit 0"), version("exit 0"));
    assert_ne!(version("exit 0"), version("exit 1"));
}

#[test]
fn metadata_of_a_prompt_is_in_its_line() {
    let script = r#"read -r line; case "$line" in *'"metadata":{"n":1}'*) echo '{"score": 1}';; esac
        read -r line; case "$line" in *metadata*) ;; *) echo '{"score": 2}';; esac"#;
    let mut reward = shell(script, Duration::from_secs(20));
    let (images, mut prompts) = batch(2);
    prompts[0] = prompts[0].clone().with_metadata("{\"n\": 1}");
    assert_eq!(reward.score(&images, &prompts).unwrap(), [1.0, 2.0]);
    prompts[0] = prompts[0].clone().with_metadata("{");
    let error = reward.score(&images, &prompts).unwrap_err();
    assert!(error.to_string().contains("prompt \"prompt 0\""), "{error}");
}
