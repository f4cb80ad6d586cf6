//! musher
mod daemon;
fn main() {}
