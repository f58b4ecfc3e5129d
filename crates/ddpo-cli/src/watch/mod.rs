//! Those who watch a run: tables, pictures, the terminal, event files.

mod console;
mod evaluation;
mod panel;
mod pictures;
mod screen;
mod tables;
mod tensorboard;

pub use console::Console;
pub use evaluation::Evaluation;
pub use panel::Panel;
pub use pictures::{Pictures, read_sheet};
pub use screen::Screen;
pub use tables::Tables;
pub use tensorboard::TensorBoard;
