//! Lines for whoever started the program, each once: a configuration is read again for every run of a queue.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Prints a line on standard error, unless this process has printed it already.
pub fn once(line: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(line.to_owned()) {
        eprintln!("{line}");
    }
}
