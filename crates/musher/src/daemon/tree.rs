//! The end of a process tree: signals go out, and nothing is said to be gone
//! before it is.

use super::readable::readable;
use musher_core::exit::Signal;
use musher_os::kill::{Member, Tree};
use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Pause before looking again when `/proc` could not be read; a failed look
/// must never pass for "nothing there".
const SCAN_RETRY: Duration = Duration::from_millis(50);

/// A tree whose end was begun.
pub(crate) struct Ending {
    root: u32,
    start_time: u64,
    scope: Scope,
    /// What latecomers, forked while the signal went out, are sent.
    signal: Rc<Cell<Option<Signal>>>,
}

/// How much of a tree is signalled and waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The main process.
    Main,
    /// All of it.
    Tree,
}

impl Ending {
    /// Signals the tree of `root` and returns what is needed to harden its end
    /// and to wait for it.
    pub(crate) fn begin(
        root: u32,
        start_time: u64,
        scope: Scope,
        signal: Option<Signal>,
    ) -> Ending {
        let ending = Ending {
            root,
            start_time,
            scope,
            signal: Rc::new(Cell::new(None)),
        };
        ending.send(signal);
        ending
    }

    /// Signals whatever of the tree is still there.
    pub(crate) fn send(&self, signal: Option<Signal>) {
        self.signal.set(signal.or(self.signal.get()));
        let Some(signal) = signal else { return };
        // A scan that fails (no descriptors left) is made up for in `gone`.
        for member in self.alive().unwrap_or_default() {
            // Gone between the look and the signal is as good as signalled.
            let _ = musher_os::kill::signal(&member.pidfd, signal);
        }
    }

    /// Returns a future that ends when nothing of the tree lives.
    pub(crate) fn gone(&self) -> impl Future<Output = ()> + use<> {
        let (root, start_time, scope) = (self.root, self.start_time, self.scope);
        let signal = Rc::clone(&self.signal);
        async move {
            let watched = Ending {
                root,
                start_time,
                scope,
                signal,
            };
            let mut seen: HashSet<(u32, u64)> = HashSet::new();
            loop {
                let Ok(members) = watched.alive() else {
                    tokio::time::sleep(SCAN_RETRY).await;
                    continue;
                };
                if members.is_empty() {
                    return;
                }
                for member in members {
                    let is_new = seen.insert((member.pid, member.start_time));
                    if let (true, Some(signal)) = (is_new, watched.signal.get()) {
                        let _ = musher_os::kill::signal(&member.pidfd, signal);
                    }
                    wait(member.pidfd).await;
                }
            }
        }
    }

    fn alive(&self) -> io::Result<Vec<Member>> {
        let members = Tree::snapshot(self.root, self.start_time)?.members;
        Ok(match self.scope {
            Scope::Tree => members,
            Scope::Main => members.into_iter().filter(|m| m.pid == self.root).collect(),
        })
    }
}

/// Waits until the process of a pidfd has ended (pidfd_open(2): it is readable).
pub(crate) async fn wait(pidfd: OwnedFd) {
    let second = pidfd.try_clone();
    if readable(pidfd).await.is_ok() {
        return;
    }
    // No room in the poller: look now and then instead of being told.
    let Ok(pidfd) = second else { return };
    wait_by_looking(&pidfd).await;
}

/// As [`wait`], for want of a second descriptor or of room in the poller. A
/// signal 0 would not do: a process that waits to be reaped still takes it.
pub(crate) async fn wait_by_looking(pidfd: &OwnedFd) {
    loop {
        let ended = musher_os::fd::wait_readable([pidfd.as_fd()], Some(Duration::ZERO));
        if matches!(ended, Ok([true])) {
            return;
        }
        tokio::time::sleep(SCAN_RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_child_nobody_has_reaped_is_seen_by_looking() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = musher_os::reap::pidfd_open(child.id()).unwrap();
        let limit = Duration::from_secs(20);
        let seen = tokio::time::timeout(limit, wait_by_looking(&pidfd)).await;
        assert!(seen.is_ok(), "it waits for a reaping that waits for it");
        child.wait().unwrap();
    }
}
