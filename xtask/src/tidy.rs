//! `cargo xtask tidy`: the repository's rules that the compiler does not check.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{ddpo, edges, modules, shell};

/// Longest Rust file (style rule, "about 400").
const MAX_LINES: usize = 400;
/// Longest Rust file outside the workspace: a whole program that brings its own sampler, algorithm or reward.
const MAX_LINES_OUTSIDE: usize = 150;
/// The folder of such programs.
const OUTSIDE: &str = "tests/outside/";
/// Largest file in the repository.
const MAX_BYTES: u64 = 30_000_000;
/// Spelt in pieces, so that this file passes its own check.
const FORBIDDEN: [&str; 3] = [
    concat!("db", "g!("),
    concat!("to", "do!("),
    concat!("#[ig", "nore"),
];
/// Home folders on someone's machine.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];
/// Files that run code when they are read.
const PICKLES: [&str; 5] = ["pkl", "pickle", "pt", "pth", "ckpt"];
/// Crates, and the features with which they must build without libtorch.
const WITHOUT_LIBTORCH: [(&str, &[&str]); 4] = [
    ("ddpo-sched", &["--no-default-features"]),
    ("ddpo-reward", &[]),
    ("ddpo-eval", &[]),
    ("xtask", &[]),
];

/// Prints every broken rule; succeeds if there is none.
pub fn run() -> Result<ExitCode> {
    let problems = problems()?;
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    if problems.is_empty() {
        println!("tidy: clean");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidy: {} problems", problems.len());
    Ok(ExitCode::FAILURE)
}

/// Every broken rule, one line each.
pub fn problems() -> Result<Vec<String>> {
    let mut problems = edges::check(&ddpo::metadata()?)?;
    problems.extend(modules::check()?);
    for file in files()? {
        check_file(&file, &mut problems).with_context(|| format!("cannot read {file}"))?;
    }
    for (name, features) in WITHOUT_LIBTORCH {
        let mut tree = shell::cargo();
        tree.args([
            "tree",
            "--package",
            name,
            "--edges=normal,build",
            "--prefix=none",
        ]);
        let tree = shell::output(tree.args(features))?;
        if tree
            .lines()
            .any(|line| line.starts_with("tch ") || line.starts_with("torch-sys "))
        {
            problems.push(format!("{name} {} links libtorch", features.join(" ")));
        }
    }
    Ok(problems)
}

/// Tracked files and new ones that git does not ignore, relative to the root.
fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(shell::root());
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let text = shell::output(&mut git)?;
    let exists = |file: &&str| !file.is_empty() && shell::root().join(file).is_file();
    Ok(text.split('\0').filter(exists).map(str::to_owned).collect())
}

fn check_file(file: &str, problems: &mut Vec<String>) -> Result<()> {
    let path = shell::root().join(file);
    let n_bytes = fs::metadata(&path)?.len();
    if n_bytes > MAX_BYTES {
        problems.push(format!(
            "{file}: {:.0} MB, at most 30 are allowed",
            n_bytes as f64 / 1e6
        ));
    }
    let extension = Path::new(file)
        .extension()
        .unwrap_or_default()
        .to_string_lossy();
    if PICKLES.contains(&extension.as_ref()) {
        problems.push(format!("{file}: weights must be safetensors"));
    }
    let Ok(text) = String::from_utf8(fs::read(&path)?) else {
        return Ok(());
    };
    for (index, line) in text.lines().enumerate() {
        if MACHINE_PATHS.iter().any(|home| names_path(line, home)) {
            problems.push(format!("{file}:{}: a path of someone's machine", index + 1));
        }
        if extension == "rs" {
            for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{file}:{}: `{word}`", index + 1));
            }
        }
    }
    let (n_lines, outside) = (text.lines().count(), file.starts_with(OUTSIDE));
    let most = if outside {
        MAX_LINES_OUTSIDE
    } else {
        MAX_LINES
    };
    if extension == "rs" && n_lines > most {
        problems.push(format!("{file}: {n_lines} lines, at most {most}"));
    }
    // These are outside the workspace and cannot inherit from it.
    let is_member = file != "Cargo.toml" && !file.starts_with("fuzz/") && !outside;
    if file.ends_with("Cargo.toml") && is_member {
        problems.extend(check_manifest(file, &text));
    }
    Ok(())
}

/// Whether the line has that folder at the start of a path, and not inside a longer one or a link.
fn names_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "._-}/".contains(c)))
    })
}

/// Members inherit versions and lints from the workspace; only ddpo-torch may have `unsafe`.
fn check_manifest(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut section = "";
    let mut inherits_lints = false;
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && line.contains('=') {
            let inherits = line.contains("workspace = true");
            let own_path = line.contains("path = ") && !line.contains("version");
            if !inherits && !own_path {
                problems.push(format!("{file}: `{line}` names its own version"));
            }
        } else if section == "[lints]" && line == "workspace = true" {
            inherits_lints = true;
        }
    }
    if !inherits_lints && !file.starts_with("crates/ddpo-torch/") {
        problems.push(format!(
            "{file}: does not inherit the lints of the workspace, which forbid `unsafe`"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_outside_the_workspace_is_named() {
        let manifest =
            "[dependencies]\nserde = \"1\"\ntch.workspace = true\n[lints]\nworkspace = true\n";
        assert_eq!(
            check_manifest("crates/x/Cargo.toml", manifest),
            ["crates/x/Cargo.toml: `serde = \"1\"` names its own version"]
        );
    }

    #[test]
    fn links_are_not_taken_for_machine_paths() {
        let home = MACHINE_PATHS[1];
        assert!(names_path(&format!("see {home}someone/file"), home));
        assert!(!names_path(&format!("https://example.org{home}page"), home));
    }
}
