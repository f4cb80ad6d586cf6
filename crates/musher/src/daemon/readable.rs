//! Waiting in the loop until any descriptor is readable.
//!
//! tokio's `AsyncFd` asks for `unsafe`, which this crate forbids. A pipe end
//! registers an owned descriptor with the same poller; nothing is read through
//! it, so it need not be a pipe.

use std::io;
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe::Receiver;

/// Waits until `fd` is readable (or at its end) and gives it back.
///
/// # Errors
/// Of epoll_ctl(2): no descriptors or memory left, or a kind of file that
/// cannot be waited for.
pub(crate) async fn readable(fd: OwnedFd) -> io::Result<OwnedFd> {
    let registered = Receiver::from_owned_fd_unchecked(fd)?;
    registered.readable().await?;
    registered.into_nonblocking_fd()
}
