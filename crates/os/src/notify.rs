//! Words to the service manager (sd_notify(3)).
//!
//! systemd waits for `READY=1` on a datagram socket before it calls a service
//! started. Nothing is asked back: who is not started by it has no socket.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::fd;
use crate::unix_path::UnixPath;

/// Longest wait for the service manager to have read what was sent. Older
/// ones (before systemd 246) close the barrier at once.
const BARRIER_WAIT: Duration = Duration::from_secs(5);

/// Sends `text`, lines of `NAME=value`, to the socket `$NOTIFY_SOCKET` names,
/// and waits until it was read: the message of a process that is gone meanwhile
/// cannot be told to belong to a service. A name that begins with `@` is
/// abstract (unix(7)).
///
/// # Errors
/// Of socket(2), connect(2) and sendmsg(2): nobody listens there.
pub fn notify(socket: &OsStr, text: &str) -> io::Result<()> {
    let name = match socket.as_bytes() {
        [b'@', name @ ..] => [b"\0", name].concat(),
        path => path.to_vec(),
    };
    let address = UnixPath::new(&PathBuf::from(OsStr::from_bytes(&name)))?;
    let flags = SocketFlags::CLOEXEC;
    let sender = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    net::connect(&sender, &address.address)?;
    fd::send_with_fd_waiting(sender.as_fd(), text.as_bytes(), None)?;
    let (ours, theirs) = fd::pipe()?;
    fd::send_with_fd_waiting(sender.as_fd(), b"BARRIER=1", Some(theirs.as_fd()))?;
    drop(theirs);
    fd::wait_readable([ours.as_fd()], Some(BARRIER_WAIT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn check(listener: &UnixDatagram, name: &OsStr) {
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut text = [0; 64];
                let len = listener.recv(&mut text).unwrap();
                let mut fds = VecDeque::new();
                let mut barrier = [0; 64];
                let said = fd::receive_waiting(listener.as_fd(), &mut barrier, &mut fds).unwrap();
                assert_eq!(&barrier[..said.len], b"BARRIER=1");
                assert_eq!(fds.len(), 1);
                text[..len].to_vec()
            });
            notify(name, "READY=1\nSTATUS=up").unwrap();
            assert_eq!(reader.join().unwrap(), b"READY=1\nSTATUS=up");
        });
    }

    #[test]
    fn words_arrive_at_sockets_of_either_kind() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("notify");
        check(&UnixDatagram::bind(&path).unwrap(), path.as_os_str());
        let name = format!("musher-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        check(&listener, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn a_socket_nobody_reads_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("nobody");
        let refused = notify(path.as_os_str(), "READY=1").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    }
}
