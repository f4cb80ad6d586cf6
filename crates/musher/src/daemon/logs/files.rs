//! The open log files, by path, shared by every source of it: one descriptor to
//! append with, and one to move bytes to.
//!
//! Append mode is what makes several writers, `flush` and copy-and-truncate
//! rotation safe. Untouched output goes past it, see [`super::splice`]. A file
//! that cannot be written loses what comes, counted, and is tried again every
//! [`RETRY`]. Nothing here waits.

use super::splice::{Moved, Target};
use musher_core::id::Incarnation;
use musher_core::log::Stream;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts on a file that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Between two looks whether a file still has a name.
const LINK_CHECK: Duration = Duration::from_secs(1);

/// Every open log file, by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    by_path: HashMap<Arc<str>, LogFile>,
}

#[derive(Debug)]
struct LogFile {
    path: Arc<str>,
    fd: Option<OwnedFd>,
    /// The same file for splice(2), if it is one that can be moved to.
    target: Option<Target>,
    /// Streams that write to it.
    n_users: usize,
    end: End,
    /// When the beginning of a line was moved there that its writer is expected to end.
    begun_at: Option<Instant>,
    /// Not to be tried before.
    retry_at: Option<Instant>,
    /// When to look whether it was deleted.
    check_at: Instant,
    /// The last failure.
    error: Errno,
}

/// Who writes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) run: Incarnation,
    pub(super) stream: Stream,
}

/// What a file ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A whole line.
    Line,
    /// The beginning of a line its writer may continue.
    Begun(Writer),
    /// The beginning of a line whose rest was lost.
    Torn,
}

impl End {
    /// What a file ends with after `writer` wrote something up to `last`.
    fn after(last: u8, writer: Writer) -> End {
        match last {
            b'\n' => End::Line,
            _ => End::Begun(writer),
        }
    }

    /// Returns true when what `writer` says need not begin with a new line.
    fn may_go_on(self, writer: Writer) -> bool {
        match self {
            End::Line => true,
            End::Begun(by) => by == writer,
            End::Torn => false,
        }
    }
}

/// What could not be written.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) n_bytes: usize,
    pub(super) error: Errno,
}

impl Files {
    /// Adds a user of a path and opens it. A failure shows at the first write.
    pub(super) fn acquire(&mut self, path: &Arc<str>, now: Instant) {
        let file = self
            .by_path
            .entry(Arc::clone(path))
            .or_insert_with(|| LogFile {
                path: Arc::clone(path),
                fd: None,
                target: None,
                n_users: 0,
                end: End::Line,
                begun_at: None,
                retry_at: None,
                check_at: now + LINK_CHECK,
                error: Errno::IO,
            });
        file.n_users += 1;
        file.open(now);
    }

    /// Removes a user; the last one closes the file.
    pub(super) fn release(&mut self, path: &str, writer: Writer) {
        if let Some(file) = self.by_path.get_mut(path) {
            if file.end == End::Begun(writer) {
                file.begun_at = None;
            }
            file.n_users -= 1;
            if file.n_users == 0 {
                self.by_path.remove(path);
            }
        }
    }

    /// Opens every file anew by its path.
    pub(super) fn reopen(&mut self, now: Instant) {
        for file in self.by_path.values_mut() {
            file.reopen(now);
        }
    }

    /// Appends `bytes`. A line somebody else has begun is ended first: theirs is
    /// split, this one is intact.
    ///
    /// # Errors
    /// [`Loss`] with the bytes at the end that are not in the file.
    pub(super) fn append(
        &mut self,
        path: &str,
        writer: Writer,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Loss> {
        match self.by_path.get_mut(path) {
            Some(file) => file.append(writer, bytes, now),
            None => Ok(()),
        }
    }

    /// Returns true when several streams write to the file.
    pub(super) fn is_shared(&self, path: &str) -> bool {
        self.by_path.get(path).is_some_and(|file| file.n_users > 1)
    }

    /// Returns since when the file ends in the middle of a line that somebody other
    /// than `writer` wrote when the file was theirs alone.
    pub(super) fn begun_at(&self, path: &str, writer: Writer) -> Option<Instant> {
        let file = self.by_path.get(path)?;
        file.begun_at.filter(|_| !file.end.may_go_on(writer))
    }

    /// Returns true when [`Files::take`] may be tried.
    pub(super) fn may_take(&self, path: &str, writer: Writer) -> bool {
        self.by_path.get(path).is_some_and(|file| {
            file.target.as_ref().is_some_and(Target::is_ours) && file.end.may_go_on(writer)
        })
    }

    /// Moves up to `n_max` bytes from a pipe to the end of the file.
    ///
    /// # Errors
    /// As [`Target::take`], and `EBUSY` if the file takes only appends for the time
    /// being: it failed, or ends with a line somebody else has begun.
    pub(super) fn take(
        &mut self,
        path: &str,
        writer: Writer,
        pipe: BorrowedFd<'_>,
        n_max: usize,
        now: Instant,
    ) -> Result<Moved, Errno> {
        match self.by_path.get_mut(path) {
            Some(file) => file.take(writer, pipe, n_max, now),
            None => Err(Errno::BUSY),
        }
    }
}

impl LogFile {
    fn take(
        &mut self,
        writer: Writer,
        pipe: BorrowedFd<'_>,
        n_max: usize,
        now: Instant,
    ) -> Result<Moved, Errno> {
        self.prepare(now)?;
        let target = self.target.as_mut().ok_or(Errno::BUSY)?;
        if !self.end.may_go_on(writer) {
            return Err(Errno::BUSY);
        }
        let moved = target.take(pipe, n_max)?;
        self.end = End::after(moved.last, writer);
        self.begun_at = (self.end != End::Line).then_some(now);
        Ok(moved)
    }

    fn append(&mut self, writer: Writer, bytes: &[u8], now: Instant) -> Result<(), Loss> {
        let Some(last) = bytes.last() else {
            return Ok(());
        };
        let mut rest = bytes;
        match self.write(writer, &mut rest, now) {
            Ok(()) => {
                self.end = End::after(*last, writer);
                Ok(())
            }
            Err(error) => {
                let n_written = bytes.len() - rest.len();
                self.end = match (bytes[..n_written].last(), self.end) {
                    (Some(b'\n'), _) | (None, End::Line) => End::Line,
                    (Some(_), _) | (None, End::Begun(_) | End::Torn) => End::Torn,
                };
                Err(Loss {
                    n_bytes: rest.len(),
                    error,
                })
            }
        }
    }

    fn write(&mut self, writer: Writer, rest: &mut &[u8], now: Instant) -> Result<(), Errno> {
        self.prepare(now)?;
        self.begun_at = None;
        let before = rest.len();
        let written = self.write_on(writer, rest);
        if let Some(target) = &mut self.target {
            target.appended(before - rest.len());
        }
        if let Err(error) = written {
            self.fail(error, now);
        }
        written
    }

    fn write_on(&mut self, writer: Writer, rest: &mut &[u8]) -> Result<(), Errno> {
        let fd = self.fd.as_ref().ok_or(self.error)?;
        if !self.end.may_go_on(writer) {
            write_all(fd, &mut b"\n".as_slice())?;
            if let Some(target) = &mut self.target {
                target.appended(1);
            }
            self.end = End::Line;
        }
        write_all(fd, rest)
    }

    /// Makes sure that the file is open and the one of that name.
    fn prepare(&mut self, now: Instant) -> Result<(), Errno> {
        self.open(now);
        if self.retry_at.is_some() {
            return Err(self.error);
        }
        if self.fd.is_some() && now >= self.check_at {
            self.follow_deletion(now);
        }
        match &self.fd {
            Some(_) => Ok(()),
            None => Err(self.error),
        }
    }

    /// Opens the file if it is not, unless it failed a moment ago.
    fn open(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        if self.fd.is_some() {
            return;
        }
        self.check_at = now + LINK_CHECK;
        match open(&self.path) {
            Ok(fd) => {
                self.target = Target::open(&fd);
                self.fd = Some(fd);
            }
            Err(error) => self.fail(error, now),
        }
    }

    fn reopen(&mut self, now: Instant) {
        self.fd = None;
        self.target = None;
        self.end = End::Line;
        self.begun_at = None;
        self.retry_at = None;
        self.open(now);
    }

    /// Someone deleted the file without telling: bytes written on would be lost.
    fn follow_deletion(&mut self, now: Instant) {
        self.check_at = now + LINK_CHECK;
        let stat = self.fd.as_ref().map(rustix::fs::fstat);
        if stat.is_some_and(|stat| stat.is_ok_and(|stat| stat.st_nlink == 0)) {
            self.reopen(now);
        }
    }

    fn fail(&mut self, error: Errno, now: Instant) {
        self.error = error;
        self.retry_at = Some(now + RETRY);
    }
}

fn write_all(fd: &OwnedFd, rest: &mut &[u8]) -> Result<(), Errno> {
    while !rest.is_empty() {
        match rustix::io::write(fd, rest) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => *rest = &rest[n..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a log file for appending and creates it and its directories, readable
/// for the group unless its owner is root.
///
/// A symbolic link is refused: it could point anywhere by the time the daemon
/// follows it. `/dev/stdout` and `/dev/stderr` are links that containers log to.
fn open(path: &str) -> Result<OwnedFd, Errno> {
    let as_root = rustix::process::geteuid().is_root();
    let (dir_mode, mode) = if as_root {
        (0o700, Mode::from_raw_mode(0o600))
    } else {
        (0o750, Mode::from_raw_mode(0o640))
    };
    // O_NONBLOCK: a FIFO without a reader fails instead of waiting for one.
    let mut flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    if !matches!(path, "/dev/stdout" | "/dev/stderr") {
        flags |= OFlags::NOFOLLOW;
    }
    match rustix::fs::open(path, flags, mode) {
        Err(Errno::NOENT) => {
            if let Some(dir) = Path::new(path).parent() {
                // Its failure shows in the second open.
                let _ = std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(dir_mode)
                    .create(dir);
            }
            rustix::fs::open(path, flags, mode)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const WRITER: Writer = Writer {
        run: Incarnation(1),
        stream: Stream::Out,
    };

    fn path_in(dir: &tempfile::TempDir, name: &str) -> Arc<str> {
        Arc::from(dir.path().join(name).to_str().unwrap())
    }

    #[test]
    fn directories_and_file_are_created_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(&dir, "a/b/app-out.log");
        let mut files = Files::default();
        files.acquire(&path, Instant::now());
        files.append(&path, WRITER, b"x\n", Instant::now()).unwrap();
        let mode = std::fs::metadata(&*path).unwrap().permissions().mode() & 0o777;
        let expected = if rustix::process::geteuid().is_root() {
            0o600
        } else {
            0o640
        };
        assert_eq!(mode & !expected, 0, "{mode:o}");
        assert_eq!(std::fs::read(&*path).unwrap(), b"x\n");
    }

    #[test]
    fn a_symbolic_link_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, b"precious").unwrap();
        let path = path_in(&dir, "app.log");
        std::os::unix::fs::symlink(&victim, &*path).unwrap();
        let mut files = Files::default();
        files.acquire(&path, Instant::now());
        let loss = files
            .append(&path, WRITER, b"x\n", Instant::now())
            .unwrap_err();
        assert_eq!((loss.n_bytes, loss.error), (2, Errno::LOOP));
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_deleted_file_comes_back_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(&dir, "app.log");
        let mut files = Files::default();
        let now = Instant::now();
        files.acquire(&path, now);
        files.append(&path, WRITER, b"old\n", now).unwrap();
        std::fs::remove_file(&*path).unwrap();
        files
            .append(&path, WRITER, b"new\n", now + LINK_CHECK)
            .unwrap();
        assert_eq!(std::fs::read(&*path).unwrap(), b"new\n");
    }

    #[test]
    fn a_missing_directory_is_retried_after_a_while_only() {
        let dir = tempfile::tempdir().unwrap();
        let blocker = dir.path().join("logs");
        std::fs::write(&blocker, b"in the way").unwrap();
        let path = path_in(&dir, "logs/app.log");
        let mut files = Files::default();
        let now = Instant::now();
        files.acquire(&path, now);
        assert_eq!(
            files
                .append(&path, WRITER, b"a\n", now)
                .unwrap_err()
                .n_bytes,
            2
        );
        std::fs::remove_file(&blocker).unwrap();
        files.append(&path, WRITER, b"b\n", now).unwrap_err();
        files.append(&path, WRITER, b"c\n", now + RETRY).unwrap();
        assert_eq!(std::fs::read(&*path).unwrap(), b"c\n");
    }

    #[test]
    fn a_fifo_without_a_reader_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(&dir, "fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &*path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut files = Files::default();
        files.acquire(&path, Instant::now());
        let loss = files
            .append(&path, WRITER, b"x\n", Instant::now())
            .unwrap_err();
        assert_eq!(loss.error, Errno::NXIO);
    }
}
