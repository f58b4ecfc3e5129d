//! The protocol: requests and answers.

use std::time::Duration;

use serde_json::{Value, json};

/// Longest part of a server's message that is quoted.
const QUOTE: usize = 200;

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Attempt {
    /// The model's answer, trimmed.
    Answer(String),
    /// The server cannot answer now: busy, restarting, broken, unreachable.
    Unavailable {
        reason: String,
        /// The value of `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The server or the model refuses, and would again.
    Refused(String),
    /// The server's answer is unusable.
    Bad(String),
}

/// The body of a request: one image and one question, greedy decoding.
pub(super) fn request(model: &str, question: &str, image: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{
            "role": "user",
            "content": [
                { "type": "image_url", "image_url": { "url": image } },
                { "type": "text", "text": question },
            ],
        }],
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "stream": false,
    })
}

/// Classifies an answer by what to do about it.
pub(super) fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Attempt {
    match status {
        200..=299 => read_body(body),
        // Timeout, conflict, too early, too many requests, and all server errors.
        408 | 409 | 425 | 429 | 500..=599 => Attempt::Unavailable {
            reason: with_body(status, body),
            retry_after: retry_after.and_then(seconds),
        },
        _ => Attempt::Refused(with_body(status, body)),
    }
}

fn read_body(body: &[u8]) -> Attempt {
    let answer: Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => {
            return Attempt::Bad(format!("not JSON ({error}): {}", quote(body)));
        }
    };
    let choice = &answer["choices"][0];
    let message = &choice["message"];
    if let Some(reason) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
        return Attempt::Refused(format!("the model says: {}", quote(reason.as_bytes())));
    }
    if choice["finish_reason"] == "content_filter" {
        return Attempt::Refused("the server's content filter stopped the answer".to_owned());
    }
    let Some(text) = text_of(&message["content"]) else {
        let found = quote(body);
        return Attempt::Bad(format!("no text at choices[0].message.content: {found}"));
    };
    match text.trim() {
        "" => Attempt::Bad("an empty text".to_owned()),
        text => Attempt::Answer(text.to_owned()),
    }
}

/// A string, or a list of parts of which some are texts.
fn text_of(content: &Value) -> Option<String> {
    if let Some(text) = content.as_str() {
        return Some(text.to_owned());
    }
    let texts: Vec<&str> = content
        .as_array()?
        .iter()
        .filter(|part| part["type"] == "text")
        .filter_map(|part| part["text"].as_str())
        .collect();
    (!texts.is_empty()).then(|| texts.concat())
}

/// `Retry-After` in its form of whole seconds; the form of a date is not used by these servers.
fn seconds(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

fn with_body(status: u16, body: &[u8]) -> String {
    match quote(body) {
        text if text.is_empty() => format!("HTTP {status}"),
        text => format!("HTTP {status}: {text}"),
    }
}

/// The beginning of a text on one line.
fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(QUOTE)]);
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.len() > QUOTE {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(body: &str) -> Attempt {
        read(200, None, body.as_bytes())
    }

    #[track_caller]
    fn bad(body: &str, part: &str) {
        match ok(body) {
            Attempt::Bad(reason) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_a_text_or_parts_of_one() {
        let answer = |content: &str| {
            format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":{content}}}}}]}}"#)
        };
        let cat = Attempt::Answer("a cat".to_owned());
        assert_eq!(ok(&answer(r#"" a cat\n""#)), cat);
        let parts = r#"[{"type":"text","text":"a "},{"type":"text","text":"cat"}]"#;
        assert_eq!(ok(&answer(parts)), cat);
        bad(&answer("\"  \""), "an empty text");
        bad(&answer("null"), "no text at choices[0].message.content");
        bad(&answer("7"), "no text at");
        bad(&answer("[]"), "no text at");
        // JSON has no NaN.
        bad(&answer("NaN"), "not JSON");
    }

    #[test]
    fn other_shapes_are_bad_answers() {
        bad(
            "<html>502</html>",
            "not JSON (expected value at line 1 column 1): <html>",
        );
        bad("{\"choices\": [", "not JSON (EOF");
        bad("{}", "no text at");
        bad("[1, 2]", "no text at");
        bad("", "not JSON");
        bad(r#"{"choices":[]}"#, "no text at");
    }

    #[test]
    fn a_refusal_is_not_a_bad_answer() {
        let refusal = r#"{"choices":[{"message":{"content":null,"refusal":"I cannot"}}]}"#;
        let filtered =
            r#"{"choices":[{"finish_reason":"content_filter","message":{"content":""}}]}"#;
        assert_eq!(
            ok(refusal),
            Attempt::Refused("the model says: I cannot".to_owned())
        );
        assert!(matches!(ok(filtered), Attempt::Refused(_)));
    }

    #[test]
    fn statuses_are_sorted_by_what_to_do() {
        for status in [408, 429, 500, 502, 503, 504, 529] {
            let attempt = read(status, Some(" 7 "), b"busy");
            let expected = Attempt::Unavailable {
                reason: format!("HTTP {status}: busy"),
                retry_after: Some(Duration::from_secs(7)),
            };
            assert_eq!(attempt, expected);
        }
        for status in [301, 400, 401, 403, 404, 413, 422] {
            let attempt = read(status, None, b"");
            assert_eq!(attempt, Attempt::Refused(format!("HTTP {status}")));
        }
    }
}
