//! The tests of the tests: every planted bug has to be caught.
//!
//! There are two kinds. A [`Corrupt`] decider stands between the world and the
//! supervisor and spoils what passes; `musher_core::mutant` are wrong
//! decisions inside.

use crate::world::{Broken, Decider, World};
use musher_core::exit::Signal;
use musher_core::id::{Incarnation, RequestId};
use musher_core::mutant;
use musher_core::supervisor::{Action, Event, Supervisor};
use musher_core::time::{Millis, Now};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A bug that lives longer than this many histories counts as not caught.
const MOST_HISTORIES: u64 = 4000;

/// What is spoiled on the way to the supervisor or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    ReplyLost,
    ReplyDoubled,
    SpawnDoubled,
    SpawnLost,
    RunIdReused,
    KillLost,
    KillDoubled,
    StopSignalIsSigkill,
    SigkillSparesNobody,
    DetachLost,
    ForgetLost,
    ForgetEarly,
    PersistLost,
    EraseLost,
    SlotsLost,
    OnlineUnannounced,
    ExitEarly,
    ExitDoubled,
    DeadlineLost,
    ClockFast,
    AbandonLost,
    TreeGoneInvented,
    SpawnFailureLost,
    ExitOfTheDeadBelieved,
}

const BUGS: &[Bug] = &[
    Bug::ReplyLost,
    Bug::ReplyDoubled,
    Bug::SpawnDoubled,
    Bug::SpawnLost,
    Bug::RunIdReused,
    Bug::KillLost,
    Bug::KillDoubled,
    Bug::StopSignalIsSigkill,
    Bug::SigkillSparesNobody,
    Bug::DetachLost,
    Bug::ForgetLost,
    Bug::ForgetEarly,
    Bug::PersistLost,
    Bug::EraseLost,
    Bug::SlotsLost,
    Bug::OnlineUnannounced,
    Bug::ExitEarly,
    Bug::ExitDoubled,
    Bug::DeadlineLost,
    Bug::ClockFast,
    Bug::AbandonLost,
    Bug::TreeGoneInvented,
    Bug::SpawnFailureLost,
    Bug::ExitOfTheDeadBelieved,
];

struct Corrupt {
    inner: Supervisor,
    bug: Bug,
}

impl Decider for Corrupt {
    fn step(&mut self, event: Event, now: Now, out: &mut Vec<Action>) {
        let invented = self.invent(&event);
        if let Some((event, now)) = self.spoil_event(event, now) {
            self.inner.step(event, now, out);
        }
        if let Some(event) = invented {
            self.inner.step(event, now, out);
        }
        self.spoil_actions(out);
    }

    fn state(&self) -> &Supervisor {
        &self.inner
    }

    fn resume(&mut self, now: Now, out: &mut Vec<Action>) {
        self.inner.resume(now, out);
        self.spoil_actions(out);
    }

    fn replace(&mut self, successor: Supervisor) {
        self.inner = successor;
    }
}

impl Corrupt {
    fn invent(&self, event: &Event) -> Option<Event> {
        match (self.bug, event) {
            (Bug::TreeGoneInvented, Event::Exited { run, .. }) => {
                Some(Event::TreeGone { run: *run })
            }
            _ => None,
        }
    }

    fn spoil_event(&self, event: Event, now: Now) -> Option<(Event, Now)> {
        match (self.bug, event) {
            (Bug::DeadlineLost, Event::Deadline)
            | (Bug::AbandonLost, Event::Abandoned(_))
            | (Bug::SpawnFailureLost, Event::SpawnFailed { .. }) => None,
            (Bug::ClockFast, Event::Deadline) => {
                let mono = now.mono + Millis(5000);
                Some((Event::Deadline, Now { mono, ..now }))
            }
            (Bug::ExitOfTheDeadBelieved, Event::TreeGone { run })
                if self.inner.owner(run).is_none() =>
            {
                let living = self.inner.processes().find_map(|p| p.serving.as_ref());
                let run = living.map_or(run, |living| living.id);
                let status = musher_core::exit::ExitStatus::Unknown;
                Some((Event::Exited { run, status }, now))
            }
            (_, event) => Some((event, now)),
        }
    }

    fn spoil_actions(&self, out: &mut Vec<Action>) {
        let is_lost = |action: &Action| match self.bug {
            Bug::ReplyLost => matches!(action, Action::Reply(RequestId(id), _) if id % 3 == 0),
            Bug::SpawnLost => matches!(action, Action::Spawn { .. }),
            Bug::KillLost => matches!(action, Action::Kill { .. }),
            Bug::DetachLost => matches!(action, Action::Detach { .. }),
            Bug::ForgetLost => matches!(action, Action::Forget { .. }),
            Bug::PersistLost => matches!(action, Action::Persist(_)),
            Bug::EraseLost => matches!(action, Action::Erase(_)),
            Bug::SlotsLost => matches!(action, Action::Slots { .. }),
            Bug::OnlineUnannounced => matches!(action, Action::Emit { .. }),
            _ => false,
        };
        out.retain(|action| !is_lost(action));
        let spoiled = std::mem::take(out);
        for action in spoiled {
            self.spoil_action(action, out);
        }
    }

    fn spoil_action(&self, action: Action, out: &mut Vec<Action>) {
        match (self.bug, action) {
            (Bug::ReplyDoubled, action @ Action::Reply(..))
            | (Bug::SpawnDoubled, action @ Action::Spawn { .. })
            | (Bug::KillDoubled, action @ Action::Kill { .. })
            | (Bug::ExitDoubled, action @ Action::Exit) => {
                out.push(action.clone());
                out.push(action);
            }
            (Bug::RunIdReused, Action::Spawn { run, pm_id, plan }) => {
                let run = Incarnation(run.0.min(2));
                out.push(Action::Spawn { run, pm_id, plan });
            }
            (Bug::StopSignalIsSigkill, Action::Kill { run, tree, .. }) => {
                let signal = Some(Signal::KILL);
                out.push(Action::Kill { run, signal, tree });
            }
            (Bug::SigkillSparesNobody, Action::Kill { run, signal, tree }) => {
                let tree = tree || signal == Some(Signal::KILL);
                out.push(Action::Kill { run, signal, tree });
            }
            (Bug::ForgetEarly, Action::Kill { run, signal, tree }) => {
                out.push(Action::Kill { run, signal, tree });
                out.push(Action::Forget { run });
            }
            (Bug::ExitEarly, Action::Erase(id)) => {
                out.push(Action::Erase(id));
                out.push(Action::Exit);
            }
            (_, action) => out.push(action),
        }
    }
}

/// Returns the rule that caught a bug, and in which history.
fn hunt<D: Decider>(wrap: impl Fn(Supervisor) -> D) -> Option<(u64, &'static str)> {
    for seed in 0..MOST_HISTORIES {
        let mut world = World::new(seed, false, &wrap);
        let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(Broken { rule, .. })) => return Some((seed, rule)),
            Err(_) => return Some((seed, "nothing_panics")),
        }
    }
    None
}

#[test]
fn every_planted_bug_is_caught() {
    let mut survivors = Vec::new();
    let mut report = |name: String, caught: Option<(u64, &str)>| match caught {
        Some((seed, rule)) => println!("{name:<24} caught in history {seed:>4} by {rule}"),
        None => survivors.push(name),
    };
    for bug in BUGS {
        let caught = hunt(|inner| Corrupt { inner, bug: *bug });
        report(format!("{bug:?}"), caught);
    }
    for planted in mutant::ALL {
        mutant::plant(Some(*planted));
        let caught = hunt(|supervisor| supervisor);
        mutant::plant(None);
        report(format!("{planted:?}"), caught);
    }
    println!("mutants: {}", BUGS.len() + mutant::ALL.len());
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}
