//! Those who watch a run: tables, pictures, the terminal, event files.

mod console;
mod pictures;
mod tables;
mod tensorboard;

pub use console::Console;
pub use pictures::{Pictures, read_sheet};
pub use tables::Tables;
pub use tensorboard::TensorBoard;
