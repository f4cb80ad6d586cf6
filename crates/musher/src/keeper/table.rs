//! What the keeper holds: descriptors by name, and exits no daemon has stored.
//!
//! Both have a fixed size that is reserved at the start, so that a keeper which
//! runs for years has no allocation left to fail.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use musher_core::exit::ExitStatus;

use super::protocol::Name;

/// Most parked descriptors; a PARK beyond is refused.
pub(super) const MAX_PARKED: usize = 16_384;

/// Most exits kept until a daemon has stored them; the oldest go first.
pub(super) const MAX_EXITS: usize = 4096;

/// Descriptors by name, in no order.
pub(super) struct ParkedFds {
    entries: Vec<(Name, OwnedFd)>,
    limit: usize,
}

/// Ends of orphans, oldest first. Those a daemon was told stay until it has
/// stored them: if it dies before, the next one is told again.
pub(super) struct Exits {
    entries: VecDeque<(u32, ExitStatus)>,
    /// How many of them, from the front, the daemon at hand was told.
    n_told: usize,
    limit: usize,
}

/// The table was full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl ParkedFds {
    /// Reserves room for `limit` descriptors; the memory is used when they come.
    pub(super) fn with_limit(limit: usize) -> ParkedFds {
        ParkedFds {
            entries: Vec::with_capacity(limit),
            limit,
        }
    }

    /// Keeps a descriptor, in place of one of the same name.
    pub(super) fn park(&mut self, name: Name, fd: OwnedFd) -> Result<(), Full> {
        if let Some(entry) = self.entries.iter_mut().find(|(known, _)| *known == name) {
            entry.1 = fd;
            return Ok(());
        }
        if self.entries.len() == self.limit {
            return Err(Full);
        }
        self.entries.push((name, fd));
        Ok(())
    }

    /// Closes the descriptor of this name.
    pub(super) fn remove(&mut self, name: Name) {
        self.entries.retain(|(known, _)| *known != name);
    }

    /// Closes the descriptors whose names begin with `prefix`.
    pub(super) fn remove_prefix(&mut self, prefix: Name) {
        let prefix = prefix.as_bytes();
        self.entries
            .retain(|(known, _)| !known.as_bytes().starts_with(prefix));
    }

    /// Returns one entry, counted from 0.
    pub(super) fn get(&self, index: usize) -> Option<(Name, BorrowedFd<'_>)> {
        self.entries
            .get(index)
            .map(|(name, fd)| (*name, fd.as_fd()))
    }
}

impl Exits {
    /// Reserves room for `limit` exits.
    pub(super) fn with_limit(limit: usize) -> Exits {
        Exits {
            entries: VecDeque::with_capacity(limit),
            n_told: 0,
            limit,
        }
    }

    /// Remembers an exit; forgets the oldest if there is no room.
    pub(super) fn push(&mut self, pid: u32, status: ExitStatus) {
        if self.entries.len() == self.limit {
            self.entries.pop_front();
            self.n_told = self.n_told.saturating_sub(1);
        }
        self.entries.push_back((pid, status));
    }

    /// Returns the oldest exit the daemon was not told.
    pub(super) fn first_untold(&self) -> Option<(u32, ExitStatus)> {
        self.entries.get(self.n_told).copied()
    }

    /// The daemon was told of the next one.
    pub(super) fn told(&mut self) {
        self.n_told = self.entries.len().min(self.n_told + 1);
    }

    /// There is another daemon, which was told nothing.
    pub(super) fn tell_anew(&mut self) {
        self.n_told = 0;
    }

    /// The daemon has stored the oldest exit of this pid that it was told.
    pub(super) fn heard(&mut self, pid: u32) {
        let mut told = self.entries.iter().take(self.n_told);
        if let Some(index) = told.position(|(known, _)| *known == pid) {
            self.entries.remove(index);
            self.n_told -= 1;
        }
    }

    /// Forgets all that was told: the daemon does not say what it has stored.
    pub(super) fn forget_told(&mut self) {
        self.entries.drain(..self.n_told);
        self.n_told = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::try_from(text).unwrap()
    }

    fn names(parked: &ParkedFds) -> Vec<&str> {
        parked
            .entries
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn null() -> OwnedFd {
        musher_os::fd::dev_null().unwrap()
    }

    #[test]
    fn a_name_is_kept_once_and_dropped_by_itself_or_by_prefix() {
        let mut parked = ParkedFds::with_limit(10);
        for text in [
            "run 1 out",
            "run 1 err",
            "run 10 out",
            "listen",
            "run 1 out",
        ] {
            parked.park(name(text), null()).unwrap();
        }
        assert_eq!(
            names(&parked),
            ["run 1 out", "run 1 err", "run 10 out", "listen"]
        );
        parked.remove(name("run 1 err"));
        parked.remove(name("nobody"));
        parked.remove_prefix(name("run 1 "));
        assert_eq!(names(&parked), ["run 10 out", "listen"]);
    }

    #[test]
    fn one_past_the_bound_is_refused_but_replacing_is_not() {
        let mut parked = ParkedFds::with_limit(2);
        parked.park(name("a"), null()).unwrap();
        parked.park(name("b"), null()).unwrap();
        assert_eq!(parked.park(name("c"), null()), Err(Full));
        assert_eq!(parked.park(name("a"), null()), Ok(()));
        assert_eq!(names(&parked), ["a", "b"]);
    }

    #[test]
    fn one_exit_past_the_bound_pushes_the_oldest_out() {
        let mut exits = Exits::with_limit(2);
        for pid in 1..=3 {
            exits.push(pid, ExitStatus::Code(0));
        }
        assert_eq!(exits.first_untold(), Some((2, ExitStatus::Code(0))));
        exits.told();
        exits.told();
        exits.push(4, ExitStatus::Code(0));
        assert_eq!(exits.first_untold(), Some((4, ExitStatus::Code(0))));
    }

    #[test]
    fn an_exit_is_told_to_each_daemon_until_one_has_stored_it() {
        let mut exits = Exits::with_limit(10);
        let untold = |exits: &mut Exits| {
            let mut pids = Vec::new();
            while let Some((pid, _)) = exits.first_untold() {
                pids.push(pid);
                exits.told();
            }
            pids
        };
        for pid in [7, 8, 7, 9] {
            exits.push(pid, ExitStatus::Code(0));
        }
        exits.heard(7);
        assert_eq!(untold(&mut exits), [7, 8, 7, 9], "it was told nothing yet");
        exits.heard(7);
        exits.heard(5);
        exits.push(10, ExitStatus::Code(0));
        assert_eq!(untold(&mut exits), [10]);
        exits.tell_anew();
        assert_eq!(untold(&mut exits), [8, 7, 9, 10]);
        exits.forget_told();
        exits.tell_anew();
        assert_eq!(untold(&mut exits), [0; 0]);
    }
}
