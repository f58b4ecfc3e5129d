//! The configuration as a run's folder keeps it, and what of it a resumed run may change.

use std::fs;
use std::path::Path;

use super::keys;
use super::layers::DEFAULT;
use super::plan::Plan;
use super::reader::Entry;
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::output::CONFIG;

/// The resolved configuration as TOML, each key with where it came from.
pub fn render(entries: &[Entry]) -> String {
    let mut text =
        String::from("# The configuration as it ran, each key with where its value came from.\n");
    let (plain, sectioned): (Vec<_>, Vec<_>) = entries.iter().partition(|e| !e.key.contains('.'));
    for entry in plain {
        text += &format!("{} = {}  # {}\n", entry.key, entry.value, entry.from);
    }
    // A section's keys stand together, however many readers it has.
    let mut sections: Vec<(&str, String)> = Vec::new();
    for entry in sectioned {
        let (of, key) = entry.key.split_once('.').unwrap_or(("", &entry.key));
        let line = format!("{key} = {}  # {}\n", entry.value, entry.from);
        match sections.iter_mut().find(|(name, _)| *name == of) {
            Some((_, lines)) => *lines += &line,
            None => sections.push((of, line)),
        }
    }
    for (name, lines) in sections {
        text += &format!("\n[{name}]\n{lines}");
    }
    text
}

/// Refuses a folder that has a run of another configuration, and names every key that differs.
pub fn refuse_another(path: &Path, plan: &Plan) -> Result<()> {
    let file = path.join(CONFIG);
    match file.exists() {
        true => same_run(&file, &plan.entries),
        false => Ok(()),
    }
}

/// Refuses to resume a run with another configuration; names every key that differs.
fn same_run(file: &Path, entries: &[Entry]) -> Result<()> {
    let shown = file.display();
    let text = fs::read_to_string(file).or_exit(Exit::Data, format!("cannot read {shown}"))?;
    let stored: toml::Value =
        toml::from_str(&text).or_exit(Exit::Data, format!("{shown} is damaged"))?;
    let mut differences = Vec::new();
    let may_change = |entry: &&Entry| keys::by_name(&entry.key).is_some_and(|key| key.may_change);
    for entry in entries.iter().filter(|entry| !may_change(entry)) {
        let was = entry
            .key
            .split('.')
            .try_fold(&stored, |value, key| value.get(key));
        let was = was.map(toml::Value::to_string);
        // A key that there was not when the run was made did then what its default does now.
        let is_new = was.is_none() && entry.from == DEFAULT;
        if was.as_deref() != Some(&entry.value) && !is_new {
            let was = was.unwrap_or_else(|| "not there".into());
            differences.push(format!("`{}` was {was}, is {}", entry.key, entry.value));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::config(format!(
        "{shown} is of another run: {}; choose another folder with --out",
        differences.join("; ")
    )))
}
