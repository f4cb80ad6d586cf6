//! Sockets an app is given (sd_listen_fds(3)), bound as systemd binds them
//! (systemd.socket(5)): blocking, with the longest queue the kernel allows, and
//! a Unix socket that everyone may connect to.
//!
//! Blocking, because O_NONBLOCK belongs to the socket and not to a descriptor
//! of it: a program that expects to wait in accept(2) would fail otherwise, and
//! one that does not sets the flag itself. Who holds a socket is not decided
//! here.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::fd::{Blocking, set_blocking};
use crate::listen::{self, PathAccess, Stack};
use crate::unix_path::UnixPath;

/// The kernel cuts it to net.core.somaxconn.
const BACKLOG: u32 = u32::MAX;

/// The state of a listening socket in /proc/net/tcp: TCP_LISTEN.
const TCP_LISTEN: &str = "0A";

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its pid.
    pub pid: u32,
    /// Its program: `comm` of proc(5).
    pub program: String,
}

/// Returns a listening TCP socket; `address` as for [`listen::tcp`].
///
/// # Errors
/// As [`listen::tcp`].
pub fn tcp(address: Option<&str>, port: u16) -> io::Result<OwnedFd> {
    let socket = listen::tcp(address, port, Stack::Dual, BACKLOG)?;
    set_blocking(&socket, Blocking::Waits)?;
    Ok(socket)
}

/// Returns a listening socket at a path. A socket file that nobody listens on
/// any more is replaced; removing the file later is the caller's.
///
/// # Errors
/// As [`listen::unix`].
pub fn unix(path: &Path) -> io::Result<OwnedFd> {
    let everyone = PathAccess {
        readable_all: true,
        writable_all: true,
    };
    let bind = || listen::unix(path, everyone, BACKLOG);
    let socket = match bind() {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && is_left_over(path) => {
            fs::remove_file(path)?;
            bind()
        }
        result => result,
    }?;
    set_blocking(&socket, Blocking::Waits)?;
    Ok(socket)
}

/// True for a socket file whose socket is gone.
fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        let name = UnixPath::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        io::Result::Ok(net::connect(&client, &name.address) == Err(Errno::CONNREFUSED))
    };
    is_socket && refused().unwrap_or(false)
}

/// Returns who listens on a TCP port, if that can be seen: the processes of
/// other users cannot, but by root.
///
/// Reads `/proc/net/tcp`, `/proc/net/tcp6` and the descriptors of every
/// process: milliseconds, for an error message only.
pub fn tcp_owner(port: u16) -> Option<Owner> {
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                // proc_net_tcp: sl local rem st queues timer retrnsmt uid timeout inode
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let is_it = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == TCP_LISTEN;
                is_it.then(|| holder(fields.get(9)?))?
            })
        })
}

/// Returns who listens at a path; as [`tcp_owner`].
pub fn unix_owner(path: &Path) -> Option<Owner> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let path = path.to_str()?;
    table.lines().skip(1).find_map(|line| {
        // proc(5): num refcount protocol flags type st inode path
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (*fields.get(7)? == path).then(|| holder(fields.get(6)?))?
    })
}

fn holder(inode: &str) -> Option<Owner> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"));
        fds.is_ok_and(|fds| {
            let links = fds.flatten().map(|entry| fs::read_link(entry.path()));
            links
                .flatten()
                .any(|link| link.as_os_str() == wanted.as_str())
        })
    };
    let pid = pids.into_iter().find(holds)?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Owner {
        pid,
        program: program.trim_end().to_owned(),
    })
}
