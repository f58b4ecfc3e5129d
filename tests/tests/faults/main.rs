//! A chat server that fails in every way that servers fail: no score is ever wrong, what was answered is kept,
//! and a run goes on as if nothing had been.

mod client;
mod runs;

use ddpo_tests::chat_server::{Asked, Reply};

/// What is asked about every image; the server's answer depends on the image alone.
const QUESTION: &str = "Is this a {prompt}?";
const EXPECTED: &str = "yes";

/// Whether the server finds in an image what it is asked for.
fn is_one(asked: &Asked) -> bool {
    asked.hash().is_multiple_of(2)
}

/// The answer of a server in good order.
fn truth(asked: &Asked) -> Reply {
    Reply::Says(match is_one(asked) {
        true => "yes, I think that it is one".to_owned(),
        false => "no".to_owned(),
    })
}

/// In good order for so many requests, and then something else.
fn good_for(n: usize, then: Reply) -> impl Fn(&Asked) -> Reply + Send + Sync {
    move |asked| match asked.number < n {
        true => truth(asked),
        false => then.clone(),
    }
}

const NO_JSON: &str = "<html>Bad Gateway</html>";
const WRONG_SHAPE: &str = r#"{"scores": [1, 2, 3]}"#;
const NAN: &str = r#"{"choices": [{"message": {"content": NaN}}]}"#;

fn body(text: &str) -> Reply {
    Reply::Body(text.to_owned())
}
