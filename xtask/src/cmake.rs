//! cmake, which builds libjpeg-turbo: `.tools/bin/cmake` is a link to an installed one, or to one fetched by pip.
//!
//! `.cargo/config.toml` names that path, so that a plain `cargo build` finds it either way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::python::Python;
use crate::setup::tools;
use crate::shell;
use crate::wheels::{self, Wheel};

/// The last version of cmake 3, which is enough for libjpeg-turbo.
const CMAKE: Wheel = Wheel {
    name: "cmake",
    version: "3.31.6",
    size_mb: 27.8,
};

/// Makes `.tools/bin/cmake` work, unless an outer `CMAKE` does.
pub fn ensure() -> Result<()> {
    if outer().is_some() || works(&link()) {
        return Ok(());
    }
    let target = match on_path() {
        Some(path) => path,
        None => fetch()?,
    };
    let bin = tools().join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    let _ = fs::remove_file(link());
    symlink(&target, link()).with_context(|| format!("cannot link {}", link().display()))
}

/// A phrase on which cmake is used.
pub fn summary() -> String {
    let used = outer().unwrap_or_else(link);
    match version(&used) {
        Some(version) => version,
        None => "cmake missing: run `cargo xtask setup`".into(),
    }
}

fn link() -> PathBuf {
    tools().join("bin/cmake")
}

/// `CMAKE`, if it works and was not set by `.cargo/config.toml`.
fn outer() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("CMAKE")?);
    (path != link() && works(&path)).then_some(path)
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("cmake"))
        .find(|file| works(file))
}

fn works(cmake: &Path) -> bool {
    version(cmake).is_some()
}

fn version(cmake: &Path) -> Option<String> {
    let text = shell::output(Command::new(cmake).arg("--version")).ok()?;
    text.lines().next().map(|line| line.replace(" version", ""))
}

fn fetch() -> Result<PathBuf> {
    eprintln!(
        "setup: no cmake here, fetching {} {}",
        CMAKE.name, CMAKE.version
    );
    let cache = tools().join("cache");
    let wheel = wheels::fetch(&Python::find()?, &CMAKE, &cache)?;
    let unpacked = cache.join("cmake.partial");
    let _ = fs::remove_dir_all(&unpacked);
    wheels::unpack(&wheel, &unpacked, |name| {
        Some(Path::new(name.strip_prefix("cmake/data/")?).to_path_buf())
    })?;
    let home = tools().join("cmake");
    let _ = fs::remove_dir_all(&home);
    fs::rename(&unpacked, &home)?;
    fs::remove_file(&wheel)?;
    Ok(home.join("bin/cmake"))
}
