//! From a [`SpawnPlan`] to a running process.
//!
//! The fork returns at once; whether exec succeeded arrives later over a pipe,
//! so a slow file system stalls one app and not the daemon. Identity of the
//! result is (pid, start time), never the pid alone. It never decides what to
//! run or where output goes: the plan and the descriptors say it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use musher_core::app::RunAs;
use musher_core::app::listen::MAX_LISTEN;
use musher_core::supervisor::SpawnPlan;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cgroup::RunGroup;
use crate::exec::{self, ChildFds, Credentials, Image, Surroundings};
use crate::program::resolve_program;
use crate::{kill, oom, proc_stat, reap, user};

/// The child's ends of its descriptors; closed in the parent by the spawn.
#[derive(Debug)]
pub struct Stdio {
    /// Becomes 0.
    pub stdin: OwnedFd,
    /// Becomes 1.
    pub stdout: OwnedFd,
    /// Becomes 2.
    pub stderr: OwnedFd,
    /// Becomes 3, or the first number above the sockets of the plan, as
    /// `NODE_CHANNEL_FD` has to say.
    pub channel: Option<OwnedFd>,
}

/// A process that was forked; whether it execs is on [`Spawned::exec_pipe`].
#[derive(Debug)]
pub struct Spawned {
    /// Its pid.
    pub pid: u32,
    /// Readable when it ended; the only handle signals go through.
    pub pidfd: OwnedFd,
    /// Clock ticks after boot, field 22 of proc_pid_stat(5).
    pub start_time: u64,
    /// Readable when exec succeeded or failed: [`read_exec_result`].
    pub exec_pipe: OwnedFd,
}

/// A step of a start, in kernel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Find the program and make C strings of the plan.
    Resolve = 1,
    /// Make the report pipe.
    Pipe,
    /// fork(2), pidfd_open(2) and the start time.
    Fork,
    /// setsid(2).
    Setsid,
    /// chdir(2) to the working directory.
    Chdir,
    /// setgroups(2).
    Setgroups,
    /// setgid(2).
    Setgid,
    /// setuid(2).
    Setuid,
    /// dup2(2) of the standard descriptors.
    Dup,
    /// execve(2).
    Exec,
}

/// Why a start failed: the step, the system's reason, and what it was about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", phrase(*.step, .subject), reason(*.errno))]
pub struct SpawnError {
    /// Which step.
    pub step: Step,
    /// errno(3).
    pub errno: i32,
    /// The path, name or number the step was about.
    pub subject: String,
}

/// What the exec pipe said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// The program runs (or was killed before exec: its exit tells).
    Executed,
    /// No process is left but an exit status to reap.
    Failed {
        /// Which step.
        step: Step,
        /// errno(3).
        errno: i32,
    },
}

/// Starts a plan, in a group of its own if there is one. Values of `env_extra`
/// win over the plan's.
///
/// Blocks for a fork only, never for exec. The child leads its own session,
/// has default signal dispositions and an empty mask, and inherits nothing but
/// `stdio`.
///
/// # Errors
/// The failed step, up to and including fork; later ones arrive by
/// [`read_exec_result`].
pub fn spawn(
    plan: &SpawnPlan,
    env_extra: &[(String, String)],
    group: Option<&RunGroup>,
    stdio: Stdio,
) -> Result<Spawned, SpawnError> {
    spawn_listening(plan, env_extra, group, &[], stdio)
}

/// As [`spawn`], with the sockets of the plan's `listen`, in its order: they
/// become 3 and up, and LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES say so
/// (sd_listen_fds(3)).
///
/// # Errors
/// As [`spawn`]; `EINVAL` if there are not as many sockets as the plan says.
pub fn spawn_listening(
    plan: &SpawnPlan,
    env_extra: &[(String, String)],
    group: Option<&RunGroup>,
    listen: &[BorrowedFd<'_>],
    stdio: Stdio,
) -> Result<Spawned, SpawnError> {
    if listen.len() != plan.listen.len() || listen.len() > MAX_LISTEN {
        return Err(SpawnError::new(Step::Dup, libc::EINVAL, &plan.program));
    }
    let surroundings = Surroundings {
        // A group that cannot be entered is not worth an app.
        entrance: group.and_then(|group| group.entrance().ok()),
        oom_score: oom::score_of_apps(),
    };
    let mut image = image_of(plan, env_extra)?.filed(surroundings);
    if !listen.is_empty() {
        image = image.telling_its_pid();
    }
    start(&image, stdio, listen, &plan.program)
}

/// Starts a program of musher's own with the caller's environment but the mark
/// of a run ([`kill::MARK`]), in directory `cwd`; `argv[0]` is a path, and no
/// shell is tried for a file the kernel cannot execute. Otherwise as [`spawn`].
///
/// # Errors
/// As [`spawn`].
pub fn spawn_own(
    argv: &[impl AsRef<OsStr>],
    cwd: &Path,
    stdio: Stdio,
) -> Result<Spawned, SpawnError> {
    let image = image_with_own_env(argv, cwd)?;
    let subject = argv
        .first()
        .map(|program| program.as_ref().to_string_lossy());
    start(&image, stdio, &[], &subject.unwrap_or_default())
}

fn start(
    image: &Image,
    stdio: Stdio,
    listen: &[BorrowedFd<'_>],
    subject: &str,
) -> Result<Spawned, SpawnError> {
    let pipe_error = |errno: Errno| SpawnError::new(Step::Pipe, errno.raw_os_error(), "");
    let (exec_pipe, report) =
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(pipe_error)?;
    let standard = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    let standard = standard.into_iter().map(AsRawFd::as_raw_fd);
    let sockets = listen.iter().map(AsRawFd::as_raw_fd);
    let channel = stdio.channel.as_ref().map(AsRawFd::as_raw_fd);
    let fds = ChildFds::new(standard.chain(sockets).chain(channel), report.as_raw_fd());
    let fork_error = |errno| SpawnError::new(Step::Fork, errno, subject);
    let pid = fork(image, fds).map_err(fork_error)?;
    drop((stdio, report));
    // The child is ours and unreaped, so its pid cannot have been given away.
    let identity = reap::pidfd_open(pid).and_then(|pidfd| {
        let stat = proc_stat::read(pid)?;
        Ok((pidfd, stat.start_time))
    });
    // Without both it could neither be signalled nor be known again.
    let (pidfd, start_time) = identity.map_err(|error| {
        reap::abandon(pid);
        fork_error(error.raw_os_error().unwrap_or(libc::EIO))
    })?;
    Ok(Spawned {
        pid,
        pidfd,
        start_time,
        exec_pipe,
    })
}

/// Reads the exec pipe without waiting; `None` means: not yet.
///
/// # Errors
/// Of read(2), or `InvalidData` for a report no child of musher writes.
pub fn read_exec_result(exec_pipe: &OwnedFd) -> io::Result<Option<ExecOutcome>> {
    let mut report = [0_u8; exec::REPORT_LEN];
    // A write of eight bytes to a pipe is atomic (pipe(7)): no partial reads.
    match rustix::io::read(exec_pipe, &mut report) {
        Ok(0) => Ok(Some(ExecOutcome::Executed)),
        Ok(exec::REPORT_LEN) => {
            let word = |at: usize| {
                i32::from_ne_bytes([report[at], report[at + 1], report[at + 2], report[at + 3]])
            };
            let step = Step::from_number(word(0)).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Some(ExecOutcome::Failed {
                step,
                errno: word(4),
            }))
        }
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn fork(image: &Image, fds: ChildFds) -> Result<u32, i32> {
    let pid = exec::fork_blocked(|| {
        // SAFETY: `fork_blocked` runs this in the fresh, single-threaded child
        // with all signals blocked.
        unsafe { exec::become_image(image, fds) }
    })?;
    Ok(pid.unsigned_abs())
}

fn image_of(plan: &SpawnPlan, env_extra: &[(String, String)]) -> Result<Image, SpawnError> {
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in plan.env.iter().chain(env_extra) {
        env.insert(name, value);
    }
    let n_sockets = plan.listen.len().to_string();
    let names: Vec<&str> = plan.listen.iter().map(|spec| spec.name.as_str()).collect();
    let names = names.join(":");
    if !plan.listen.is_empty() {
        env.insert("LISTEN_FDS", &n_sockets);
        env.insert("LISTEN_FDNAMES", &names);
        // The child itself adds it.
        env.remove("LISTEN_PID");
    }
    let path = resolve_program(
        &plan.program,
        env.get("PATH").copied(),
        Path::new(&plan.cwd),
    )
    .map_err(|errno| SpawnError::new(Step::Resolve, errno.raw_os_error(), &plan.program))?;
    let argv = std::iter::once(&plan.program)
        .chain(&plan.args)
        .map(|argument| c_string(argument.as_bytes(), "an argument"))
        .collect::<Result<_, _>>()?;
    let env = env
        .iter()
        .map(|(name, value)| c_string(format!("{name}={value}").as_bytes(), name))
        .collect::<Result<_, _>>()?;
    Ok(Image::new(
        c_string(path.as_os_str().as_bytes(), &plan.program)?,
        argv,
        env,
        c_string(plan.cwd.as_bytes(), &plan.cwd)?,
        plan.run_as.map(credentials_of),
    ))
}

pub(crate) fn image_with_own_env(
    argv: &[impl AsRef<OsStr>],
    cwd: &Path,
) -> Result<Image, SpawnError> {
    let arguments = argv
        .iter()
        .map(|argument| c_string(argument.as_ref().as_bytes(), "an argument"))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(program) = arguments.first().cloned() else {
        return Err(SpawnError::new(
            Step::Resolve,
            libc::EINVAL,
            "an empty command",
        ));
    };
    let surroundings = Surroundings {
        entrance: None,
        oom_score: oom::score_of_own_programs(),
    };
    // A manager that an app starts is not part of that app.
    let env = std::env::vars_os()
        .filter(|(name, _)| name != kill::MARK)
        .map(|(name, value)| c_string(&[name.as_bytes(), value.as_bytes()].join(&b'='), "env"))
        .collect::<Result<Vec<_>, _>>()?;
    let cwd = c_string(cwd.as_os_str().as_bytes(), "the directory")?;
    let image = Image::new(program, arguments, env, cwd, None);
    Ok(image.without_shell().filed(surroundings))
}

fn credentials_of(run_as: RunAs) -> Credentials {
    Credentials {
        uid: run_as.uid,
        gid: run_as.gid,
        groups: user::supplementary_groups(run_as.uid, run_as.gid),
    }
}

fn c_string(bytes: &[u8], subject: &str) -> Result<CString, SpawnError> {
    CString::new(bytes).map_err(|_| SpawnError::new(Step::Resolve, libc::EINVAL, subject))
}

impl SpawnError {
    pub(crate) fn new(step: Step, errno: i32, subject: &str) -> SpawnError {
        SpawnError {
            step,
            errno,
            subject: subject.replace('\0', "\\0"),
        }
    }

    /// Returns the error of a failure that the exec pipe reported for `plan`.
    pub fn of_child(step: Step, errno: i32, plan: &SpawnPlan) -> SpawnError {
        let subject = match step {
            Step::Chdir => plan.cwd.clone(),
            Step::Setgroups | Step::Setgid | Step::Setuid => match plan.run_as {
                Some(RunAs { uid, gid }) => format!("{uid}:{gid}"),
                None => String::new(),
            },
            Step::Exec => exec_subject(plan),
            Step::Resolve | Step::Pipe | Step::Fork | Step::Setsid | Step::Dup => {
                plan.program.clone()
            }
        };
        SpawnError {
            step,
            errno,
            subject,
        }
    }
}

fn exec_subject(plan: &SpawnPlan) -> String {
    let path_env = plan.env.iter().rev().find(|(name, _)| name == "PATH");
    let path_env = path_env.map(|(_, value)| value.as_str());
    match resolve_program(&plan.program, path_env, Path::new(&plan.cwd)) {
        Ok(path) => path.display().to_string(),
        Err(_) => plan.program.clone(),
    }
}

impl Step {
    /// Every step; the index plus one is the number on the wire.
    const ALL: [Step; 10] = [
        Step::Resolve,
        Step::Pipe,
        Step::Fork,
        Step::Setsid,
        Step::Chdir,
        Step::Setgroups,
        Step::Setgid,
        Step::Setuid,
        Step::Dup,
        Step::Exec,
    ];

    fn from_number(number: i32) -> Option<Step> {
        Step::ALL.into_iter().find(|step| *step as i32 == number)
    }
}

fn phrase(step: Step, subject: &str) -> String {
    match step {
        Step::Resolve => format!("cannot find {subject}"),
        Step::Pipe => "cannot make the exec pipe".to_owned(),
        Step::Fork => format!("cannot fork for {subject}"),
        Step::Setsid => format!("cannot start a session for {subject}"),
        Step::Chdir => format!("cannot enter the working directory {subject}"),
        Step::Setgroups => format!("cannot set the groups of user {subject}"),
        Step::Setgid => format!("cannot change to the group of {subject}"),
        Step::Setuid => format!("cannot change to user {subject}"),
        Step::Dup => format!("cannot place the descriptors of {subject}"),
        Step::Exec => format!("cannot execute {subject}"),
    }
}

/// Returns the system's reason in small letters with its symbol:
/// `permission denied (EACCES)`.
pub fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text
        .split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase();
    match symbol(errno) {
        Some(symbol) => format!("{text} ({symbol})"),
        None => format!("{text} (errno {errno})"),
    }
}

/// The names people search for; the others print as numbers.
fn symbol(errno: i32) -> Option<&'static str> {
    const SYMBOLS: &[(i32, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EIO, "EIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::ENOEXEC, "ENOEXEC"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EEXIST, "EEXIST"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENFILE, "ENFILE"),
        (libc::EMFILE, "EMFILE"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::EPIPE, "EPIPE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::EADDRINUSE, "EADDRINUSE"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    ];
    SYMBOLS
        .iter()
        .find(|(number, _)| *number == errno)
        .map(|(_, name)| *name)
}
