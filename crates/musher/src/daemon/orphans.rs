//! Runs of an earlier daemon, whose end only the keeper can tell.
//!
//! They are the keeper's children, so their exit statuses come from it; it
//! remembers each until it hears that the end is stored. Knows pids and statuses,
//! and nothing of what they mean.

use musher_core::exit::ExitStatus;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

/// Those that live, and those whose end is not stored yet.
#[derive(Default)]
pub(super) struct Orphans {
    /// Who waits for the exit status of a pid.
    awaited: BTreeMap<u32, oneshot::Sender<ExitStatus>>,
    /// Pids whose end the keeper has told and this daemon not yet stored.
    unheard: BTreeSet<u32>,
}

impl Orphans {
    /// Returns where the status of a pid arrives. It never does, and the
    /// receiver hears that at once, for one that is not the keeper's.
    pub(super) fn status_of(
        &mut self,
        pid: u32,
        is_keepers: bool,
    ) -> oneshot::Receiver<ExitStatus> {
        let (tell, status) = oneshot::channel();
        if is_keepers {
            self.awaited.insert(pid, tell);
        }
        status
    }

    /// Takes in what the keeper tells; false if nobody waits for it.
    pub(super) fn exited(&mut self, pid: u32, status: ExitStatus) -> bool {
        let tell = self.awaited.remove(&pid);
        // Nobody waits any more: the status was taken as unknown.
        let is_awaited = tell.is_some_and(|tell| tell.send(status).is_ok());
        if is_awaited {
            self.unheard.insert(pid);
        }
        is_awaited
    }

    /// Returns whether the keeper told the end of this pid, once.
    pub(super) fn take_told(&mut self, pid: u32) -> bool {
        self.unheard.remove(&pid)
    }

    /// Nobody waits for this pid any more.
    pub(super) fn forget(&mut self, pid: u32) {
        self.awaited.remove(&pid);
    }

    /// The keeper is gone: nobody will tell.
    pub(super) fn clear(&mut self) {
        self.awaited.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_owed_to_the_keeper_only_if_it_was_waited_for() {
        let mut orphans = Orphans::default();
        let status = ExitStatus::Code(3);
        assert!(!orphans.exited(7, status), "nobody waits");
        let mut seven = orphans.status_of(7, true);
        assert!(orphans.exited(7, status));
        assert_eq!(seven.try_recv(), Ok(status));
        assert!(orphans.take_told(7));
        assert!(!orphans.take_told(7), "told twice");
        drop(orphans.status_of(8, true));
        assert!(!orphans.exited(8, status), "it was given up");
        assert!(orphans.status_of(9, false).try_recv().is_err());
        let mut ten = orphans.status_of(10, true);
        orphans.clear();
        assert!(ten.try_recv().is_err());
    }
}
