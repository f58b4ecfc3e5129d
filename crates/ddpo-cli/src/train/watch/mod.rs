//! Those who watch a run: tables, images, the terminal, event files.

mod console;
mod images;
mod tables;
mod tensorboard;

pub use console::Console;
pub use images::{ProgressImages, read_sheet};
pub use tables::Tables;
pub use tensorboard::TensorBoard;
