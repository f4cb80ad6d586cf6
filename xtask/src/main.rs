//! Repository rules as tests; see `tests/tidy.rs`.
fn main() {}
