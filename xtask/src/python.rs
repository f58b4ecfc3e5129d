//! The Python used for fetching: only its `pip download`, and the standard library for golden files.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A Python whose pip works.
pub struct Python(PathBuf);

/// Advice if there is no Python.
pub const HOW_TO_INSTALL: &str = "Python 3 with pip is needed once, to fetch libtorch from the Python package index: \
     install it (Debian and Ubuntu: `apt install python3-pip python3-venv`), or set LIBTORCH to an unpacked libtorch 2.11.0";

impl Python {
    /// The first of `python3` and `python` whose pip works.
    pub fn find() -> Result<Self> {
        for name in ["python3", "python"] {
            let answer = Command::new(name).args(["-m", "pip", "--version"]).output();
            if answer.is_ok_and(|output| output.status.success()) {
                return Ok(Self(name.into()));
            }
        }
        bail!("{HOW_TO_INSTALL}");
    }

    /// `python -m pip`.
    pub fn pip(&self) -> Command {
        let mut command = self.command();
        command.args(["-m", "pip"]);
        command
    }

    /// The interpreter.
    pub fn command(&self) -> Command {
        Command::new(&self.0)
    }
}

/// Folder of the `torch` package that `python3` would import, and its version, without importing it.
///
/// `None` if there is no Python.
pub fn installed_torch() -> Option<(PathBuf, String)> {
    let find = "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";
    let folder = shell::output(Command::new("python3").args(["-c", find])).ok()?;
    let folder = PathBuf::from(folder.trim());
    let version = torch_version(&folder)?;
    Some((folder, version))
}

/// Version of a libtorch folder or an installed `torch` package, without its build tag.
pub fn torch_version(folder: &std::path::Path) -> Option<String> {
    let plain = |text: &str| text.trim().split('+').next().map(str::to_owned);
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return plain(&text);
    }
    let text = std::fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    plain(line.split('\'').nth(1)?)
}
