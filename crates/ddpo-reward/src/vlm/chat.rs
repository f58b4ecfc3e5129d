//! The client of a chat server: attempts, pauses, one deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Backoff;
use super::backoff::mix;
use super::wire::{self, Attempt};
use crate::{Result, RewardError};

/// Longest answer that is read; chat answers are kilobytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Address of the model, limits and deadlines.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatConfig {
    /// Address of the server, such as `http://127.0.0.1:8000`; `/v1/chat/completions` is added if it
    /// is missing.
    pub url: String,
    /// Name of the model, as the server knows it.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// Longest answer, in tokens; the reference's server has 64.
    pub max_tokens: u32,
    /// Requests at the same time, over all clones of a client.
    pub in_flight: usize,
    /// Timeout of one attempt, from connecting to the last byte; the reference has 120 s.
    pub attempt_timeout: Duration,
    /// Deadline for one question, over all attempts.
    pub deadline: Duration,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Attempts for one question that gets unusable answers.
    pub bad_answers: u32,
}

impl ChatConfig {
    /// The reference's timeout and answer length, sixteen requests at a time, ten minutes.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key: None,
            max_tokens: 64,
            in_flight: 16,
            attempt_timeout: Duration::from_secs(120),
            deadline: Duration::from_secs(600),
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(30),
            },
            bad_answers: 3,
        }
    }
}

/// Asks a chat server about images. Clones share connections and the limit of requests in flight.
#[derive(Debug, Clone)]
pub struct Chat {
    config: Arc<ChatConfig>,
    endpoint: String,
    agent: ureq::Agent,
    permits: Arc<Permits>,
}

/// One question, and who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Name of the reward, for errors.
    pub reward: &'a str,
    /// `data:` URL of the image.
    pub image: &'a str,
    /// The question about it.
    pub question: &'a str,
    /// Key of the jitter of the pauses.
    pub key: u64,
    /// Set when another request has failed permanently: no new attempt begins.
    pub stop: &'a AtomicBool,
}

impl Chat {
    /// Checks the address; nothing is sent.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] with the address, or the number that must be at least 1.
    pub fn new(config: ChatConfig) -> Result<Self> {
        let endpoint = endpoint(&config.url)?;
        if config.in_flight == 0 {
            return Err(RewardError::bad_input(
                "requests in flight",
                "at least 1",
                0,
            ));
        }
        let builder = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(config.attempt_timeout))
            .max_idle_connections(config.in_flight)
            .max_idle_connections_per_host(config.in_flight)
            .user_agent(concat!("ddpo/", env!("CARGO_PKG_VERSION")));
        // A proxy from the environment cannot reach this machine's own servers.
        let builder = match is_loopback(&endpoint) {
            true => builder.proxy(None),
            false => builder,
        };
        Ok(Self {
            endpoint,
            agent: builder.build().new_agent(),
            permits: Arc::new(Permits::new(config.in_flight)),
            config: Arc::new(config),
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &ChatConfig {
        &self.config
    }

    /// Retries until there is an answer, or the deadline has passed.
    pub(super) fn ask(&self, ask: Ask<'_>) -> Result<String> {
        let config = &self.config;
        let body = wire::request(&config.model, ask.question, ask.image, config.max_tokens);
        let body = body.to_string().into_bytes();
        let _permit = self.permits.take();
        let begin = Instant::now();
        let (mut attempts, mut n_bad) = (0, 0);
        let mut last = String::new();
        loop {
            attempts += 1;
            let left = config.deadline.saturating_sub(begin.elapsed());
            let (reason, retry_after) = match self.attempt(&body, left) {
                Attempt::Answer(text) => return Ok(text),
                Attempt::Refused(reason) => return Err(RewardError::refused(ask.reward, reason)),
                Attempt::Bad(reason) => {
                    n_bad += 1;
                    if n_bad >= config.bad_answers {
                        let reason = format!("{reason} ({n_bad} times)");
                        return Err(RewardError::bad_answer(ask.reward, reason));
                    }
                    (reason, None)
                }
                Attempt::Unavailable {
                    reason,
                    retry_after,
                } => (reason, retry_after),
            };
            // The error before is more useful than that the last attempt was cut short.
            if attempts == 1 || begin.elapsed() < config.deadline {
                last = reason;
            }
            let pause = config.backoff.pause(attempts, mix(ask.key));
            let pause = pause.max(retry_after.unwrap_or_default());
            // A pause beyond the deadline is not waited for.
            if begin.elapsed() + pause >= config.deadline || !waited(pause, ask.stop) {
                return Err(RewardError::Deadline {
                    reward: ask.reward.to_owned(),
                    seconds: begin.elapsed().as_secs_f64(),
                    attempts,
                    last,
                });
            }
        }
    }

    fn attempt(&self, body: &[u8], left: Duration) -> Attempt {
        let unavailable = |reason: String| Attempt::Unavailable {
            reason,
            retry_after: None,
        };
        // A timeout of zero could be taken for no timeout.
        let limit = self.config.attempt_timeout.min(left);
        let limit = limit.max(Duration::from_millis(1));
        let mut request = self
            .agent
            .post(&self.endpoint)
            .config()
            .timeout_global(Some(limit))
            .build()
            .header("content-type", "application/json");
        if let Some(key) = &self.config.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Attempt::Refused(error.to_string());
            }
            Err(error) => return unavailable(format!("{}: {error}", self.endpoint)),
        };
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let read = response.body_mut().with_config().limit(LONGEST_ANSWER);
        match read.read_to_vec() {
            Ok(body) => wire::read(status, retry_after.as_deref(), &body),
            Err(ureq::Error::BodyExceedsLimit(limit)) => {
                Attempt::Bad(format!("an answer of more than {limit} bytes"))
            }
            Err(error) => unavailable(format!("the answer breaks off: {error}")),
        }
    }
}

/// Sleeps; returns false at once if another request fails permanently meanwhile.
fn waited(pause: Duration, stop: &AtomicBool) -> bool {
    const SLICE: Duration = Duration::from_millis(50);
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        if left.is_zero() {
            return true;
        }
        sleep(left.min(SLICE));
    }
}

/// The full address.
fn endpoint(url: &str) -> Result<String> {
    let bare = url.trim().trim_end_matches('/');
    let host = bare
        .strip_prefix("http://")
        .or_else(|| bare.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        let expected = "an address such as http://127.0.0.1:8000";
        return Err(RewardError::bad_input("url", expected, format!("`{url}`")));
    }
    Ok(if bare.ends_with("/chat/completions") {
        bare.to_owned()
    } else if bare.ends_with("/v1") {
        format!("{bare}/chat/completions")
    } else {
        format!("{bare}/v1/chat/completions")
    })
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.split("//").nth(1).unwrap_or_default();
    ["127.", "localhost", "[::1]"]
        .iter()
        .any(|local| host.starts_with(local))
}

/// Semaphore of the requests in flight.
#[derive(Debug)]
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(free: usize) -> Self {
        Self {
            free: Mutex::new(free),
            freed: Condvar::new(),
        }
    }

    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_completed() {
        let full = "http://h:1/v1/chat/completions";
        for url in [
            "http://h:1",
            "http://h:1/",
            "http://h:1/v1",
            "http://h:1/v1/",
            full,
        ] {
            assert_eq!(endpoint(url).unwrap(), full, "{url}");
        }
        for url in ["", "h:1", "ftp://h", "http://", "https:///v1"] {
            let error = endpoint(url).unwrap_err().to_string();
            assert!(
                error.contains("http://127.0.0.1:8000") && error.contains(url),
                "{error}"
            );
        }
        assert!(is_loopback(full.replace("h:1", "127.0.0.1:8000").as_str()));
        assert!(!is_loopback("https://example.org/v1/chat/completions"));
    }
}
