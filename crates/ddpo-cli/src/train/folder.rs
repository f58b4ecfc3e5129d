//! The folder that a run writes, and nobody else at the same time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::config::{Plan, resolved};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::output::{self, CONFIG};

/// A locked output folder.
#[derive(Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Held as long as the run.
    _lock: File,
}

impl RunFolder {
    /// Makes and locks the folder, and writes the resolved configuration into it.
    ///
    /// A folder that has a run is refused unless it is to be resumed with the same configuration.
    pub fn open(path: &Path, plan: &Plan, resume: bool) -> Result<Self> {
        let shown = path.display();
        let unwritable =
            || format!("cannot write to output folder {shown}: choose another with --out");
        fs::create_dir_all(path).or_exit(Exit::Config, unwritable())?;
        let lock = File::create(path.join(".lock")).or_exit(Exit::Config, unwritable())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::config(format!(
                    "another run is writing to {shown}: wait for it, or choose another folder with --out"
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).or_exit(Exit::Config, format!("cannot lock {shown}"));
            }
        }
        let file = path.join(CONFIG);
        if file.exists() && !resume {
            return Err(Failure::config(format!(
                "{shown} has a run already: go on with --resume, or choose another folder with --out"
            )));
        }
        resolved::refuse_another(path, plan)?;
        output::write(&file, &resolved::render(&plan.entries))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}
