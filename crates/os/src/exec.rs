//! The script between fork and exec, in kernel order.
//!
//! Everything is prepared before the fork, because a child of a process with
//! threads may only make async-signal-safe calls (signal-safety(7)): it must
//! not allocate, lock or format. Each failing step is reported as eight bytes
//! over a close-on-exec pipe, so a failed exec is an error with an errno and
//! never "exited 127". PR_SET_PDEATHSIG is deliberately never used: apps
//! outlive their manager.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::{c_char, c_int};
use musher_core::app::listen::MAX_LISTEN;

use crate::oom;
use crate::spawn::Step;

/// Most descriptors of a child: standard input, output and error, the sockets
/// it is given, the channel.
const MAX_OWN_FDS: usize = 4 + MAX_LISTEN;

/// First descriptor number that is never one of the child's own.
const FIRST_FOREIGN_FD: RawFd = MAX_OWN_FDS as RawFd;

/// Exit status of a child that could not exec; nobody looks at it, the pipe
/// has told the reason.
const EXIT_NO_EXEC: c_int = 127;

/// Signals of the kernel, counted from 1: _NSIG.
const N_SIGNALS: usize = 64;

/// Bytes of a failure report: step and errno, both native-endian i32.
pub(crate) const REPORT_LEN: usize = 8;

/// A program ready to be executed: every pointer the child needs.
pub(crate) struct Image {
    program: CString,
    cwd: CString,
    argv: Pointers,
    /// execvp(3) runs a file without a known format as a shell script.
    /// For a file without a header the kernel knows.
    shell_argv: Option<Pointers>,
    envp: Pointers,
    credentials: Option<Credentials>,
    listen_pid: Option<ListenPid>,
    surroundings: Surroundings,
}

/// Where the kernel files the process. All of it is best effort: a program
/// that runs in the wrong group is better than none.
#[derive(Default)]
pub(crate) struct Surroundings {
    /// The open `cgroup.procs` of its group.
    pub(crate) entrance: Option<OwnedFd>,
    /// Its text for `oom_score_adj`.
    pub(crate) oom_score: Option<String>,
}

/// User, group and supplementary groups, as numbers.
pub(crate) struct Credentials {
    pub(crate) uid: libc::uid_t,
    pub(crate) gid: libc::gid_t,
    pub(crate) groups: Vec<libc::gid_t>,
}

/// Descriptors of the child, by their number in the parent.
#[derive(Clone, Copy)]
pub(crate) struct ChildFds {
    /// For 0, 1, 2 and on, without a gap.
    wanted: [Option<RawFd>; MAX_OWN_FDS],
    /// Write end of the report pipe.
    report: RawFd,
}

impl ChildFds {
    /// Takes those for 0, 1, 2 and on, at most [`MAX_OWN_FDS`], and the write
    /// end of the report pipe.
    pub(crate) fn new(wanted: impl Iterator<Item = RawFd>, report: RawFd) -> ChildFds {
        let mut places = [None; MAX_OWN_FDS];
        for (place, fd) in places.iter_mut().zip(wanted) {
            *place = Some(fd);
        }
        ChildFds {
            wanted: places,
            report,
        }
    }
}

/// The variable LISTEN_PID (sd_listen_fds(3)): the number is known to the child
/// only, which must not allocate, so that room for it is made before the fork.
struct ListenPid(Box<[Cell<u8>]>);

impl ListenPid {
    const NAME: &'static [u8] = b"LISTEN_PID=";
    /// Digits of the largest pid, and the final NUL.
    const ROOM: usize = 10 + 1;

    fn new() -> ListenPid {
        let room = std::iter::repeat_n(&0, ListenPid::ROOM);
        ListenPid(
            ListenPid::NAME
                .iter()
                .chain(room)
                .copied()
                .map(Cell::new)
                .collect(),
        )
    }

    /// Writes the number; async-signal-safe.
    fn set(&self, pid: u32) {
        let mut digits = 1;
        while digits < ListenPid::ROOM - 1 && pid / 10_u32.pow(digits as u32) > 0 {
            digits += 1;
        }
        let mut rest = pid;
        for place in (0..digits).rev() {
            self.0[ListenPid::NAME.len() + place].set(b'0' + (rest % 10) as u8);
            rest /= 10;
        }
    }
}

/// A null-terminated array of C strings together with the strings.
struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Pointers {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Pointers {
            _strings: strings,
            pointers,
        }
    }
}

impl Image {
    /// Prepares `program`; `argv[0]` is the name the program is told.
    pub(crate) fn new(
        program: CString,
        argv: Vec<CString>,
        env: Vec<CString>,
        cwd: CString,
        credentials: Option<Credentials>,
    ) -> Image {
        let mut shell = vec![c"/bin/sh".to_owned(), program.clone()];
        shell.extend(argv.iter().skip(1).cloned());
        Image {
            program,
            cwd,
            argv: Pointers::new(argv),
            shell_argv: Some(Pointers::new(shell)),
            envp: Pointers::new(env),
            credentials,
            listen_pid: None,
            surroundings: Surroundings::default(),
        }
    }

    /// Says where the kernel is to file the process.
    pub(crate) fn filed(self, surroundings: Surroundings) -> Image {
        Image {
            surroundings,
            ..self
        }
    }

    /// Leaves a file without a header the kernel knows to its `ENOEXEC`.
    pub(crate) fn without_shell(self) -> Image {
        Image {
            shell_argv: None,
            ..self
        }
    }

    /// Adds the variable LISTEN_PID, which the child fills in. The environment
    /// must not have it already.
    pub(crate) fn telling_its_pid(mut self) -> Image {
        let variable = ListenPid::new();
        let end = self.envp.pointers.len() - 1;
        self.envp.pointers.insert(end, variable.0.as_ptr().cast());
        self.listen_pid = Some(variable);
        self
    }
}

/// Turns the calling process, fresh from fork(2), into `image`.
///
/// # Safety
/// Call it only in a child that has one thread. Every signal must be blocked,
/// so that no handler of the parent runs here.
pub(crate) unsafe fn become_image(image: &Image, fds: ChildFds) -> ! {
    let mut fds = fds;
    // SAFETY: we are the single thread of a fresh child, as the caller promises.
    let (step, errno) = match unsafe { run_script(image, &mut fds) } {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // SAFETY: report is an open pipe; the array outlives the call; _exit(2)
    // runs no handler of the parent.
    unsafe {
        let mut report = [0_u8; REPORT_LEN];
        report[..4].copy_from_slice(&(step as i32).to_ne_bytes());
        report[4..].copy_from_slice(&errno.to_ne_bytes());
        libc::write(fds.report, report.as_ptr().cast(), REPORT_LEN);
        libc::_exit(EXIT_NO_EXEC)
    }
}

/// Runs each step; returns only the failed one and its errno.
///
/// # Safety
/// As [`become_image`].
unsafe fn run_script(
    image: &Image,
    fds: &mut ChildFds,
) -> Result<std::convert::Infallible, (Step, c_int)> {
    // SAFETY: all of these are plain system calls on values prepared before
    // the fork; none allocates or takes a lock (signal-safety(7)).
    unsafe {
        // First, so that whatever it becomes and starts is in there.
        enter(&image.surroundings);
        check(Step::Setsid, libc::setsid())?;
        reset_signals();
        place_descriptors(fds)?;
        check(Step::Chdir, libc::chdir(image.cwd.as_ptr()))?;
        if let Some(credentials) = &image.credentials {
            change_user(credentials)?;
        }
        unblock_signals();
        if let Some(variable) = &image.listen_pid {
            variable.set(libc::getpid().unsigned_abs());
        }
        libc::execve(
            image.program.as_ptr(),
            image.argv.pointers.as_ptr(),
            image.envp.pointers.as_ptr(),
        );
        if let Some(shell_argv) = &image.shell_argv
            && errno() == libc::ENOEXEC
        {
            // execvp(3): "If the header of a file isn't recognized, these
            // functions will execute the shell with the path of the file".
            libc::execve(
                c"/bin/sh".as_ptr(),
                shell_argv.pointers.as_ptr(),
                image.envp.pointers.as_ptr(),
            );
        }
        Err((Step::Exec, errno()))
    }
}

/// # Safety
/// As [`become_image`].
unsafe fn enter(surroundings: &Surroundings) {
    // SAFETY: open, write and close of prepared bytes; descriptors of this
    // child's own table.
    unsafe {
        if let Some(entrance) = &surroundings.entrance {
            // 0 is the writing process (cgroups(7)).
            libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1);
        }
        if let Some(score) = &surroundings.oom_score {
            let flags = libc::O_WRONLY | libc::O_CLOEXEC;
            let file = libc::open(oom::OWN_FILE.as_ptr(), flags);
            libc::write(file, score.as_ptr().cast(), score.len());
            libc::close(file);
        }
    }
}

/// Sets every disposition to the default: an ignored SIGPIPE, as Rust sets it,
/// would be inherited through exec (signal(7)).
///
/// # Safety
/// As [`become_image`].
unsafe fn reset_signals() {
    // All zero is SIG_DFL without flags and mask in every layout of the
    // kernel's structure, none of which is larger.
    let default = [0_u64; 4];
    for signal in 1..=N_SIGNALS {
        // SAFETY: the kernel reads one structure and writes none. Raw, because
        // the C library refuses its own signals 32 and 33, which are inherited
        // like the others. SIGKILL and SIGSTOP refuse, which is as good.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                N_SIGNALS / 8,
            );
        }
    }
}

/// # Safety
/// As [`become_image`].
unsafe fn unblock_signals() {
    // SAFETY: sigemptyset initialises the set that sigprocmask reads.
    unsafe {
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());
    }
}

/// Puts the wanted descriptors at 0 and up and marks all others close-on-exec.
///
/// # Safety
/// As [`become_image`].
unsafe fn place_descriptors(fds: &mut ChildFds) -> Result<(), (Step, c_int)> {
    // SAFETY: fcntl, dup2, close and close_range take plain numbers; the child
    // owns its descriptor table.
    unsafe {
        // First out of the way, so that no dup2 overwrites a later source.
        fds.report = lift(fds.report)?;
        for source in fds.wanted.iter_mut().flatten() {
            *source = lift(*source)?;
        }
        let mut first_closed = FIRST_FOREIGN_FD;
        for (target, source) in (0..).zip(fds.wanted) {
            match source {
                Some(source) => {
                    check(Step::Dup, libc::dup2(source, target))?;
                }
                None => first_closed = first_closed.min(target),
            }
        }
        // Older kernels than 5.11 refuse; musher opens everything
        // close-on-exec, so only foreign descriptors would stay open.
        libc::syscall(
            libc::SYS_close_range,
            first_closed,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
    Ok(())
}

/// # Safety
/// As [`become_image`].
unsafe fn lift(fd: RawFd) -> Result<RawFd, (Step, c_int)> {
    if fd >= FIRST_FOREIGN_FD {
        return Ok(fd);
    }
    // SAFETY: fcntl(2) on a number.
    check(Step::Dup, unsafe {
        libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FIRST_FOREIGN_FD)
    })
}

/// # Safety
/// As [`become_image`]. The raw calls change only this process's one thread,
/// which is the whole process.
unsafe fn change_user(credentials: &Credentials) -> Result<(), (Step, c_int)> {
    let groups = &credentials.groups;
    // SAFETY: the pointer and length are of one live vector; setgid before
    // setuid, which gives up the right to it.
    unsafe {
        // Raw, because the C library's wrappers signal all threads of the
        // parent's list (nptl(7)), which do not exist in the child.
        let done = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
        check_long(Step::Setgroups, done)?;
        check_long(
            Step::Setgid,
            libc::syscall(libc::SYS_setgid, credentials.gid),
        )?;
        check_long(
            Step::Setuid,
            libc::syscall(libc::SYS_setuid, credentials.uid),
        )
    }
}

fn check(step: Step, result: c_int) -> Result<c_int, (Step, c_int)> {
    if result < 0 {
        Err((step, errno()))
    } else {
        Ok(result)
    }
}

fn check_long(step: Step, result: libc::c_long) -> Result<(), (Step, c_int)> {
    if result < 0 {
        Err((step, errno()))
    } else {
        Ok(())
    }
}

fn errno() -> c_int {
    // SAFETY: the location is the calling thread's own errno.
    unsafe { *libc::__errno_location() }
}

/// Forks with every signal blocked in the child until it execs.
///
/// Returns the child's pid in the parent; in the child `in_child` runs and
/// never returns.
pub(crate) fn fork_blocked(
    in_child: impl FnOnce() -> std::convert::Infallible,
) -> Result<i32, c_int> {
    // SAFETY: both sets are initialised by the calls that fill them; the mask
    // is put back in the parent on every path; the child only runs `in_child`,
    // whose callers keep to async-signal-safe calls.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::fork();
        let error = errno();
        if pid == 0 {
            in_child();
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }
}
