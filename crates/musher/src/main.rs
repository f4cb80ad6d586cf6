//! musher: one executable, four roles.
//!
//! This is the way in: it names the modules and hands over to the command
//! line, which knows the roles.

mod agent;
mod cli;
mod client;
mod daemon;
mod dump;
mod ecosystem;
mod failpoint;
mod files;
mod keeper;
mod logfile;
mod paths;
mod roles;
mod startup;
mod version;

fn main() -> std::process::ExitCode {
    roles::inner().unwrap_or_else(cli::main)
}
