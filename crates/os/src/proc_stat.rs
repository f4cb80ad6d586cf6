//! The text of `/proc/<pid>/stat` (proc_pid_stat(5)).
//!
//! The second field is the program's name in parentheses and may itself hold
//! spaces, newlines and parentheses; only the last `)` ends it. Parsing never
//! panics: what does not fit is `None`.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};

/// Longer than any stat line: 52 numbers of at most 20 digits and a name of at
/// most 64 bytes.
const MAX_STAT: usize = 2048;

/// The fields musher uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcStat {
    /// Process id.
    pub pid: u32,
    /// State letter: `R`, `S`, `D`, `Z`, `T`…
    pub state: u8,
    /// Parent's pid; 0 for the first process.
    pub ppid: u32,
    /// Session id: the pid of the session's leader.
    pub session: u32,
    /// Clock ticks in user mode.
    pub utime: u64,
    /// Clock ticks in kernel mode.
    pub stime: u64,
    /// Threads.
    pub n_threads: u64,
    /// Clock ticks after boot.
    pub start_time: u64,
    /// Resident pages.
    pub rss_pages: u64,
}

impl ProcStat {
    /// Returns whether only an exit status is left of the process. A main
    /// thread that ended before the others also reads `Z`, but has company.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.n_threads <= 1)
    }
}

/// Parses a stat line, with or without its newline.
pub fn parse(line: &[u8]) -> Option<ProcStat> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let pid = number(line.get(..open)?.trim_ascii())?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // The remaining fields start at number 4 of the manual page.
    let mut field = [0_u64; 21];
    for slot in &mut field {
        // Negative values (tpgid, priority, nice) are of no use here.
        *slot = fields.next()?.parse::<i128>().ok()?.try_into().unwrap_or(0);
    }
    let at = |page_number: usize| field[page_number - 4];
    Some(ProcStat {
        pid,
        state,
        ppid: at(4).try_into().ok()?,
        session: at(6).try_into().ok()?,
        utime: at(14),
        stime: at(15),
        n_threads: at(20),
        start_time: at(22),
        rss_pages: at(24),
    })
}

/// Reads the stat line of a process: open, read, close.
///
/// # Errors
/// `ENOENT` or `ESRCH` if it is gone, `InvalidData` if the kernel writes
/// something else.
pub fn read(pid: u32) -> io::Result<ProcStat> {
    read_open(open_file(pid)?.as_fd_ref())
}

/// Opens the stat file of a process, for repeated [`read_open`]s.
pub(crate) fn open_file(pid: u32) -> io::Result<StatFd> {
    let path = format!("/proc/{pid}/stat");
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(StatFd(fd))
}

/// Reads an open stat file from its start.
pub(crate) fn read_open(fd: BorrowedFd<'_>) -> io::Result<ProcStat> {
    let mut buffer = [0_u8; MAX_STAT];
    let len = rustix::io::pread(fd, &mut buffer, 0)?;
    parse(&buffer[..len]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An open stat file. It belongs to one process for ever: after the process is
/// gone reads fail with `ESRCH`, also when its pid is in use again.
#[derive(Debug)]
pub(crate) struct StatFd(std::os::fd::OwnedFd);

impl StatFd {
    pub(crate) fn as_fd_ref(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
