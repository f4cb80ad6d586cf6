//! Whether the keeper answers, and what it need not keep any more.
//!
//! A keeper that is alive but hangs is as bad as a dead one: it would neither
//! start the next daemon nor give anything back. So it is asked now and then; one
//! that does not answer several times in a row is killed, and its end is dealt
//! with as any other. Counted in questions, not in time: a machine that slept has
//! asked nothing meanwhile.

use super::hub::Hub;
use super::journal;
use super::keeping::{KeeperNote, second};
use crate::keeper::client::KeeperClient;
use crate::keeper::protocol::OLDEST_KEEPER;
use crate::paths::Paths;
use musher_core::exit::Signal;
use std::time::Duration;
use tokio::sync::mpsc;

/// Between two questions.
const PULSE: Duration = Duration::from_secs(4);

/// Questions without an answer in a row; with one more to ask, the keeper hangs.
const MAX_UNANSWERED: u32 = 2;

/// Questions without an answer.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    n_unanswered: u32,
}

impl Pulse {
    /// It answers.
    pub(crate) fn answered(&mut self) {
        self.n_unanswered = 0;
    }

    /// Returns whether it hangs; counts a question otherwise.
    fn hangs(&mut self) -> bool {
        let hangs = self.n_unanswered >= MAX_UNANSWERED;
        self.n_unanswered = if hangs { 0 } else { self.n_unanswered + 1 };
        hangs
    }
}

/// Says when to ask, until nobody listens.
pub(super) fn beat(tell: mpsc::Sender<KeeperNote>) {
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(PULSE).await;
            if tell.send(KeeperNote::Pulse).await.is_err() {
                return;
            }
        }
    });
}

/// Ends a keeper that is too old to work with, so that another takes its place.
/// It does not tell who it is, but it is the parent of a daemon it started.
pub(super) fn dismiss_if_old(keeper: &KeeperClient, paths: &Paths) {
    let version = keeper.version();
    if version >= OLDEST_KEEPER {
        return;
    }
    let text = format!("the keeper speaks version {version} of its protocol");
    let pid = std::os::unix::process::parent_id();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let home = paths.home.as_os_str().as_encoded_bytes();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let is_keeper = ["keeper".as_bytes(), b"--home", home];
    if !is_keeper.into_iter().all(|word| words.next() == Some(word)) {
        journal::error(&format!(
            "{text}, this daemon {OLDEST_KEEPER}, and it is the main process of a service: \
             restart the service"
        ));
        return;
    }
    journal::line(&format!("{text}: starting another in its place"));
    if let Ok(pidfd) = musher_os::reap::pidfd_open(pid)
        && let Err(error) = musher_os::kill::signal(&pidfd, Signal::KILL)
    {
        journal::error(&format!("the keeper cannot be ended: {error}"));
    }
}

impl Hub {
    /// Asks the keeper for a sign of life, or ends one that gives none.
    pub(super) fn feel_pulse(&mut self) {
        let Some(keeper) = self
            .keeper
            .as_ref()
            .filter(|k| k.version() >= OLDEST_KEEPER)
        else {
            return;
        };
        if !self.keeping.pulse.hangs() {
            // One that is gone is told as such; a full socket is no answer.
            let _ = keeper.ping();
            return;
        }
        match keeper.kill() {
            Ok(()) => journal::error("the keeper does not answer: it was killed"),
            Err(error) => journal::error(&format!(
                "the keeper does not answer and cannot be killed: {error}"
            )),
        }
    }

    /// Lets the keeper forget the ends of orphans once all before is written.
    pub(super) fn heard(&self, pids: Vec<u32>) {
        if pids.is_empty() {
            return;
        }
        let Some(Ok(keeper)) = self.keeper.as_ref().map(second) else {
            // Without a descriptor the next daemon is told again, which is harmless.
            return;
        };
        self.store.after_writing(Box::new(move || {
            for pid in pids {
                // A keeper that is gone remembers nothing.
                let _ = keeper.heard(pid);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_without_an_answer_in_a_row_count() {
        let mut pulse = Pulse::default();
        for _ in 0..10 {
            assert!(!pulse.hangs());
            assert!(!pulse.hangs());
            pulse.answered();
        }
        assert!(!pulse.hangs());
        assert!(!pulse.hangs());
        assert!(pulse.hangs());
        assert!(!pulse.hangs(), "it is told once");
    }
}
