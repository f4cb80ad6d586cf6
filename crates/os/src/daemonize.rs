//! Starting a process that outlives its starter.
//!
//! The child is forked twice and leads its own session, so no terminal and no
//! shell job ends it; its output goes to a file. A pipe tells the starter when
//! it is ready. It never waits without a deadline.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};

use crate::exec::{self, ChildFds, Image};
use crate::fd;
use crate::spawn::{self, ExecOutcome, SpawnError, Step, read_exec_result};

/// Number of the ready pipe's write end in the started process: it writes one
/// byte there when it serves, and closes it.
pub const READY_FD: i32 = 3;

/// Longest wait for the child's exec, which is a fork and a file away.
const EXEC_WAIT: Duration = Duration::from_secs(10);

/// What the ready pipe said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The process wrote this byte.
    Ready(u8),
    /// It ended, or closed the pipe without a word.
    Closed,
    /// The deadline came first; the process may still be starting.
    TimedOut,
}

/// Starts `argv` detached, in directory `cwd`, with the caller's environment;
/// returns the read end of its ready pipe. stdin is `/dev/null`; stdout and
/// stderr are appended to `log` (made with mode 0600).
///
/// `argv[0]` is a path. Returns when exec succeeded or failed.
///
/// # Errors
/// The failed step, with the file it was about.
pub fn start(argv: &[impl AsRef<OsStr>], log: &Path, cwd: &Path) -> Result<OwnedFd, SpawnError> {
    let pipe_error = |error: io::Error| step_error(Step::Pipe, &error, "");
    let (ready, ready_write) = fd::pipe().map_err(pipe_error)?;
    start_holding(argv, log, cwd, ready_write)?;
    Ok(ready)
}

/// As [`start`], with a descriptor of the caller's choice at [`READY_FD`]: how
/// the process does is told there, if at all.
///
/// # Errors
/// As [`start`].
pub fn start_holding(
    argv: &[impl AsRef<OsStr>],
    log: &Path,
    cwd: &Path,
    held: OwnedFd,
) -> Result<(), SpawnError> {
    let image = spawn::image_with_own_env(argv, cwd)?;
    let subject = log.display().to_string();
    let dup_error = |error: io::Error| step_error(Step::Dup, &error, &subject);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let log = open(log, flags, Mode::RUSR | Mode::WUSR).map_err(|e| dup_error(e.into()))?;
    let null = fd::dev_null().map_err(dup_error)?;
    let pipe_error = |error: io::Error| step_error(Step::Pipe, &error, "");
    let (exec_pipe, report) = fd::pipe().map_err(pipe_error)?;
    fd::set_blocking(&exec_pipe, fd::Blocking::NeverWaits).map_err(pipe_error)?;
    let wanted = [&null, &log, &log, &held].map(AsRawFd::as_raw_fd);
    let fds = ChildFds::new(wanted.into_iter(), report.as_raw_fd());
    let program = argv[0].as_ref().to_string_lossy();
    fork_twice(&image, fds).map_err(|errno| SpawnError::new(Step::Fork, errno, &program))?;
    drop((report, held));
    match exec_result(&exec_pipe).map_err(pipe_error)? {
        ExecOutcome::Executed => Ok(()),
        ExecOutcome::Failed { step, errno } => {
            let subject = if step == Step::Chdir {
                cwd.to_string_lossy()
            } else {
                program
            };
            Err(SpawnError::new(step, errno, &subject))
        }
    }
}

/// Waits at most `limit` for the started process to say that it is ready.
///
/// # Errors
/// Of poll(2) and read(2).
pub fn wait_ready(ready: &OwnedFd, limit: Duration) -> io::Result<Readiness> {
    if !wait_until_readable(ready, limit)? {
        return Ok(Readiness::TimedOut);
    }
    let mut byte = [0_u8; 1];
    match rustix::io::read(ready, &mut byte)? {
        0 => Ok(Readiness::Closed),
        _ => Ok(Readiness::Ready(byte[0])),
    }
}

fn exec_result(exec_pipe: &OwnedFd) -> io::Result<ExecOutcome> {
    if !wait_until_readable(exec_pipe, EXEC_WAIT)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    read_exec_result(exec_pipe)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Waits through interruptions; returns false when `limit` is over.
fn wait_until_readable(pipe: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let [readable] = fd::wait_readable([pipe.as_fd()], Some(left))?;
        if readable || left.is_zero() {
            return Ok(readable);
        }
    }
}

/// The intermediate child ends at once, so the grandchild is nobody's child
/// but init's (or the nearest subreaper's), who reaps it.
fn fork_twice(image: &Image, fds: ChildFds) -> Result<(), i32> {
    let pid = exec::fork_blocked(|| {
        // SAFETY: fork, _exit and the script of `become_image` are
        // async-signal-safe system calls, and this child has one thread with
        // all signals blocked.
        unsafe {
            match libc::fork() {
                0 => exec::become_image(image, fds),
                -1 => libc::_exit(*libc::__errno_location()),
                _ => libc::_exit(0),
            }
        }
    })?;
    let mut status = 0;
    loop {
        // SAFETY: the pid is our unreaped child's; status outlives the call.
        let reaped = unsafe { libc::waitpid(pid, &mut status, 0) };
        let interrupted =
            reaped < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        if !interrupted {
            break;
        }
    }
    match libc::WIFEXITED(status) {
        true if libc::WEXITSTATUS(status) == 0 => Ok(()),
        true => Err(libc::WEXITSTATUS(status)),
        false => Err(libc::EAGAIN),
    }
}

fn step_error(step: Step, error: &io::Error, subject: &str) -> SpawnError {
    SpawnError::new(step, error.raw_os_error().unwrap_or(libc::EIO), subject)
}
