//! The descriptors of a run, both ends, and what it is told of them.

use musher_core::id::Incarnation;
use musher_core::supervisor::Channel;
use musher_os::fd::{self, Blocking};
use musher_os::spawn::Stdio;
use std::io;
use std::os::fd::OwnedFd;

/// Size asked for the output pipes: room for a burst while the pump is busy.
const PIPE_BYTES: usize = 1 << 20;
/// Descriptor of the first socket of an app, or of its channel where it has none:
/// SD_LISTEN_FDS_START of sd_listen_fds(3).
const FIRST_SOCKET: usize = 3;

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

/// Makes the descriptors of a run: the child's, ours, and the write end of its
/// stdin.
///
/// # Errors
/// `EMFILE`.
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

/// Returns the variables of Node's IPC channel, which is above the sockets of the
/// app (`NODE_UNIQUE_ID` makes a cluster worker).
pub(super) fn channel_env(
    run: Incarnation,
    channel: Channel,
    n_sockets: usize,
) -> Vec<(String, String)> {
    let fd = FIRST_SOCKET + n_sockets;
    let mut env = vec![
        ("NODE_CHANNEL_FD".to_owned(), fd.to_string()),
        (
            "NODE_CHANNEL_SERIALIZATION_MODE".to_owned(),
            "json".to_owned(),
        ),
    ];
    match channel {
        Channel::Fork => {}
        Channel::Worker => env.push(("NODE_UNIQUE_ID".to_owned(), run.to_string())),
    }
    env
}
