//! Descriptors: making them, passing them, receiving them.
//!
//! Every descriptor made or received here is close-on-exec, so that no child
//! holds what it was not given. Sends and receives never wait.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg,
};
use rustix::pipe::{PipeFlags, pipe_with};

/// Most descriptors the kernel puts into one message: SCM_MAX_FD of unix(7).
const MAX_FDS_PER_MESSAGE: usize = 253;

/// Whether operations on a descriptor wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// O_NONBLOCK is off.
    Waits,
    /// O_NONBLOCK is on.
    NeverWaits,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes; 0 is the end of the stream.
    pub len: usize,
    /// Descriptors came but could not be taken, for lack of descriptor numbers
    /// (`EMFILE`): the sender's message names one that is not in the queue.
    pub fds_lost: bool,
}

/// Returns a pair of connected stream sockets, as an IPC channel is.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn socketpair(blocking: Blocking) -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM, blocking)
}

/// Returns a pair of connected sockets that keep message boundaries.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn seqpacket_pair(blocking: Blocking) -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET, blocking)
}

fn pair(kind: SocketType, blocking: Blocking) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = match blocking {
        Blocking::Waits => SocketFlags::CLOEXEC,
        Blocking::NeverWaits => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
    };
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        kind,
        flags,
        None,
    )?)
}

/// Returns the read and the write end of a pipe, both waiting.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Sets or clears O_NONBLOCK, which belongs to the open file: every duplicate
/// of the descriptor, in any process, changes with it.
///
/// # Errors
/// Of fcntl(2).
pub fn set_blocking(fd: impl AsFd, blocking: Blocking) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    let wanted = match blocking {
        Blocking::Waits => flags - OFlags::NONBLOCK,
        Blocking::NeverWaits => flags | OFlags::NONBLOCK,
    };
    if wanted != flags {
        fcntl_setfl(&fd, wanted)?;
    }
    Ok(())
}

/// Duplicates a descriptor.
///
/// # Errors
/// `EMFILE`.
pub fn dup(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)
}

/// Sets the capacity of a pipe and returns what the kernel made of it, which
/// is rounded up to a power of two pages (F_SETPIPE_SZ of fcntl(2)).
///
/// # Errors
/// `EPERM` above `/proc/sys/fs/pipe-max-size` or the user's budget of pages,
/// `EBUSY` if more is in the pipe.
pub fn set_pipe_size(fd: impl AsFd, n_bytes: usize) -> io::Result<usize> {
    rustix::pipe::fcntl_setpipe_size(&fd, n_bytes)?;
    Ok(rustix::pipe::fcntl_getpipe_size(&fd)?)
}

/// Takes over a descriptor that the starter of this process left open for it,
/// by its number; from then on it is close-on-exec.
///
/// It refuses whatever is close-on-exec: that was opened by this process, has
/// an owner, and must not get a second one. So each number can be taken once.
///
/// # Errors
/// `EBADF` if nothing inheritable is open at this number, or it is one of the
/// standard descriptors.
pub fn take_inherited(number: i32) -> io::Result<OwnedFd> {
    let unusable = || io::Error::from_raw_os_error(libc::EBADF);
    if number <= libc::STDERR_FILENO {
        return Err(unusable());
    }
    // SAFETY: F_GETFD on a number that need not be open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(unusable());
    }
    // SAFETY: it is open and came through exec, so nothing in this process
    // owns it; marked close-on-exec, it cannot be taken again.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Returns a duplicate of this process's stderr.
///
/// # Errors
/// `EBADF` if it is closed, `EMFILE`.
pub fn own_stderr() -> io::Result<OwnedFd> {
    dup(std::io::stderr())
}

/// Raises the soft limit of open descriptors to the hard one and returns it;
/// children inherit it, as they do from Node.
///
/// # Errors
/// Of setrlimit(2).
pub fn raise_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(limit.maximum)
}

/// Opens `/dev/null` for reading and writing.
///
/// # Errors
/// Of open(2).
pub fn dev_null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

/// Lets sends that would wait longer than `limit` fail with `EAGAIN`
/// (SO_SNDTIMEO of socket(7)).
///
/// # Errors
/// Of setsockopt(2).
pub fn set_send_timeout(socket: impl AsFd, limit: Duration) -> io::Result<()> {
    Ok(set_socket_timeout(socket, Timeout::Send, Some(limit))?)
}

/// Lets receives that would wait longer than `limit` fail with `EAGAIN`
/// (SO_RCVTIMEO of socket(7)).
///
/// # Errors
/// Of setsockopt(2).
pub fn set_receive_timeout(socket: impl AsFd, limit: Duration) -> io::Result<()> {
    Ok(set_socket_timeout(socket, Timeout::Recv, Some(limit))?)
}

/// Sends bytes and at most one descriptor without waiting; returns how many
/// bytes went, with the descriptor on the first of them.
///
/// # Errors
/// `WouldBlock` if the peer's buffer is full, `EPIPE` without a signal if the
/// peer is gone, `ETOOMANYREFS` if too many descriptors are on their way.
pub fn send_with_fd(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    send(socket, bytes, fd, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

/// As [`send_with_fd`], but waits as long as the socket's own mode and send
/// timeout allow.
///
/// # Errors
/// As [`send_with_fd`].
pub fn send_with_fd_waiting(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    send(socket, bytes, fd, SendFlags::NOSIGNAL)
}

fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Receives without waiting; descriptors are appended to `fds`.
///
/// Returns the number of bytes, 0 at the end of the stream. Where a lost
/// descriptor would be mistaken for a later one, use [`receive`].
///
/// # Errors
/// `WouldBlock` if there is nothing to read.
pub fn recv_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    Ok(receive(socket, buffer, fds)?.len)
}

/// Receives without waiting and tells whether descriptors were lost.
///
/// # Errors
/// `WouldBlock` if there is nothing to read.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    recv(
        socket,
        buffer,
        fds,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    )
}

/// As [`receive`], but waits as long as the socket's own mode and receive
/// timeout allow.
///
/// # Errors
/// `WouldBlock` when the receive timeout is over.
pub fn receive_waiting(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    recv(socket, buffer, fds, RecvFlags::CMSG_CLOEXEC)
}

fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    for ancillary in control.drain() {
        // Of a foreign kind only credentials exist, and nobody asked for them.
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            fds.extend(received);
        }
    }
    Ok(Received {
        len: message.bytes,
        fds_lost: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// What to wait for on a descriptor. The end of the other side always counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
    /// Nothing but its end.
    End,
}

/// Waits until something happens on one of the descriptors, or `limit` is
/// over; returns on which, in the order given.
///
/// # Errors
/// Of poll(2); an interruption by a signal counts as nothing happened.
pub fn wait_for<const N: usize>(
    fds: [(BorrowedFd<'_>, Interest); N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|(fd, interest)| {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            Interest::Both => PollFlags::IN | PollFlags::OUT,
            Interest::End => PollFlags::empty(),
        };
        PollFd::from_borrowed_fd(fd, flags)
    });
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.map(|fd| !fd.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; N]),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until at least one descriptor can be read or has hung up, or `limit`
/// is over; returns which, in the order given.
///
/// # Errors
/// Of poll(2); an interruption by a signal counts as nothing readable.
pub fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    wait_for(fds.map(|fd| (fd, Interest::Read)), limit)
}
