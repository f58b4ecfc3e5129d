//! `docs/configuration.md`: the table of keys for people.

use std::fmt::Write;

use super::{Key, all};
use crate::config::layers::BUILT_IN;

/// What stands before the tables.
const HEAD: &str = include_str!("page_head.md");

/// Titles of sections, by what the names of their keys begin with.
const SECTIONS: [(&str, &str); 14] = [
    ("", "Names"),
    ("run", "Length and seed"),
    ("model", "Model"),
    ("policy", "What is trained"),
    ("sampler", "Sampling"),
    ("prompts", "Prompts"),
    ("eval", "Evaluation"),
    ("progress", "Images through training"),
    ("rl", "Algorithms that train, and DDPO"),
    ("rwr", "Reward-weighted regression"),
    ("guidance", "Universal guidance"),
    ("reward", "Reward"),
    ("reproduce", "Several runs"),
    ("about", "About the experiment"),
];

/// The page as Markdown.
fn page() -> String {
    let mut text = HEAD.to_owned();
    let presets: Vec<(&str, toml::Table)> = BUILT_IN
        .iter()
        .map(|(name, preset)| (*name, preset.parse().unwrap_or_default()))
        .collect();
    for (section, title) in SECTIONS {
        let name = match section {
            "" => String::new(),
            section => format!(" `[{section}]`"),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n## {title}{name}\n\n| key | value | default | |\n| --- | --- | --- | --- |\n"
        );
        let of_section = |key: &&Key| match key.name.split_once('.') {
            Some((first, _)) => first == section,
            None => section.is_empty(),
        };
        for key in all().filter(of_section) {
            let mark = if key.may_change { " *" } else { "" };
            let _ = writeln!(
                text,
                "| `{}`{mark} | {} | {} | {} |",
                key.name,
                key.kind.expected(),
                default(key, &presets),
                key.doc.replace('|', "\\|")
            );
        }
    }
    text
}

/// The value where a configuration says nothing: the table's, or what each preset has.
fn default(key: &Key, presets: &[(&str, toml::Table)]) -> String {
    let has = presets
        .iter()
        .filter_map(|(name, preset)| Some((*name, value(preset, key.name)?)));
    let has: Vec<(&str, String)> = has.collect();
    let same = |value: &str| has.iter().all(|(_, other)| other == value);
    let shown: Vec<String> = match (key.default, &has[..]) {
        (Some(default), []) => vec![format!("`{default}`")],
        (None, []) => vec!["none".to_owned()],
        (_, [(_, value), ..]) if same(value) && has.len() == presets.len() => {
            vec![format!("`{value}`")]
        }
        (default, has) => {
            let default = default.map(|value| format!("`{value}`"));
            let presets = has.iter().map(|(name, value)| format!("{name} `{value}`"));
            default.into_iter().chain(presets).collect()
        }
    };
    shown.join(", ")
}

/// A preset's value of a key; of one that depends on the algorithm each algorithm's.
fn value(preset: &toml::Table, key: &str) -> Option<String> {
    let find = |table: &toml::Table| {
        let mut names = key.split('.');
        let first = table.get(names.next()?)?;
        let found = names.try_fold(first, |table, name| table.get(name))?;
        Some(found.to_string())
    };
    let of_algorithms = preset.get("algorithms").and_then(toml::Value::as_table);
    let of_algorithms = of_algorithms.into_iter().flatten();
    let special: Vec<String> = of_algorithms
        .filter_map(|(name, table)| Some(format!("{} ({name})", find(table.as_table()?)?)))
        .collect();
    let all = find(preset).into_iter().chain(special);
    let all: Vec<String> = all.collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[test]
fn the_page_of_keys_is_as_the_table_has_them() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("DDPO_WRITE").is_some() {
        std::fs::write(file, page()).expect("docs/configuration.md");
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        committed == page(),
        "docs/configuration.md is not what config/keys says: DDPO_WRITE=1 cargo test -p ddpo-cli the_page_of_keys"
    );
}

#[test]
fn every_key_is_in_one_section_and_declared_once() {
    let names: std::collections::BTreeSet<&str> = all().map(|key| key.name).collect();
    assert_eq!(names.len(), all().count());
    let rows = page().matches("\n| `").count();
    assert_eq!(rows, names.len());
}
