//! Signals to one process and to everything it left behind.
//!
//! Signals go through a pidfd, never to a bare pid, so they cannot hit a
//! process that took the number over. A tree is found by descent and by
//! session: a child that forked twice has lost its parents but not its
//! session. What left both (its own session and orphaned) is out of reach.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use musher_core::exit::Signal;

use crate::proc_stat::{self, ProcStat};
use crate::reap;

/// A living process of a tree.
#[derive(Debug)]
pub struct Member {
    /// Its pid.
    pub pid: u32,
    /// Clock ticks after boot; with the pid, its identity.
    pub start_time: u64,
    /// Where its signals go.
    pub pidfd: OwnedFd,
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
    use std::os::fd::AsRawFd;
    // SAFETY: numbers and a null pointer; the descriptor is borrowed for the
    // call. Raw, because rustix has no real-time signals.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal.0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
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
    /// Of reading `/proc`, or `EMFILE` for the pidfds.
    pub fn snapshot(root: u32, start_time: u64) -> io::Result<Tree> {
        let processes = scan()?;
        if processes
            .get(&root)
            .is_some_and(|stat| stat.start_time != start_time)
        {
            return Ok(Tree::default());
        }
        let mut members = Vec::new();
        for pid in select(root, &processes) {
            match open_member(&processes[&pid]) {
                Ok(member) => members.extend(member),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
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
            .filter(|member| signal(&member.pidfd, what).is_ok());
        sent.count()
    }
}

/// Opens the pidfd and makes sure that it is still the process that was seen.
fn open_member(seen: &ProcStat) -> io::Result<Option<Member>> {
    let pidfd = reap::pidfd_open(seen.pid)?;
    let same = proc_stat::read(seen.pid)?.start_time == seen.start_time;
    let member = Member {
        pid: seen.pid,
        start_time: seen.start_time,
        pidfd,
    };
    Ok(same.then_some(member))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

fn scan() -> io::Result<HashMap<u32, ProcStat>> {
    let mut processes = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Whoever vanishes during the scan is not part of the picture.
        if let Ok(stat) = proc_stat::read(pid) {
            processes.insert(pid, stat);
        }
    }
    Ok(processes)
}

/// Returns the pids of the tree that live, deepest first, root last.
///
/// A process belongs to it if its parent does, or if its session is named
/// after a member; the latter also when that member is gone.
fn select(root: u32, processes: &HashMap<u32, ProcStat>) -> Vec<u32> {
    let mut depth: HashMap<u32, u32> = HashMap::from([(root, 0)]);
    loop {
        let before = depth.len();
        for stat in processes.values() {
            if depth.contains_key(&stat.pid) {
                continue;
            }
            let parent = depth
                .get(&stat.ppid)
                .or_else(|| depth.get(&stat.session))
                .copied();
            if let Some(parent) = parent {
                depth.insert(stat.pid, parent + 1);
            }
        }
        if depth.len() == before {
            break;
        }
    }
    let living = |pid: &u32| processes.get(pid).is_some_and(|stat| !stat.is_dead());
    let mut order: Vec<(u32, u32)> = depth
        .into_iter()
        .filter(|(pid, _)| living(pid))
        .map(|(pid, depth)| (u32::MAX - depth, pid))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, pid)| pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, ppid: u32, session: u32, state: u8) -> (u32, ProcStat) {
        let stat = ProcStat {
            pid,
            state,
            ppid,
            session,
            utime: 0,
            stime: 0,
            n_threads: 1,
            start_time: 0,
            rss_pages: 0,
        };
        (pid, stat)
    }

    #[test]
    fn a_tree_is_descent_and_sessions_deepest_first_and_root_last() {
        let processes = HashMap::from([
            process(1, 0, 1, b'S'),
            process(10, 1, 10, b'S'),
            process(11, 10, 10, b'S'),
            process(12, 11, 12, b'S'), // its own session, still a descendant
            process(13, 1, 10, b'S'),  // forked twice: parent lost, session kept
            process(14, 1, 12, b'S'),  // the same in the descendant's session
            process(15, 11, 10, b'Z'), // dead
            process(20, 1, 20, b'S'),  // a stranger
        ]);
        let order = select(10, &processes);
        assert_eq!(order.last(), Some(&10));
        let mut members = order.clone();
        members.sort_unstable();
        assert_eq!(members, [10, 11, 12, 13, 14]);
        let position = |pid| order.iter().position(|member| *member == pid);
        assert!(position(12) < position(11));
    }

    #[test]
    fn a_root_in_a_foreign_session_does_not_take_that_session_along() {
        let processes = HashMap::from([
            process(5, 1, 5, b'S'),
            process(10, 5, 5, b'S'),
            process(11, 10, 5, b'S'),
            process(12, 5, 5, b'S'),
        ]);
        assert_eq!(select(10, &processes), [11, 10]);
    }

    #[test]
    fn a_dead_root_leaves_its_session() {
        let processes = HashMap::from([process(1, 0, 1, b'S'), process(11, 1, 10, b'S')]);
        assert_eq!(select(10, &processes), [11]);
    }
}
