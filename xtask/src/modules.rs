//! `cargo xtask tidy`: no cycles between the modules of a crate.
//!
//! The compiler allows cycles between modules, and a crate with them can only be read as a whole. The check reads
//! paths in the source text: `crate::a::…` in module `b` is the edge `b -> a`, as is `super::a::…` in a file of `b`
//! itself. Macros that write paths would escape it; there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;

/// Folders whose modules are checked, with the path of the folder's own module.
const CHECKED: [(&str, &str); 8] = [
    ("crates/ddpo-cli/src", "crate"),
    ("crates/ddpo-clip/src", "crate"),
    ("crates/ddpo-encoder/src", "crate"),
    ("crates/ddpo-eval/src", "crate"),
    ("crates/ddpo-pocket/src/bin/pocket-pretrain", "crate"),
    ("crates/ddpo-pocket/src/pretrain", "crate::pretrain"),
    ("crates/ddpo-reward/src", "crate"),
    ("crates/ddpo-torch/src", "crate"),
];

/// Which modules each module uses.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// Every cycle, one line each.
pub fn check() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (folder, root) in CHECKED {
        let edges = edges(&shell::root().join(folder), root)?;
        let cycle = cycle(&edges).map(|names| names.join(" -> "));
        problems.extend(cycle.map(|names| format!("{folder}: modules in a cycle: {names}")));
    }
    Ok(problems)
}

/// Edges between the modules right below `folder`, whose own path in the crate is `root`.
fn edges(folder: &Path, root: &str) -> Result<Edges> {
    let mut files = Vec::new();
    walk(folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut sources = Vec::new();
    for file in files {
        let within = file.strip_prefix(folder)?.with_extension("");
        let parts: Vec<String> = within
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        // The folder's own file declares all modules, and modules below it may use its items.
        if parts.len() == 1 && ["lib", "main", "mod"].contains(&parts[0].as_str()) {
            continue;
        }
        let is_top = parts.len() == 1 || (parts.len() == 2 && parts[1] == "mod");
        sources.push((parts[0].clone(), is_top, fs::read_to_string(&file)?));
    }
    let modules: BTreeSet<String> = sources.iter().map(|(module, ..)| module.clone()).collect();
    let mut edges = Edges::new();
    for (module, is_top, text) in &sources {
        let mut used = paths(text, &format!("{root}::"));
        if *is_top {
            used.extend(paths(text, "super::"));
        }
        let others = used
            .into_iter()
            .filter(|name| name != module && modules.contains(name));
        edges.entry(module.clone()).or_default().extend(others);
    }
    Ok(edges)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// First names after `prefix` in a source text, including those of lists in braces, without comments and unit tests.
fn paths(text: &str, prefix: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if is_whole {
            found.extend(names(&code[at + prefix.len()..]));
        }
    }
    found
}

/// The next name of a path, or those of its list in braces.
fn names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut depth, mut items) = (1, vec![String::new()]);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => items.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        items.last_mut().expect("begins with one").push(c);
    }
    items
        .iter()
        .map(|item| name(item.trim_start_matches(',')))
        .collect()
}

/// The first cycle, if there is one; its first name is also its last.
fn cycle(edges: &Edges) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|from| visit(from, edges, &mut Vec::new(), &mut done))
}

fn visit(
    at: &str,
    edges: &Edges,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(begin) = path.iter().position(|name| name == at) {
        path.push(at.to_owned());
        return Some(path.split_off(begin));
    }
    if done.contains(at) {
        return None;
    }
    path.push(at.to_owned());
    for next in edges.get(at).into_iter().flatten() {
        if let Some(found) = visit(next, edges, path, done) {
            return Some(found);
        }
    }
    path.pop();
    done.insert(at.to_owned());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_lists_and_in_expressions_but_not_in_comments_or_unit_tests() {
        let text = "//! crate::no::No\nuse crate::a::A;\nuse crate::{b::{B, C}, c, d::D};\n\
                    fn f() { crate::e::f(); other::crate::no::f() }\n#[cfg(test)]\nmod tests {\nuse crate::no::N;";
        let found: Vec<String> = paths(text, "crate::").into_iter().collect();
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn a_cycle_is_named_from_its_first_module_to_itself() {
        let edge = |from: &str, to: &[&str]| {
            let to = to.iter().map(|name| (*name).to_owned());
            (from.to_owned(), to.collect::<BTreeSet<String>>())
        };
        let mut edges = Edges::from([edge("a", &["b"]), edge("b", &["c"]), edge("c", &["d"])]);
        assert_eq!(cycle(&edges), None);
        edges.extend([edge("d", &["b"])]);
        let found = cycle(&edges).expect("a cycle");
        assert_eq!(found, ["b", "c", "d", "b"]);
    }
}
