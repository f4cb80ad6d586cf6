//! From what an app asked for to a socket; the calls the thread makes.

use super::spread::Chooser;
use super::thread::Shared;
use musher_core::cluster::message::{Endpoint, Kind, SocketName, SocketOptions};
use musher_core::time::Mono;
use musher_os::clock;
use musher_os::listen::{self, Family, PathAccess, Reuse, Stack};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A held socket.
pub(super) struct Listener {
    pub(super) fd: Shared,
    /// Name under which it is kept; `None` if that would be too long.
    pub(super) name: Option<String>,
    /// File to remove when it is closed.
    pub(super) path: Option<String>,
    /// Registered with epoll.
    pub(super) watched: bool,
    /// What chooses in its group, if it is the first there.
    pub(super) chooser: Chooser,
}

/// Makes a listening or bound socket; with a member, one more at its address.
///
/// # Errors
/// As the functions of [`listen`].
pub(super) fn make(
    endpoint: &Endpoint,
    options: SocketOptions,
    member: Option<impl AsFd>,
) -> io::Result<OwnedFd> {
    let backlog = u32::try_from(options.backlog).unwrap_or(listen::DEFAULT_BACKLOG);
    if let Some(member) = member {
        // Only from the second socket on: while it is alone, nobody else may
        // join it.
        rustix::net::sockopt::set_socket_reuseport(&member, true)?;
        return listen::tcp_join(&member, backlog);
    }
    let address = endpoint.address.as_deref();
    let port = u16::try_from(endpoint.port).unwrap_or(0);
    let stack = if options.v6_only {
        Stack::V6Only
    } else {
        Stack::Dual
    };
    let reuse = if options.reuse_addr {
        Reuse::Allowed
    } else {
        Reuse::Refused
    };
    match endpoint.kind {
        Kind::Tcp4 | Kind::Tcp6 => listen::tcp(address, port, stack, backlog),
        Kind::Udp4 => listen::udp(address, Family::V4, port, stack, reuse),
        Kind::Udp6 => listen::udp(address, Family::V6, port, stack, reuse),
        Kind::Pipe => {
            let access = PathAccess {
                readable_all: options.readable_all,
                writable_all: options.writable_all,
            };
            listen::unix(Path::new(address.unwrap_or_default()), access, backlog)
        }
    }
}

/// Returns the file that goes with a socket, if it has one.
pub(super) fn path_of(endpoint: &Endpoint) -> Option<String> {
    let path = endpoint
        .address
        .clone()
        .filter(|_| endpoint.kind == Kind::Pipe)?;
    // An abstract name has no file (unix(7)).
    (!path.starts_with('\0')).then_some(path)
}

/// Returns where a socket is bound; `None` for Unix sockets.
pub(super) fn name_of(fd: &OwnedFd) -> Option<SocketName> {
    let local = listen::local_address(fd).ok().flatten()?;
    Some(SocketName {
        address: local.address,
        v6: local.family == "IPv6",
        port: local.port,
    })
}

/// Returns the errno a worker is told.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    error
        .raw_os_error()
        .unwrap_or(rustix::io::Errno::IO.raw_os_error())
}

/// Reads the clock that decides.
pub(super) fn now() -> Mono {
    clock::now().mono
}
