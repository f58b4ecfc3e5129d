//! Helpers for processes: the repository's root, running a command, one-line usage errors.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::BAD_ARGUMENTS;

/// Root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that started us, in the repository's root, without what `cargo run` set for this crate alone.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command that must succeed.
pub fn check(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", describe(command), stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Replaces this process by the command, so that signals and exit codes are its own.
pub fn become_command(command: &mut Command) -> Result<ExitCode> {
    let error = std::os::unix::process::CommandExt::exec(command);
    Err(error).with_context(|| format!("cannot start `{}`", describe(command)))
}

/// Prints one line about bad arguments; the code to exit with.
pub fn usage(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(BAD_ARGUMENTS)
}

/// Prints what clap found in one line, with its suggestion if it has one.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    if !text.starts_with("error:") {
        eprint!("{text}");
        return ExitCode::from(BAD_ARGUMENTS);
    }
    usage(&one_line(&text))
}

/// Joins clap's message, what is missing, and its tip.
fn one_line(text: &str) -> String {
    let until_usage = text.split("\nUsage:").next().unwrap_or(text);
    let until_usage = until_usage
        .split("\nFor more information")
        .next()
        .unwrap_or(until_usage);
    let words: Vec<&str> = until_usage.split_whitespace().collect();
    let joined = words.join(" ");
    let joined = joined.strip_prefix("error: ").unwrap_or(&joined);
    format!("{}; see --help", joined.replace(" tip: ", "; "))
}

/// The candidate nearest to what was typed, if it is near enough.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(typed, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_the_word_that_was_meant() {
        let words = ["compressibility", "incompressibility", "aesthetic"];
        assert_eq!(nearest("compresibility", words), Some("compressibility"));
        assert_eq!(nearest("asthetic", words), Some("aesthetic"));
        assert_eq!(nearest("bananas", words), None);
    }

    #[test]
    fn a_usage_error_is_one_line_with_its_tip() {
        let clap = "error: unexpected argument '--seds' found\n\n  tip: a similar argument exists: '--seeds'\n\nUsage: x\n";
        assert_eq!(
            one_line(clap),
            "unexpected argument '--seds' found; a similar argument exists: '--seeds'; see --help"
        );
    }
}
