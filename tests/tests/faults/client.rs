//! The client by itself: what it tells its caller, how long it takes, and what it hands over before.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ddpo_reward::vlm::{Backoff, Chat, ChatConfig, Encoding, Question, Vqa};
use ddpo_reward::{Images, Prompt, Reward, RewardError, Score};
use ddpo_tests::chat_server::{Asked, ChatServer, Reply};

use super::{EXPECTED, NAN, NO_JSON, QUESTION, WRONG_SHAPE, body, good_for, is_one, truth};

const N: usize = 12;
const IN_FLIGHT: usize = 3;
// Long enough for an answer on a machine that is busy with other tests.
const ATTEMPT: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(2500);

struct Got {
    scores: Vec<Option<Score>>,
    error: Option<RewardError>,
    seconds: f64,
}

/// Asks about twelve images.
fn ask(url: &str, deadline: Duration) -> Got {
    let config = ChatConfig {
        in_flight: IN_FLIGHT,
        attempt_timeout: ATTEMPT,
        deadline,
        backoff: Backoff {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(100),
        },
        ..ChatConfig::new(url, "tiny")
    };
    let question = Question {
        ask: QUESTION.to_owned(),
        expect: EXPECTED.to_owned(),
    };
    let chat = Chat::new(config).expect("a client");
    let mut reward = Vqa::of_every_prompt(chat, Encoding::Png, vec![question]).expect("a reward");
    let bytes = (0..N as u8).flat_map(|i| [i * 20; 12]).collect();
    let images = Images::from_bytes(N, 2, 2, bytes).expect("images");
    let prompts: Vec<Prompt> = (0..N as u64).map(|i| Prompt::new(i, "cat")).collect();
    let mut scores = vec![None; N];
    let begin = Instant::now();
    let result = reward.score_each(&images, &prompts, &mut |i, score| scores[i] = Some(score));
    Got {
        scores,
        error: result.err(),
        seconds: begin.elapsed().as_secs_f64(),
    }
}

/// The scores that a server in good order gives.
fn right() -> &'static [Option<Score>] {
    static RIGHT: OnceLock<Vec<Option<Score>>> = OnceLock::new();
    RIGHT.get_or_init(ask_in_good_order)
}

fn ask_in_good_order() -> Vec<Option<Score>> {
    let server = ChatServer::start_at(0, Duration::from_millis(50), truth);
    let got = ask(&server.url(), DEADLINE);
    assert!(got.error.is_none());
    let values = got.scores.iter().flatten().map(|score| score.value);
    let sum: f32 = values.sum();
    assert!(sum > 0.0 && sum < N as f32, "answers of both kinds: {sum}");
    assert_eq!(server.most_in_flight(), IN_FLIGHT);
    let asked = server.asked();
    assert_eq!(asked.len(), N);
    assert!(
        asked
            .iter()
            .all(|(asked, _)| asked.question == "Is this a cat?")
    );
    assert!(
        asked
            .iter()
            .all(|(asked, _)| asked.image.starts_with("data:image/png;base64,"))
    );
    got.scores
}

/// Five answers and then a fault for good: the error has `part`, and every answer that came is a right score.
#[track_caller]
fn fails(fault: Reply, part: &str) -> RewardError {
    let server = ChatServer::start(good_for(5, fault));
    let got = ask(&server.url(), DEADLINE);
    let error = got.error.expect("an error");
    assert!(error.to_string().contains(part), "{error}");
    assert!(
        !error.is_transient(),
        "a caller need not try again: {error}"
    );
    assert!(got.seconds < 10.0, "{} s", got.seconds);
    let n_answered = server
        .asked()
        .iter()
        .filter(|(asked, reply)| *reply == truth(asked))
        .count();
    let n_known = got.scores.iter().flatten().count();
    assert_eq!(
        (n_answered, n_known),
        (5, 5),
        "what was answered is handed over"
    );
    for (known, right) in got.scores.iter().zip(right()) {
        assert!(
            known.is_none() || known == right,
            "{known:?}, not {right:?}"
        );
    }
    error
}

/// A fault that goes away: all scores, and the right ones.
#[track_caller]
fn heals(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (ChatServer, f64) {
    let server = ChatServer::start(script);
    let got = ask(&server.url(), Duration::from_secs(20));
    assert!(got.error.is_none(), "{:?}", got.error);
    assert_eq!(got.scores, right());
    (server, got.seconds)
}

#[track_caller]
fn out_of_time(error: &RewardError) {
    assert!(
        matches!(error, RewardError::Deadline { attempts: 2.., .. }),
        "{error:?}"
    );
}

#[track_caller]
fn unusable(error: &RewardError) {
    assert!(matches!(error, RewardError::BadAnswer { .. }), "{error:?}");
    assert!(error.to_string().ends_with("(3 times)"), "{error}");
}

#[test]
fn refused_connection() {
    let got = ask(
        &format!("http://127.0.0.1:{}", ChatServer::unused_port()),
        DEADLINE,
    );
    let error = got.error.expect("an error");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    out_of_time(&error);
    assert!(got.seconds < 10.0 && got.scores.iter().all(Option::is_none));
    out_of_time(&fails(Reply::Dies, ""));
}

#[test]
fn hang() {
    out_of_time(&fails(Reply::Hangs, "timeout"));
}

#[test]
fn too_many_requests_with_a_time_to_come_back() {
    const LATER: Reply = Reply::Status(429, "retry-after: 1\r\n");
    let (server, seconds) = heals(|asked| match asked.number {
        4 => LATER,
        _ => truth(asked),
    });
    // The pauses of this client are at most 0.1 s: the second is the server's.
    let asked = server.asked();
    assert_eq!(asked.len(), N + 1);
    let refused = &asked[4].0;
    let again = asked
        .iter()
        .rfind(|(a, _)| a.image == refused.image)
        .expect("again");
    assert!(
        again.0.at - refused.at >= Duration::from_secs(1),
        "{:?}",
        again.0.at - refused.at
    );
    assert!(seconds < 10.0, "{seconds} s");

    // Nobody waits for what comes after the deadline.
    let server = ChatServer::start(|_| Reply::Status(429, "retry-after: 3600\r\n"));
    let got = ask(&server.url(), DEADLINE);
    let error = got.error.expect("an error");
    assert!(error.to_string().contains("HTTP 429"), "{error}");
    assert!(got.seconds < 2.0, "{} s", got.seconds);
}

#[test]
fn server_error() {
    out_of_time(&fails(
        Reply::Status(500, ""),
        "HTTP 500: {\"error\": \"on demand\"}",
    ));
}

#[test]
fn bad_gateway_in_the_middle_of_a_batch() {
    let (server, _) = heals(|asked| match asked.number {
        5..9 => Reply::Status(502, ""),
        _ => truth(asked),
    });
    assert_eq!(server.asked().len(), N + 4);
    out_of_time(&fails(Reply::Status(502, ""), "HTTP 502"));
}

#[test]
fn truncated_body() {
    heals(|asked| match asked.number {
        5 => Reply::Truncated,
        _ => truth(asked),
    });
    out_of_time(&fails(Reply::Truncated, "the answer breaks off"));
}

#[test]
fn not_json() {
    heals(|asked| match asked.number {
        5 => body(NO_JSON),
        _ => truth(asked),
    });
    unusable(&fails(
        body(NO_JSON),
        "not JSON (expected value at line 1 column 1): <html>",
    ));
}

#[test]
fn wrong_shape() {
    unusable(&fails(
        body(WRONG_SHAPE),
        "no text at choices[0].message.content: {\"scores\"",
    ));
}

#[test]
fn empty_answer() {
    unusable(&fails(Reply::Says(" \n".to_owned()), "an empty text"));
    unusable(&fails(body(""), "not JSON"));
}

#[test]
fn nan() {
    unusable(&fails(body(NAN), "not JSON"));
}

#[test]
fn slow_drip() {
    // Each byte comes well within any timeout of a read; the whole would take seconds.
    out_of_time(&fails(Reply::Drips(Duration::from_millis(60)), "timeout"));
}

#[test]
fn a_server_that_comes_back() {
    let port = ChatServer::unused_port();
    let begin = Instant::now();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        ChatServer::start_at(port, Duration::ZERO, truth)
    });
    let got = ask(&format!("http://127.0.0.1:{port}"), Duration::from_secs(20));
    assert!(got.error.is_none(), "{:?}", got.error);
    assert_eq!(got.scores, right());
    assert!(begin.elapsed() >= Duration::from_millis(500));
    assert_eq!(late.join().expect("a server").asked().len(), N);
}

#[test]
fn what_a_server_refuses_is_not_asked_again() {
    for (status, part) in [(401, "HTTP 401"), (404, "HTTP 404"), (413, "HTTP 413")] {
        let server = ChatServer::start(good_for(5, Reply::Status(status, "")));
        let got = ask(&server.url(), DEADLINE);
        let error = got.error.expect("an error");
        assert!(matches!(error, RewardError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(server.asked().len() <= 5 + IN_FLIGHT, "no second attempt");
    }
}

#[test]
fn the_answers_are_what_the_scores_are_of() {
    let server = ChatServer::start(truth);
    let got = ask(&server.url(), DEADLINE);
    let n_ones = server
        .asked()
        .iter()
        .filter(|(asked, _)| is_one(asked))
        .count();
    let scores = got.scores.iter().flatten();
    assert_eq!(scores.map(|score| score.value).sum::<f32>(), n_ones as f32);
    for score in got.scores.iter().flatten() {
        assert_eq!(
            score.value == 1.0,
            score.answer.starts_with("yes"),
            "{score:?}"
        );
    }
}
