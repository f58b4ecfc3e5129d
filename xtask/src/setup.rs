//! Prerequisites of building anything that links libtorch.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmake, libtorch, shell};

/// Which libtorch is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any that runs on the CPU, including builds with CUDA.
    Cpu,
    /// The full set with CUDA's libraries.
    Cuda,
}

/// Folder for fetched tools and unfinished downloads.
pub fn tools() -> PathBuf {
    shell::root().join(".tools")
}

/// Installs libtorch and cmake; instant if they are there.
pub fn ensure(kind: Kind) -> Result<()> {
    fs::create_dir_all(tools()).with_context(|| format!("cannot create {}", tools().display()))?;
    let lock = File::create(tools().join("setup.lock"))?;
    lock.lock().context("cannot lock .tools/setup.lock")?;
    if let Some(missing) = missing_build_tools() {
        bail!("{missing}");
    }
    libtorch::ensure(kind)?;
    cmake::ensure()
}

/// One line on what is used.
pub fn summary() -> Result<String> {
    Ok(format!("{}, {}", libtorch::summary()?, cmake::summary()))
}

/// The missing build tools of the dependencies' C++ parts.
pub fn missing_build_tools() -> Option<String> {
    let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let lacks = |tool: &str| Command::new(tool).arg("--version").output().is_err();
    let missing: Vec<&str> = [cxx.as_str(), "make"]
        .into_iter()
        .filter(|tool| lacks(tool))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} not found: install a C++ compiler and make (Debian and Ubuntu: `apt install g++ make`)",
            missing.join(" and ")
        )
    })
}
