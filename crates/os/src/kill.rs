//! Signals to one process and to everything a run left behind.
//!
//! Signals go through a pidfd, never to a bare pid, so they cannot hit a
//! process that took the number over. A process belongs to a run if any of
//! these says so:
//!
//! - its parent does (descent);
//! - its session is named after one that does: a child that forked twice has
//!   lost its parents but not its session;
//! - it began with the run's mark in its environment ([`MARK`]), which is
//!   inherited and survives a double fork with a session of its own;
//! - it is in the run's control group ([`crate::cgroup`]), which none can leave.
//!
//! Without a group, a process that was orphaned, made a session of its own and
//! cleared its environment is out of reach.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use musher_core::exit::Signal;

use crate::cgroup::RunGroup;
use crate::proc_stat;
use crate::reap;

mod census;
pub use census::Census;

/// Name of the variable that marks the processes of a run: 16 hex digits for
/// the home, a colon, and the number of the run.
pub const MARK: &str = "MUSHER_RUN";

/// PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const PROCESS_GROUP: libc::c_uint = 1 << 2;

/// SIGCONT and SIGSTOP of signal(7).
const SIGCONT: Signal = Signal(18);
const SIGSTOP: Signal = Signal(19);

/// How the processes of a run are known.
#[derive(Clone, Debug)]
pub struct Lineage {
    /// The main process, which leads its own session.
    pub root: Member,
    /// Value of [`MARK`] in its environment.
    pub mark: Option<String>,
    /// Its control group.
    pub group: Option<RunGroup>,
}

/// A process by its identity, alive when it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Its pid.
    pub pid: u32,
    /// Clock ticks after boot.
    pub start_time: u64,
}

/// What was alive of a tree at one moment: deepest first, the root last.
#[derive(Debug, Default)]
pub struct Tree {
    /// The processes. Zombies are left out: nothing of them can be signalled.
    pub members: Vec<Member>,
}

/// Sends a signal to the process of a pidfd (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` if it has ended, `EPERM`, `EINVAL` for a number that is no signal.
pub fn signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Sends a signal to the whole process group that the process of a pidfd leads
/// or has led, in one step that no fork escapes.
///
/// # Errors
/// `EINVAL` before Linux 6.9, `ESRCH` if the group is empty.
pub fn signal_group(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    send(pidfd, signal, PROCESS_GROUP)
}

fn send(pidfd: impl AsFd, signal: Signal, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: numbers and a null pointer; the descriptor is borrowed for the
    // call. Raw, because rustix has no real-time signals.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal.0,
            std::ptr::null::<libc::siginfo_t>(),
            flags,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Lineage {
    /// Returns what is known of a process by itself: descent and session.
    pub fn of(root: u32, start_time: u64) -> Lineage {
        Lineage {
            root: Member {
                pid: root,
                start_time,
            },
            mark: None,
            group: None,
        }
    }
}

impl Member {
    /// Opens a descriptor of the process; `None` if it is gone, also when its
    /// pid is somebody else's.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        Ok(self.look()?.map(|(pidfd, _)| pidfd))
    }

    /// Signals the process; returns whether it was there to take it. One that
    /// is stopped is continued too, or it could not obey.
    ///
    /// # Errors
    /// As [`Member::open`].
    pub fn signal(self, what: Signal) -> io::Result<bool> {
        let Some((pidfd, is_stopped)) = self.look()? else {
            return Ok(false);
        };
        let is_taken = signal(&pidfd, what).is_ok();
        if is_stopped && what != SIGSTOP && what != Signal::KILL {
            signal(&pidfd, SIGCONT).ok();
        }
        Ok(is_taken)
    }

    /// Stops the process, so that it cannot fork before it is killed.
    ///
    /// # Errors
    /// As [`Member::open`].
    pub fn stop(self) -> io::Result<bool> {
        self.signal(SIGSTOP)
    }

    /// Opens the pidfd, makes sure that it is still the process that was seen,
    /// and tells whether that is stopped.
    fn look(self) -> io::Result<Option<(OwnedFd, bool)>> {
        let seen = reap::pidfd_open(self.pid).and_then(|pidfd| {
            let stat = proc_stat::read(self.pid)?;
            let is_same = stat.start_time == self.start_time;
            Ok(is_same.then_some((pidfd, stat.state == b'T')))
        });
        match seen {
            Err(error) if is_gone(&error) => Ok(None),
            seen => seen,
        }
    }
}

impl Tree {
    /// Takes a picture of the tree of a process with one scan of `/proc`.
    ///
    /// `root` need not live any more: its session still names the rest. If its
    /// pid belongs to another process (other `start_time`), the tree is empty:
    /// the kernel gives a number away only when no session bears it. A tree
    /// that forks while it is looked at may be incomplete; repeat until empty.
    ///
    /// # Errors
    /// Of reading `/proc`.
    pub fn snapshot(root: u32, start_time: u64) -> io::Result<Tree> {
        Tree::of(&Lineage::of(root, start_time))
    }

    /// Takes a picture of everything that belongs to a run.
    ///
    /// # Errors
    /// Of reading `/proc`.
    pub fn of(lineage: &Lineage) -> io::Result<Tree> {
        let members = Census::take()?.of(lineage, &HashSet::new());
        Ok(Tree { members })
    }

    /// Returns whether nothing of the tree was alive.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Signals every member, deepest first; returns how many took it. A process
    /// that died since takes it too until it is reaped.
    pub fn signal_all(&self, what: Signal) -> usize {
        let sent = self
            .members
            .iter()
            .filter(|m| m.signal(what).is_ok_and(|taken| taken));
        sent.count()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// Returns the processes among `pids` that run, by pid.
fn living(pids: &[u32]) -> HashMap<u32, Member> {
    let members = pids.iter().filter_map(|pid| {
        let stat = proc_stat::read(*pid).ok().filter(|stat| !stat.is_dead())?;
        let start_time = stat.start_time;
        let pid = *pid;
        Some((pid, Member { pid, start_time }))
    });
    members.collect()
}
