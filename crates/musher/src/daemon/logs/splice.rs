//! From a pipe to a file without a stop in memory.
//!
//! splice(2) moves bytes inside the kernel: whenever the daemon is killed, each is
//! in the pipe, which the keeper holds open, or in the file; none is lost or
//! written twice.
//!
//! The call refuses descriptors in append mode, so it gets one without, and the
//! offset where the file ends. It is used only while the file has exactly the size
//! this daemon left it with. A file that shrank (copy and truncate) gets one
//! ordinary append first, so that no hole is made; one that grew has another
//! writer, and is appended to until it is opened again. What remains: somebody who
//! truncates for the first time, or appends for the first time, in the microsecond
//! between the look and the move gets a hole, or loses the bytes of that append.
//! Who truncates loses what is written just then anyway, and a second writer is
//! noticed by the first thing it writes.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A regular file that bytes can be moved to.
#[derive(Debug)]
pub(super) struct Target {
    /// Readable and writable, not in append mode.
    fd: OwnedFd,
    /// Size of the file as far as this daemon knows.
    end: u64,
    /// Somebody else appends to it.
    is_shared: bool,
}

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// At least 1.
    pub(super) n_bytes: usize,
    /// The last of them.
    pub(super) last: u8,
}

impl Target {
    /// Opens the file behind `appending` once more. `None` if it is no regular
    /// file, may not be read, or only be appended to: `chattr +a`.
    pub(super) fn open(appending: &OwnedFd) -> Option<Target> {
        let stat = rustix::fs::fstat(appending).ok()?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return None;
        }
        // Not by its path: that may be another file by now.
        let path = format!("/proc/self/fd/{}", appending.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        Some(Target {
            fd: rustix::fs::open(path, flags, Mode::empty()).ok()?,
            end: u64::try_from(stat.st_size).ok()?,
            is_shared: false,
        })
    }

    /// Returns true while nobody else is known to append to the file.
    pub(super) fn is_ours(&self) -> bool {
        !self.is_shared
    }

    /// Notes that this daemon appended to the file.
    pub(super) fn appended(&mut self, n_bytes: usize) {
        self.end += n_bytes as u64;
    }

    /// Moves up to `n_max` bytes from the pipe to the end of the file.
    ///
    /// # Errors
    /// Nothing was moved. `EAGAIN`: the pipe is empty. `EBUSY`: the file was
    /// changed by somebody else. `ENODATA`: the pipe has ended. Others are
    /// splice(2)'s. Reading and appending is right after all but `EAGAIN`.
    pub(super) fn take(&mut self, pipe: BorrowedFd<'_>, n_max: usize) -> Result<Moved, Errno> {
        let size = rustix::fs::fstat(&self.fd)?.st_size;
        let size = u64::try_from(size).map_err(|_| Errno::IO)?;
        let is_ours = size == self.end;
        self.is_shared |= size > self.end;
        self.end = size;
        if self.is_shared || !is_ours {
            return Err(Errno::BUSY);
        }
        let was_empty = rustix::io::ioctl_fionread(pipe)? == 0;
        let flags = SpliceFlags::NONBLOCK;
        let mut end = self.end;
        let n_bytes = match rustix::pipe::splice(pipe, None, &self.fd, Some(&mut end), n_max, flags)
        {
            Ok(0) => return Err(Errno::NODATA),
            Ok(n) => n,
            // The file's answer, not the pipe's: nobody else reads it.
            Err(Errno::AGAIN) if !was_empty => return Err(Errno::IO),
            Err(error) => return Err(error),
        };
        self.end += n_bytes as u64;
        let mut last = [0];
        // Unreadable: taken for the middle of a line, which somebody else will end.
        let _ = rustix::io::pread(&self.fd, &mut last, self.end - 1);
        Ok(Moved {
            n_bytes,
            last: last[0],
        })
    }
}

/// Looks at what a pipe holds and leaves it there.
#[derive(Debug, Default)]
pub(super) struct Peek {
    /// Reading and writing end of the pipe for copies; made when needed.
    ends: Option<(OwnedFd, OwnedFd)>,
}

impl Peek {
    /// Copies the beginning of what the pipe holds to `buffer`; returns how much.
    ///
    /// # Errors
    /// `EAGAIN`: the pipe is empty. Others are tee(2)'s, pipe(2)'s and read(2)'s.
    pub(super) fn look(&mut self, pipe: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        // Put back only when it is empty again.
        let (reader, writer) = match self.ends.take() {
            Some(ends) => ends,
            None => pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?,
        };
        let teed = rustix::pipe::tee(pipe, writer.as_fd(), buffer.len(), SpliceFlags::NONBLOCK);
        let n_bytes = *teed.as_ref().unwrap_or(&0);
        let mut n_read = 0;
        while n_read < n_bytes {
            match rustix::io::read(&reader, &mut buffer[n_read..n_bytes])? {
                0 => return Err(Errno::IO),
                n => n_read += n,
            }
        }
        self.ends = Some((reader, writer));
        teed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::path::{Path, PathBuf};

    struct Bench {
        dir: tempfile::TempDir,
        reader: std::io::PipeReader,
        writer: std::io::PipeWriter,
    }

    impl Bench {
        fn new() -> Bench {
            let (reader, writer) = std::io::pipe().unwrap();
            rustix::io::ioctl_fionbio(&reader, true).unwrap();
            Bench {
                dir: tempfile::tempdir().unwrap(),
                reader,
                writer,
            }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("app.log")
        }

        fn target(&self) -> Target {
            Target::open(&appending(&self.path())).unwrap()
        }

        fn say(&mut self, text: &str) {
            self.writer.write_all(text.as_bytes()).unwrap();
        }

        fn take(&self, target: &mut Target, n_max: usize) -> Result<usize, Errno> {
            let moved = target.take(self.reader.as_fd(), n_max)?;
            let file = std::fs::read(self.path()).unwrap();
            assert_eq!(file.last(), Some(&moved.last));
            Ok(moved.n_bytes)
        }

        /// What the pipe still holds.
        fn rest(&mut self) -> String {
            let mut buffer = [0; 64];
            let n = self.reader.read(&mut buffer).unwrap_or(0);
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        }

        fn file(&self) -> String {
            std::fs::read_to_string(self.path()).unwrap()
        }
    }

    fn appending(path: &Path) -> OwnedFd {
        let mut options = std::fs::File::options();
        options.append(true).create(true).open(path).unwrap().into()
    }

    #[test]
    fn every_byte_is_in_the_pipe_or_in_the_file() {
        let mut bench = Bench::new();
        std::fs::write(bench.path(), "before\n").unwrap();
        let mut target = bench.target();
        assert_eq!(bench.take(&mut target, 64), Err(Errno::AGAIN));
        bench.say("one\ntwo\nthree\n");
        assert_eq!(bench.take(&mut target, 4), Ok(4));
        assert_eq!(bench.take(&mut target, 3), Ok(3));
        assert_eq!(bench.file(), "before\none\ntwo");
        assert_eq!(bench.rest(), "\nthree\n");
    }

    #[test]
    fn the_end_of_the_pipe_is_not_its_emptiness() {
        let bench = Bench::new();
        let mut target = bench.target();
        let Bench { reader, writer, .. } = bench;
        drop(writer);
        assert_eq!(target.take(reader.as_fd(), 64), Err(Errno::NODATA));
    }

    #[test]
    fn a_truncated_file_gets_one_append_first_and_no_hole() {
        let mut bench = Bench::new();
        let mut target = bench.target();
        bench.say("rotated away\n");
        bench.take(&mut target, 64).unwrap();
        std::fs::write(bench.path(), "").unwrap();
        bench.say("kept\n");
        assert_eq!(bench.take(&mut target, 64), Err(Errno::BUSY));
        assert_eq!(bench.take(&mut target, 64), Ok(5));
        assert_eq!(bench.file(), "kept\n");
    }

    #[test]
    fn a_file_somebody_else_appends_to_is_left_to_appends() {
        let mut bench = Bench::new();
        let mut target = bench.target();
        let fd = appending(&bench.path());
        rustix::io::write(&fd, b"ours\n").unwrap();
        target.appended(5);
        bench.say("more\n");
        assert_eq!(bench.take(&mut target, 64), Ok(5));
        rustix::io::write(&fd, b"theirs\n").unwrap();
        bench.say("last\n");
        for _ in 0..2 {
            assert_eq!(bench.take(&mut target, 64), Err(Errno::BUSY));
            assert!(!target.is_ours());
        }
        assert_eq!(bench.rest(), "last\n");
        assert!(bench.target().is_ours(), "opened again");
    }

    #[test]
    fn devices_and_fifos_are_no_targets() {
        for device in ["/dev/null", "/dev/full"] {
            assert!(Target::open(&appending(Path::new(device))).is_none());
        }
        let (_reader, writer) = std::io::pipe().unwrap();
        assert!(Target::open(&writer.into()).is_none());
    }

    #[test]
    fn a_look_takes_nothing() {
        let mut bench = Bench::new();
        let mut peek = Peek::default();
        let mut buffer = [0; 64];
        let look = |peek: &mut Peek, bench: &Bench, buffer: &mut [u8]| {
            peek.look(bench.reader.as_fd(), buffer)
        };
        assert_eq!(look(&mut peek, &bench, &mut buffer), Err(Errno::AGAIN));
        for said in ["one\n", "two\n"] {
            bench.say(said);
            for _ in 0..2 {
                assert_eq!(look(&mut peek, &bench, &mut buffer), Ok(4));
                assert_eq!(&buffer[..4], said.as_bytes());
            }
            assert_eq!(bench.rest(), said);
        }
    }
}
