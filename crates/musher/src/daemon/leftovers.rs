//! What a run left behind that ended by itself: ended before anything else of
//! its slot is started.
//!
//! A worker of a crashed main process would hold its port, and every
//! replacement would fail with EADDRINUSE. So the supervisor hears of the exit
//! when nothing of the run lives any more, as a service manager has it
//! (`KillMode=control-group`). With `treekill: false` what an app leaves is its
//! own business. Runs whose end was asked for are not its concern.

use super::children::{Child, Children};
use super::hub::Hub;
use super::journal;
use super::tree::{Ending, Scope};
use musher_core::app::StopPolicy;
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::Incarnation;
use musher_core::supervisor::Event;
use musher_os::kill::{Census, Lineage};
use std::collections::HashSet;
use std::time::Duration;

/// What SIGKILL gets to take effect, as at the end of the stop ladder.
const AFTER_SIGKILL: Duration = Duration::from_secs(1);

/// How patient to be with what is left.
#[derive(Clone, Copy)]
struct Patience {
    signal: Signal,
    before_kill: Duration,
}

impl Hub {
    /// Takes in what a child's watcher says; the exit of a run that left
    /// something behind is kept back until that is gone.
    pub(crate) fn on_child(&mut self, event: Event) {
        match event {
            Event::Exited { run, status } if self.is_kept_back(run, status) => {}
            Event::Exited { run, status } => {
                let heard = self.children.told_by_keeper(run);
                self.handle(Event::Exited { run, status });
                self.heard(Vec::from_iter(heard));
            }
            event => self.handle(event),
        }
    }

    fn is_kept_back(&mut self, run: Incarnation, status: ExitStatus) -> bool {
        let owner = self.supervisor.owner(run);
        let Some(process) = owner.and_then(|id| self.supervisor.process(id)) else {
            return false;
        };
        let is_stopping = process
            .runs()
            .any(|known| known.id == run && known.is_stopping());
        let is_serving = process
            .serving
            .as_ref()
            .is_some_and(|known| known.id == run);
        // It is said again when nothing is left.
        if is_stopping || self.children.get(run).is_none_or(Child::is_ending) {
            return false;
        }
        let is_killed = status == ExitStatus::Signal(Signal::KILL);
        let oom = self
            .children
            .get(run)
            .filter(|_| is_killed)
            .and_then(Child::oom);
        let patience = self.patience_with_leftovers(run);
        // A successor has failed, and its predecessor serves on: that is told
        // at once.
        let then = is_serving.then_some(Event::Exited { run, status });
        let is_under_way =
            patience.is_some_and(|patience| self.children.end_leftovers(run, patience, then));
        let is_kept_back = is_under_way && is_serving;
        if is_kept_back || oom.is_some() {
            self.handle(Event::Died { run, oom });
        }
        is_kept_back
    }

    /// Ends what a run left that died while no daemon lived, then tells of its
    /// end.
    pub(crate) fn bury(
        &mut self,
        run: Incarnation,
        status: ExitStatus,
        lineage: Lineage,
        census: Option<&Census>,
    ) {
        // One that is still in use is removed later.
        self.children.marks.remove_group(lineage.group.clone());
        // A look that failed is made up for by those of the end.
        let left = census.map(|census| census.of(&lineage, &HashSet::new()));
        let is_empty = left.is_some_and(|left| left.is_empty());
        let patience = self.patience_with_leftovers(run).filter(|_| !is_empty);
        let Some(patience) = patience else {
            self.handle(Event::Exited { run, status });
            self.handle(Event::TreeGone { run });
            return;
        };
        journal::line(&format!("ending what run {run} left behind when it died"));
        let events = self.children.events.clone();
        let ending = Ending::begin(&self.children.scout, lineage, None, Scope::Tree);
        tokio::task::spawn_local(async move {
            end(run, &ending, patience).await;
            // A closed inbox means that the daemon ends.
            let _ = events.send(Event::Exited { run, status });
            let _ = events.send(Event::TreeGone { run });
        });
    }

    /// Returns `None` if what a run leaves is to be left alone.
    fn patience_with_leftovers(&self, run: Incarnation) -> Option<Patience> {
        let process = self.supervisor.process(self.supervisor.owner(run)?)?;
        let stop: &StopPolicy = &process.runs().find(|known| known.id == run)?.spec.stop;
        stop.treekill.then(|| Patience {
            signal: stop.signal,
            before_kill: Duration::from_millis(stop.kill_timeout.get()),
        })
    }
}

impl Children {
    /// Ends what a run left, and says `then` afterwards. Returns false if its
    /// control group says that nothing is left.
    fn end_leftovers(&mut self, run: Incarnation, patience: Patience, then: Option<Event>) -> bool {
        let events = self.events.clone();
        let Some((child, scout)) = self.get_mut(run) else {
            return false;
        };
        if child.is_alone() {
            return false;
        }
        let ending = child.ending(scout, Scope::Tree).clone();
        tokio::task::spawn_local(async move {
            end(run, &ending, patience).await;
            if let Some(event) = then {
                // A closed inbox means that the daemon ends.
                let _ = events.send(event);
            }
        });
        true
    }
}

/// Asks, kills, and gives up on what survives that: it is said, and the app is
/// not kept waiting for it.
async fn end(run: Incarnation, ending: &Ending, patience: Patience) {
    ending.send(Some(patience.signal));
    if tokio::time::timeout(patience.before_kill, ending.gone())
        .await
        .is_ok()
    {
        return;
    }
    journal::line(&format!(
        "what run {run} left behind is still there after {}ms, sending SIGKILL",
        patience.before_kill.as_millis()
    ));
    ending.send(Some(Signal::KILL));
    if tokio::time::timeout(AFTER_SIGKILL, ending.gone())
        .await
        .is_err()
    {
        journal::error(&format!(
            "what run {run} left behind survives SIGKILL: going on beside it"
        ));
    }
}
