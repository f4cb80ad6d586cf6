//! The descriptors of a run, made before it is spawned: its ends and ours.

use musher_os::fd::{self, Blocking};
use musher_os::spawn::Stdio;
use std::io;
use std::os::fd::OwnedFd;

/// Size asked for the output pipes: room for a burst while the pump is busy.
const PIPE_BYTES: usize = 1 << 20;

/// The manager's ends of a run's descriptors: all of them after a spawn, and
/// after a takeover those that were kept.
#[derive(Default)]
pub(crate) struct Ends {
    /// Read end of its stdout.
    pub out: Option<OwnedFd>,
    /// Read end of its stderr.
    pub err: Option<OwnedFd>,
    /// Our end of its IPC channel.
    pub channel: Option<OwnedFd>,
}

/// Makes them all; the last is the write end of its stdin.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub(super) fn pipes() -> io::Result<(Stdio, Ends, OwnedFd)> {
    let (stdin, stdin_ours) = fd::pipe()?;
    let (out, stdout) = fd::pipe()?;
    let (err, stderr) = fd::pipe()?;
    fd::set_blocking(&stdin_ours, Blocking::NeverWaits)?;
    for ours in [&out, &err] {
        fd::set_blocking(ours, Blocking::NeverWaits)?;
        // Best effort: the limit for unprivileged users is shared (pipe(7)).
        let _ = fd::set_pipe_size(ours, PIPE_BYTES);
    }
    let (ours, theirs) = fd::socketpair(Blocking::NeverWaits)?;
    let stdio = Stdio {
        stdin,
        stdout,
        stderr,
        channel: Some(theirs),
    };
    Ok((
        stdio,
        Ends {
            out: Some(out),
            err: Some(err),
            channel: Some(ours),
        },
        stdin_ours,
    ))
}
