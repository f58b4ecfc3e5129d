//! Shared by the tests of this crate.
#[path = "../../../../tests/golden/clip_vision.rs"]
mod images;

use std::path::{Path, PathBuf};

use tch::Tensor;

#[allow(unused_imports)] // not by the tests of text alone
pub use images::{image, size};

/// A folder of golden files.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name)
}

#[track_caller]
pub fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let difference = (actual - expected).abs();
    let worst = difference.max().double_value(&[]);
    let relative = worst / expected.abs().max().double_value(&[]);
    let index = difference.argmax(None, false).int64_value(&[]);
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, largest {worst:.2e} at flat index {index}, allowed {tolerance:.0e}"
    );
}
