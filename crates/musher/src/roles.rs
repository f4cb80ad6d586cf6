//! The long-lived roles of the executable, behind the two internal verbs.
//!
//! The command line only knows these two functions: what a keeper or daemon
//! is, is decided elsewhere.

use crate::paths::Paths;

/// Exit code of a role this build does not have.
const NOT_BUILT: u8 = 70;

/// Runs the keeper of a home until nothing is left to keep; returns its exit
/// code. Descriptor 3 is the ready pipe (`musher_os::daemonize::READY_FD`).
pub(crate) fn keeper(_paths: &Paths) -> u8 {
    eprintln!("this build of musher has no keeper");
    NOT_BUILT
}

/// Runs the daemon of a home; returns its exit code.
pub(crate) fn daemon(_paths: &Paths) -> u8 {
    eprintln!("this build of musher has no daemon");
    NOT_BUILT
}
