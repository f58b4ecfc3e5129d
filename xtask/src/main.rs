//! (see README)
fn main() {}
