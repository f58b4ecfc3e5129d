#![doc = include_str!("../README.md")]

pub mod claims;
mod csv_file;
mod error;
pub mod evals;
pub mod figure;
pub mod hacking_onset;
pub mod images;
pub mod pixels;
pub mod report;
pub mod runs;
pub mod stats;
mod svg;
pub mod table;
pub mod tensorboard;

pub use error::{Error, Result};
pub use svg::Svg;
