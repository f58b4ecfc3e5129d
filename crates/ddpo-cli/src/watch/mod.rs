//! Those who watch a run: tables, images, the terminal, event files.

mod console;
mod evaluation;
mod images;
mod panel;
mod screen;
mod tables;
mod tensorboard;

pub use console::Console;
pub use evaluation::Evaluation;
pub use images::{ProgressImages, read_sheet};
pub use panel::Panel;
pub use screen::Screen;
pub use tables::Tables;
pub use tensorboard::TensorBoard;
