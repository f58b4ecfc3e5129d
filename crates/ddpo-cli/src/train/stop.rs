//! Ctrl-C and SIGTERM: the first asks the run to finish its step and write a checkpoint, the second ends it.

use std::sync::OnceLock;

use ddpo_train::StopFlag;

use crate::failure::{Exit, OrExit, Result};

/// The process's only flag, with its handler in place.
pub fn flag() -> Result<StopFlag> {
    static FLAG: OnceLock<StopFlag> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(flag.clone());
    }
    let flag = FLAG.get_or_init(StopFlag::new).clone();
    let in_handler = flag.clone();
    let handler = move || {
        if in_handler.requested() {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; once more ends at once, without a checkpoint");
        in_handler.request();
    };
    ctrlc::set_handler(handler).or_exit(Exit::Other, "cannot listen to signals")?;
    Ok(flag)
}
