//! Which crate may use which: the table of `docs/architecture.md`, as data.

use anyhow::{Context, Result};
use serde_json::Value;

/// Crates of the workspace that each crate may use. A new edge is its own change: here and in the document.
const MAY_USE: &[(&str, &[&str])] = &[
    ("xtask", &[]),
    ("ddpo-torch", &[]),
    ("ddpo-sched", &[]),
    ("ddpo-clip", &["ddpo-torch"]),
    ("ddpo-encoder", &["ddpo-torch", "ddpo-clip"]),
    ("ddpo-reward", &["ddpo-encoder"]),
    ("ddpo-eval", &["ddpo-reward"]),
    ("ddpo-train", &["ddpo-torch", "ddpo-sched", "ddpo-reward"]),
    ("ddpo-testkit", &["ddpo-train", "ddpo-sched", "ddpo-reward"]),
    ("ddpo-rl", &["ddpo-train", "ddpo-sched", "ddpo-reward"]),
    ("ddpo-rwr", &["ddpo-train", "ddpo-sched", "ddpo-reward"]),
    (
        "ddpo-guidance",
        &["ddpo-train", "ddpo-sched", "ddpo-reward", "ddpo-encoder"],
    ),
    (
        "ddpo-model",
        &["ddpo-torch", "ddpo-train", "ddpo-sched", "ddpo-clip"],
    ),
    (
        "ddpo-pocket",
        &[
            "ddpo-torch",
            "ddpo-model",
            "ddpo-train",
            "ddpo-sched",
            "ddpo-clip",
            "ddpo-reward",
            "ddpo-guidance",
        ],
    ),
];

/// Crates at the top, which may use every other.
const ROOTS: &[&str] = &["ddpo-cli", "ddpo-tests", "ddpo-benches"];

/// Edges of `cargo metadata` that the table does not have. Development dependencies are free.
pub fn check(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        if ROOTS.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(crate_name, _)| *crate_name == name) else {
            problems.push(format!("{name} is not in the table of xtask/src/edges.rs"));
            continue;
        };
        let dependencies = package["dependencies"]
            .as_array()
            .context("no dependencies")?;
        for dependency in dependencies
            .iter()
            .filter(|entry| entry["kind"].as_str() != Some("dev"))
        {
            let used = dependency["name"].as_str().unwrap_or_default();
            if names.contains(&used) && !allowed.contains(&used) {
                problems.push(format!(
                    "new edge {name} -> {used}: see docs/architecture.md"
                ));
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_against_the_table_is_named() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "ddpo-sched", "dependencies": [{ "name": "ddpo-rl", "kind": null }, { "name": "serde", "kind": null }] },
            { "name": "ddpo-rl", "dependencies": [{ "name": "ddpo-sched", "kind": null }, { "name": "ddpo-model", "kind": "dev" }] },
            { "name": "ddpo-model", "dependencies": [] },
        ]});
        let problems = check(&metadata).expect("readable metadata");
        assert_eq!(
            problems,
            ["new edge ddpo-sched -> ddpo-rl: see docs/architecture.md"]
        );
    }
}
