//! The end of a run: signals go out, and nothing is said to be gone before it
//! is.
//!
//! One task per end. It looks, signals whoever it has not signalled yet, waits
//! until those are gone, and looks again. Two looks in a row that find nothing
//! are the end, or the word of the run's control group, which is exact. It
//! decides neither that a run ends nor how patient to be.

use super::readable::readable;
use super::scout::Scout;
use musher_core::exit::Signal;
use musher_os::kill::{Lineage, Member, signal_group};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Pause before looking again when `/proc` could not be read; a failed look
/// must never pass for "nothing there".
const SCAN_RETRY: Duration = Duration::from_millis(50);

/// First pause while a control group that nobody is seen in is not yet empty:
/// its last process is on its way out. Doubles up to [`SCAN_RETRY`].
const GROUP_RETRY: Duration = Duration::from_millis(1);

/// Looks in a row that stop whoever is there, before SIGKILL goes out. A tree
/// that forks faster than that is killed as it is found, and looked at again.
const MAX_FREEZES: u32 = 16;

/// Looks in a row that must find nothing: during one, a process may be born
/// behind it and its parent die before it.
const EMPTY_LOOKS: u32 = 2;

/// A run whose end was begun.
#[derive(Clone)]
pub(crate) struct Ending {
    orders: mpsc::UnboundedSender<Option<Signal>>,
    is_gone: watch::Receiver<bool>,
}

/// How much of a run is signalled and waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The main process.
    Main,
    /// All of it.
    Tree,
}

impl Ending {
    /// Begins to watch over the end of a run. Nothing is signalled before an
    /// order, and what lives then is waited for without one. `pidfd` is the
    /// main process's, which may be gone.
    pub(crate) fn begin(
        scout: &Scout,
        lineage: Lineage,
        pidfd: Option<Rc<OwnedFd>>,
        scope: Scope,
    ) -> Ending {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (tell, is_gone) = watch::channel(false);
        let watcher = Watcher {
            scout: scout.clone(),
            lineage,
            pidfd,
            scope,
            signal: None,
            told: HashSet::new(),
            seen: HashSet::new(),
        };
        tokio::task::spawn_local(async move {
            watcher.run(inbox).await;
            // Nobody may be waiting any more.
            let _ = tell.send(true);
        });
        Ending { orders, is_gone }
    }

    /// Signals whatever is still there, and whoever is found later.
    pub(crate) fn send(&self, signal: Option<Signal>) {
        // A watcher that has seen the end has nobody to signal.
        let _ = self.orders.send(signal);
    }

    /// Returns a future that ends when nothing of the run lives.
    pub(crate) fn gone(&self) -> impl Future<Output = ()> + use<> {
        let mut is_gone = self.is_gone.clone();
        async move {
            // An error means that the daemon ends.
            let _ = is_gone.wait_for(|is_gone| *is_gone).await;
        }
    }
}

struct Watcher {
    scout: Scout,
    lineage: Lineage,
    pidfd: Option<Rc<OwnedFd>>,
    scope: Scope,
    /// What latecomers, forked while the signal went out, are sent.
    signal: Option<Signal>,
    /// Who was sent it.
    told: HashSet<Member>,
    /// Whom the last look found.
    seen: HashSet<Member>,
}

impl Watcher {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Option<Signal>>) {
        let mut n_empty = 0;
        let mut pause = GROUP_RETRY;
        loop {
            while let Ok(order) = orders.try_recv() {
                self.take(order);
            }
            let members = match self.sweep().await {
                Ok(members) => members,
                Err(_) => {
                    tokio::time::sleep(SCAN_RETRY).await;
                    continue;
                }
            };
            if !members.is_empty() {
                n_empty = 0;
                let mut order = None;
                tokio::select! {
                    Some(newer) = orders.recv() => order = Some(newer),
                    () = all_gone(members) => {}
                }
                if let Some(order) = order {
                    self.take(order);
                }
                continue;
            }
            n_empty += 1;
            match self.group_is_populated() {
                Some(false) => return,
                Some(true) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SCAN_RETRY);
                }
                None if n_empty >= EMPTY_LOOKS || self.scope == Scope::Main => return,
                None => {}
            }
        }
    }

    fn take(&mut self, order: Option<Signal>) {
        if order.is_some() {
            self.signal = order;
            self.told.clear();
        }
    }

    /// Looks, signals whom it finds, and returns who they are.
    async fn sweep(&mut self) -> io::Result<Vec<Member>> {
        if self.signal == Some(Signal::KILL) && self.scope == Scope::Tree {
            return self.exterminate().await;
        }
        let members = self.look().await?;
        if let Some(signal) = self.signal {
            for member in &members {
                if self.told.contains(member) {
                    continue;
                }
                // Without a descriptor it is tried again at the next look.
                member.signal(signal)?;
                self.told.insert(*member);
            }
        }
        Ok(members)
    }

    /// SIGKILL, so that nothing is forked past it: the control group and the
    /// process group die in one step each; the rest is stopped before it is
    /// killed, until a look finds nobody who still runs.
    async fn exterminate(&mut self) -> io::Result<Vec<Member>> {
        if let Some(group) = &self.lineage.group {
            // A group that is gone is as good as killed.
            let _ = group.kill();
        }
        if let Some(pidfd) = &self.pidfd {
            // An older kernel refuses: then each is signalled by itself.
            let _ = signal_group(pidfd.as_ref(), Signal::KILL);
        }
        let mut members = self.look().await?;
        let mut stopped: HashSet<Member> = HashSet::new();
        for _ in 0..MAX_FREEZES {
            let mut is_calm = true;
            for member in &members {
                if stopped.insert(*member) && !self.told.contains(member) {
                    is_calm &= !member.stop()?;
                }
            }
            if is_calm {
                break;
            }
            members = self.look().await?;
        }
        for member in &members {
            member.signal(Signal::KILL)?;
            self.told.insert(*member);
        }
        Ok(members)
    }

    async fn look(&mut self) -> io::Result<Vec<Member>> {
        let root = self.lineage.root;
        let members = match self.scope {
            Scope::Main => {
                let is_alive = !musher_os::proc_stat::read(root.pid)
                    .is_ok_and(|stat| stat.is_dead())
                    && root.open()?.is_some();
                if is_alive { vec![root] } else { Vec::new() }
            }
            Scope::Tree => self.scout.look(&self.lineage, &self.seen).await?,
        };
        self.seen = members.iter().copied().collect();
        Ok(members)
    }

    fn group_is_populated(&self) -> Option<bool> {
        match (self.scope, &self.lineage.group) {
            (Scope::Tree, Some(group)) => group.is_populated(),
            (Scope::Tree, None) | (Scope::Main, _) => None,
        }
    }
}

/// Waits until none of these lives.
async fn all_gone(members: Vec<Member>) {
    for member in members {
        loop {
            match member.open() {
                Ok(Some(pidfd)) => break wait(pidfd).await,
                Ok(None) => break,
                Err(_) => tokio::time::sleep(SCAN_RETRY).await,
            }
        }
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
