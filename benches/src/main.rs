//! Daily commands.
fn main() {}
