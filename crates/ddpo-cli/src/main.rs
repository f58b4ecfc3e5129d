//! The `ddpo` command.
fn main() {}
