//! The `dsproxy` program.
fn main() {}
