//! Arbitrary bytes as a file of weights: no panic, no excessive memory, and an error that names the file.
//!
//! ```text
//! cargo +nightly fuzz run weights -- -max_len=4096 -rss_limit_mb=1024 -malloc_limit_mb=64
//! ```
#![no_main]

#[path = "../../crates/ddpo-torch/tests/reading/mod.rs"]
mod reading;

libfuzzer_sys::fuzz_target!(|contents: &[u8]| {
    if let Err(problem) = reading::survives(contents) {
        panic!("{problem}");
    }
});
