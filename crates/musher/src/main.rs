//! musher: one executable, four roles.
//!
//! This is the way in: it names the modules and hands over to the command
//! line, which knows the roles.

mod cli;
mod client;
#[allow(dead_code, reason = "the daemon's loop is the caller")]
mod daemon;
#[allow(dead_code, unused_imports, reason = "the daemon uses the rest")]
mod ecosystem;
#[allow(dead_code, reason = "the daemon uses the rest")]
mod logfile;
mod paths;
mod roles;

fn main() -> std::process::ExitCode {
    cli::main()
}
