//! Lock files: at most one of a role per home.
//!
//! flock(2) belongs to the open file, so the kernel releases it however the
//! holder dies; the file itself says nothing and is never deleted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// First pause between two tries; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// A held lock; dropping it, or the death of the process, releases it.
#[derive(Debug)]
pub struct LockFile {
    _fd: OwnedFd,
}

impl LockFile {
    /// Takes the lock if nobody has it. The file is made with mode 0600.
    ///
    /// # Errors
    /// Of open(2) and flock(2).
    pub fn try_lock(path: &Path) -> io::Result<Option<LockFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = open(path, flags, Mode::RUSR | Mode::WUSR)?;
        loop {
            match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(LockFile { _fd: fd })),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes the lock, waiting for its holder at most `limit`; `None` then.
    ///
    /// It asks again and again: flock(2) knows no deadline, and an alarm
    /// signal would be somebody else's business too.
    ///
    /// # Errors
    /// Of open(2) and flock(2).
    pub fn lock_within(path: &Path, limit: Duration) -> io::Result<Option<LockFile>> {
        let deadline = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(lock) = LockFile::try_lock(path)? {
                return Ok(Some(lock));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}
