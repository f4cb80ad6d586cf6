//! musher

#[allow(dead_code, reason = "the daemon's loop is the caller")]
mod daemon;
#[allow(dead_code, reason = "the logs command is the caller")]
mod logfile;

fn main() {}
