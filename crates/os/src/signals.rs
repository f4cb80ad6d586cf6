//! What a role of musher does with signals: ignore, block, read.
//!
//! Children start with default dispositions and an empty mask whatever is set
//! here (see [`mod@crate::spawn`]). No handler is ever installed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use musher_core::exit::Signal;

/// Signals as bytes to read; made by [`block_and_read`].
#[derive(Debug)]
pub struct SignalReader {
    fd: OwnedFd,
}

/// Ignores SIGPIPE: a write to a peer that is gone is an error, not a death.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no code; signal(2) cannot fail for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Makes orphaned descendants children of the calling process instead of
/// init's (PR_SET_CHILD_SUBREAPER of prctl(2)).
///
/// # Errors
/// Of prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    // Any pid means "on"; the call only looks whether there is one.
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// Blocks `signals` in the calling thread and returns where to read them
/// (signalfd(2)). Call it before any other thread is started.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn block_and_read(signals: &[Signal]) -> io::Result<SignalReader> {
    // SAFETY: sigemptyset initialises the set that the other calls read; a
    // descriptor that signalfd returns is nobody else's.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, signal.0);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(SignalReader {
            fd: OwnedFd::from_raw_fd(fd),
        })
    }
}

impl SignalReader {
    /// Returns the next pending signal; equal ones that came together are one.
    ///
    /// # Errors
    /// Of read(2).
    pub fn next(&self) -> io::Result<Option<Signal>> {
        const LEN: usize = size_of::<libc::signalfd_siginfo>();
        let mut buffer = [MaybeUninit::<u8>::uninit(); LEN];
        match rustix::io::read(&self.fd, &mut buffer) {
            // ssi_signo is the first field, a u32 (signalfd(2)).
            Ok((head, _)) => Ok(head
                .first_chunk::<4>()
                .and_then(|bytes| i32::try_from(u32::from_ne_bytes(*bytes)).ok())
                .map(Signal)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
