//! musher
#[allow(
    dead_code,
    unused_imports,
    reason = "called by the start and config commands of the command line"
)]
mod ecosystem;

fn main() {}
