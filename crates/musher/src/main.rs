//! musher
fn main() {}
