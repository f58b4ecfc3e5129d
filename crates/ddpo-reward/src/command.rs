//! A reward in another language: a program that reads and writes JSON lines (feature `command`).
//!
//! The program reads one line per image on its standard input and writes one line per image on its standard
//! output, in the same order:
//!
//! ```text
//! {"prompt": "a cat", "png": "iVBORw0KGgo…"}     ->     {"score": 0.25}
//! {"prompt": "a dog", "png": "iVBORw0KGgo…"}     ->     {"score": 0.5, "answer": "what samples.csv shows"}
//! ```
//!
//! The line of a prompt with metadata ([`Prompt::metadata`]) also has `"metadata": {…}`.
//!
//! It is started once, with the first batch, and runs as long as the reward lives; its standard error goes to
//! ours. `examples/reward.py` is an example of ten lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::png::encode;
use crate::reward::{check_batch, collect};
use crate::{Images, Prompt, Result, Reward, RewardError, RewardInfo, Score};

/// Longest line that is quoted.
const QUOTE: usize = 200;

/// The program and its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandConfig {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Deadline for one line; for the first one it includes the program's start.
    pub deadline: Duration,
}

/// Scores from a program.
#[derive(Debug)]
pub struct CommandReward {
    config: CommandConfig,
    version: String,
    running: Option<Running>,
}

/// A running program, and the threads that write to it and read from it.
#[derive(Debug)]
struct Running {
    child: Child,
    /// Lines to be written to the program, which may answer before it has read all of them.
    jobs: Option<Sender<Vec<u8>>>,
    answers: Receiver<std::io::Result<String>>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    score: f32,
    #[serde(default)]
    answer: String,
}

impl CommandReward {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "command";

    /// The program is started with the first batch.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] without a program.
    pub fn new(config: CommandConfig) -> Result<Self> {
        if config.command.first().is_none_or(String::is_empty) {
            let expected = "a program and its arguments, such as [\"python\", \"reward.py\"]";
            return Err(RewardError::bad_input("command", expected, "none"));
        }
        Ok(Self {
            version: version_of(&config.command),
            config,
            running: None,
        })
    }

    /// Quantity and unit of the score, which only the program knows.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "reward of a program".to_owned(),
            unit: String::new(),
        }
    }

    fn start(&self) -> Result<Running> {
        let (program, arguments) = self
            .config
            .command
            .split_first()
            .unwrap_or((&self.config.command[0], &[]));
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                RewardError::permanent(Self::NAME, format!("cannot start `{program}`: {error}"))
            })?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(RewardError::permanent(
                Self::NAME,
                "no pipes to the program",
            ));
        };
        let (jobs, queue) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            // If the program no longer reads, its missing answers show it.
            for line in queue {
                if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
                    return;
                }
            }
        });
        let (lines, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running {
            child,
            jobs: Some(jobs),
            answers,
        })
    }
}

/// What the program reads about one image.
fn line(prompt: &Prompt, png: String) -> Result<String> {
    let mut line = json!({ "prompt": prompt.text, "png": png });
    if let Some(metadata) = &prompt.metadata {
        line["metadata"] = serde_json::from_str::<Value>(metadata).map_err(|error| {
            let what = format!("metadata of prompt \"{}\"", prompt.text);
            RewardError::bad_input(what, "a JSON object", error)
        })?;
    }
    Ok(format!("{line}\n"))
}

fn version_of(command: &[String]) -> String {
    let files = command.iter().filter_map(|part| {
        let bytes = std::fs::read(part).ok()?;
        let hash = Sha256::digest(bytes);
        Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    });
    let files: Vec<String> = files.collect();
    format!("1 command={command:?} files={}", files.join(","))
}

impl Running {
    /// The next answer.
    fn answer(&mut self, deadline: Duration) -> Result<Score> {
        let name = CommandReward::NAME;
        let begin = Instant::now();
        let line = match self.answers.recv_timeout(deadline) {
            Ok(line) => line.map_err(|error| RewardError::bad_answer(name, error))?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(RewardError::Deadline {
                    reward: name.to_owned(),
                    seconds: begin.elapsed().as_secs_f64(),
                    attempts: 1,
                    last: "the program has not written a line".to_owned(),
                });
            }
            Err(RecvTimeoutError::Disconnected) => {
                let how = match self.child.wait() {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                let reason = format!("the program ended before its answer ({how})");
                return Err(RewardError::transient(name, reason));
            }
        };
        let answer: Answer = serde_json::from_str(&line).map_err(|error| {
            let shown: String = line.chars().take(QUOTE).collect();
            let reason =
                format!("expected a line such as {{\"score\": 0.5}}, got `{shown}` ({error})");
            RewardError::bad_answer(name, reason)
        })?;
        if !answer.score.is_finite() {
            // Beyond the largest f32: JSON itself has no infinity.
            let reason = format!("a score of {}", answer.score);
            return Err(RewardError::bad_answer(name, reason));
        }
        Ok(Score {
            value: answer.score,
            parts: Vec::new(),
            answer: answer.answer,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Closes its input; a program that hangs is not waited for.
        self.jobs = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reward for CommandReward {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        collect(self, images, prompts)
    }

    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> Result<()> {
        check_batch(images, prompts)?;
        // After an error, lines and answers may be out of sync, so the program is restarted.
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let (height, width) = (images.height(), images.width());
        for (rgb, prompt) in images.iter_bytes().zip(prompts) {
            let png = STANDARD.encode(encode(rgb, height, width)?);
            let line = line(prompt, png)?;
            if let Some(jobs) = &running.jobs {
                // The writer ends when the program has ended.
                let _ = jobs.send(line.into_bytes());
            }
        }
        for i in 0..images.len() {
            known(i, running.answer(self.config.deadline)?);
        }
        self.running = Some(running);
        Ok(())
    }

    /// The command, and the content of every file that it names. Files that those load are not known here: a
    /// program that depends on more should take an argument such as a version.
    fn version(&self) -> String {
        self.version.clone()
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}
