//! The daemon's side of its keeper.
//!
//! A daemon first takes back what was parked before it, then parks what it
//! makes. A send waits at most [`SEND_LIMIT`], and after one that failed none
//! waits until one goes through: a keeper that hangs must not hang the daemon,
//! which goes on without parking and says so once. Whether it hangs is told by
//! [`KeeperClient::ping`]; one that does can be killed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use musher_core::exit::{ExitStatus, Signal};
use musher_os::{fd, kill};

use super::protocol::{MAX_MESSAGE, Name, ToDaemon, ToKeeper, VERSION};

/// Longest wait of one send; then it fails with `WouldBlock`.
pub(crate) const SEND_LIMIT: Duration = Duration::from_secs(2);

/// Longest silence while the keeper hands over; then `take_back` fails with
/// `WouldBlock`.
pub(crate) const TAKE_BACK_LIMIT: Duration = Duration::from_secs(5);

/// The connection to the keeper.
#[derive(Debug)]
pub(crate) struct KeeperClient {
    socket: OwnedFd,
    /// The keeper itself; older ones do not tell.
    pidfd: Option<OwnedFd>,
    /// What it speaks; 0 until it has told.
    version: u8,
    /// The last send failed, and the caller was told.
    is_failing: AtomicBool,
}

/// What the keeper had for a new daemon.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Parked descriptors by name, in no order.
    pub(crate) fds: Vec<(String, OwnedFd)>,
    /// Orphans whose end no daemon has stored, oldest first.
    pub(crate) exits: Vec<(u32, ExitStatus)>,
    /// Why this daemon serves and not the executable of an update.
    pub(crate) why: Option<String>,
}

/// What the keeper tells a serving daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeeperMessage {
    /// An orphan ended.
    Exited {
        /// Its pid.
        pid: u32,
        /// How.
        status: ExitStatus,
    },
    /// The keeper had no room, or no descriptor number, for this one.
    Refused(String),
    /// It lives, and answers a ping.
    Pong,
    /// It starts the next executable when this daemon ends.
    Go,
}

impl KeeperClient {
    /// Takes the daemon's end of the socketpair, which is `--keeper-fd`.
    ///
    /// # Errors
    /// Of setsockopt(2), if it is no socket.
    pub(crate) fn from_fd(socket: OwnedFd) -> io::Result<KeeperClient> {
        fd::set_send_timeout(&socket, SEND_LIMIT)?;
        fd::set_receive_timeout(&socket, TAKE_BACK_LIMIT)?;
        Ok(KeeperClient {
            socket,
            pidfd: None,
            version: 0,
            is_failing: AtomicBool::new(false),
        })
    }

    /// Says what this daemon speaks, and receives everything that was parked. To
    /// be called first.
    ///
    /// # Errors
    /// `UnexpectedEof` if the keeper is gone, `WouldBlock` if it is silent for
    /// [`TAKE_BACK_LIMIT`], `InvalidData` if a descriptor got lost on the way
    /// (`EMFILE`: raise the limit first, [`fd::raise_limit`]).
    pub(crate) fn take_back(&mut self) -> io::Result<Restored> {
        // The keeper may be gone; then reading says so.
        self.send(ToKeeper::Hello(VERSION), None).ok();
        let mut restored = Restored::default();
        let mut fds = VecDeque::new();
        loop {
            let mut packet = [0; MAX_MESSAGE];
            let received = fd::receive_waiting(self.socket.as_fd(), &mut packet, &mut fds)?;
            match decode(&packet[..received.len])? {
                Some(ToDaemon::Give(name)) => {
                    let fd = fds.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                    restored.fds.push((name.as_str().to_owned(), fd));
                }
                Some(ToDaemon::Exited { pid, status }) => restored.exits.push((pid, status)),
                Some(ToDaemon::End(version)) => {
                    self.version = version;
                    return Ok(restored);
                }
                Some(ToDaemon::Keeper) => self.pidfd = fds.pop_front(),
                Some(ToDaemon::Why(text)) => restored.why = Some(text.as_str().to_owned()),
                Some(ToDaemon::Refused(_) | ToDaemon::Pong | ToDaemon::Go) | None => {}
            }
            // Of an unknown kind; nobody waits for it.
            fds.clear();
        }
    }

    /// Parks a duplicate of a descriptor, in place of one of the same name.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty or too long; `BrokenPipe` if the
    /// keeper is gone, `WouldBlock` if it does not read for [`SEND_LIMIT`]. Of
    /// such failures only the first in a row is told.
    pub(crate) fn park(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.send_if_heard(ToKeeper::Park(checked(name)?), Some(fd))
    }

    /// Lets the keeper close a descriptor.
    ///
    /// # Errors
    /// As [`KeeperClient::park`].
    pub(crate) fn drop_fd(&self, name: &str) -> io::Result<()> {
        self.send_if_heard(ToKeeper::Drop(checked(name)?), None)
    }

    /// Lets the keeper close every descriptor whose name begins so.
    ///
    /// # Errors
    /// As [`KeeperClient::park`].
    pub(crate) fn drop_prefix(&self, prefix: &str) -> io::Result<()> {
        self.send_if_heard(ToKeeper::DropPrefix(checked(prefix)?), None)
    }

    /// Says that the daemon serves; the keeper passes it on to whoever started
    /// it all.
    ///
    /// # Errors
    /// `BrokenPipe` or `WouldBlock`, as [`KeeperClient::park`].
    pub(crate) fn ready(&self) -> io::Result<()> {
        self.send(ToKeeper::Ready, None)
    }

    /// Says that the daemon is about to end for good; when it has, the keeper
    /// ends too.
    ///
    /// # Errors
    /// As [`KeeperClient::ready`].
    pub(crate) fn quit(&self) -> io::Result<()> {
        self.send(ToKeeper::Quit, None)
    }

    /// Says that the end of an orphan is stored.
    ///
    /// # Errors
    /// As [`KeeperClient::park`].
    pub(crate) fn heard(&self, pid: u32) -> io::Result<()> {
        self.send_if_heard(ToKeeper::Heard(pid), None)
    }

    /// Asks for a sign of life, [`KeeperMessage::Pong`]. Never waits.
    ///
    /// # Errors
    /// `BrokenPipe` if the keeper is gone, `WouldBlock` if it does not read.
    pub(crate) fn ping(&self) -> io::Result<()> {
        let packet = ToKeeper::Ping.encode();
        fd::send_with_fd(self.socket.as_fd(), packet.as_bytes(), None)?;
        Ok(())
    }

    /// Says that another executable, at this path, is to follow when this
    /// daemon ends; the answer is [`KeeperMessage::Go`].
    ///
    /// # Errors
    /// As [`KeeperClient::ready`].
    pub(crate) fn hand_over(&self, path: &str) -> io::Result<()> {
        let mut rest = path;
        while let Some((piece, further)) = Name::first_of(rest) {
            self.send(ToKeeper::Next(piece), None)?;
            rest = further;
        }
        self.send(ToKeeper::HandOver, None)
    }

    /// Returns the version the keeper told; 0 before it did.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// Kills the keeper; its end is then told as that of one that died.
    ///
    /// # Errors
    /// `Unsupported` for a keeper that did not tell who it is.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => kill::signal(pidfd, Signal::KILL),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the next message without waiting; call it until `None` when
    /// [`KeeperClient::as_fd`] is readable.
    ///
    /// # Errors
    /// `UnexpectedEof` if the keeper is gone.
    pub(crate) fn try_recv(&self) -> io::Result<Option<KeeperMessage>> {
        loop {
            let mut packet = [0; MAX_MESSAGE];
            let mut fds = VecDeque::new();
            let received = match fd::receive(self.socket.as_fd(), &mut packet, &mut fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                result => result?,
            };
            match decode(&packet[..received.len])? {
                Some(ToDaemon::Exited { pid, status }) => {
                    return Ok(Some(KeeperMessage::Exited { pid, status }));
                }
                Some(ToDaemon::Refused(name)) => {
                    return Ok(Some(KeeperMessage::Refused(name.as_str().to_owned())));
                }
                Some(ToDaemon::Pong) => return Ok(Some(KeeperMessage::Pong)),
                Some(ToDaemon::Go) => return Ok(Some(KeeperMessage::Go)),
                Some(
                    ToDaemon::Give(_) | ToDaemon::End(_) | ToDaemon::Keeper | ToDaemon::Why(_),
                )
                | None => {}
            }
        }
    }

    /// Sends as [`KeeperClient::send`]; in a row of failures only the first
    /// waits, and only the first is an error.
    fn send_if_heard(&self, message: ToKeeper, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if !self.is_failing.load(Ordering::Relaxed) {
            let sent = self.send(message, fd);
            self.is_failing.store(sent.is_err(), Ordering::Relaxed);
            return sent;
        }
        let sent = fd::send_with_fd(self.socket.as_fd(), message.encode().as_bytes(), fd);
        self.is_failing.store(sent.is_err(), Ordering::Relaxed);
        Ok(())
    }

    fn send(&self, message: ToKeeper, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let packet = message.encode();
        fd::send_with_fd_waiting(self.socket.as_fd(), packet.as_bytes(), fd)?;
        Ok(())
    }
}

impl AsFd for KeeperClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An empty packet is the end of the connection; neither side sends one.
fn decode(packet: &[u8]) -> io::Result<Option<ToDaemon>> {
    if packet.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(ToDaemon::decode(packet))
}

fn checked(name: &str) -> io::Result<Name> {
    Name::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn pair() -> (KeeperClient, OwnedFd) {
        let (ours, theirs) = fd::seqpacket_pair(fd::Blocking::Waits).unwrap();
        let client = KeeperClient::from_fd(ours).unwrap();
        fd::set_send_timeout(&client, Duration::from_millis(10)).unwrap();
        (client, theirs)
    }

    #[test]
    fn a_keeper_that_hangs_is_waited_for_once_and_told_once_until_it_reads() {
        let (client, keeper) = pair();
        let null = fd::dev_null().unwrap();
        let park = || client.park("run/1/2/out", null.as_fd());
        while park().is_ok() {}
        fd::set_send_timeout(&client, Duration::from_secs(60)).unwrap();
        let start = Instant::now();
        for _ in 0..100 {
            park().unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no send waits");
        let mut packet = [0; MAX_MESSAGE];
        let mut fds = VecDeque::new();
        while fd::receive(keeper.as_fd(), &mut packet, &mut fds).is_ok() {}
        fd::set_send_timeout(&client, Duration::from_millis(10)).unwrap();
        park().unwrap();
        assert!(!client.is_failing.load(Ordering::Relaxed));
        while park().is_ok() {}
        assert!(client.is_failing.load(Ordering::Relaxed), "told anew");
    }

    #[test]
    fn a_keeper_that_is_gone_is_told_once_and_quit_is_always_an_error() {
        let (client, keeper) = pair();
        drop(keeper);
        let null = fd::dev_null().unwrap();
        let error = client.park("a", null.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        client.park("b", null.as_fd()).unwrap();
        client.drop_fd("a").unwrap();
        client.drop_prefix("b").unwrap();
        client.quit().unwrap_err();
    }
}
