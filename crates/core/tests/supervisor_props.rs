//! Properties of the supervisor that hold for every list of events.
//!
//! Unlike the simulator these lists need not make sense: a run may exit that
//! was never executed. A failure is shrunk and printed.
#![allow(clippy::unwrap_used)]

mod support;

use musher_core::app::{AppSpec, ExecMode, RestartPolicy};
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::supervisor::restart::{BACKOFF_CAP, Ending, History, Verdict, verdict};
use musher_core::supervisor::{
    Action, AppMessage, Calendar, Changes, Event, Process, Request, SpawnFailure, Supervisor,
};
use musher_core::time::{Millis, Mono, Now, Wall};
use proptest::prelude::*;

const EXIT_1: Ending = Ending::Exited(ExitStatus::Code(1));
const SEGV: Ending = Ending::Exited(ExitStatus::Signal(Signal(11)));
const AT_ONCE: Verdict = Verdict::Restart { after: Millis(0) };

fn young() -> History {
    History {
        created: Some((Mono(0), Wall(0))),
        ..History::default()
    }
}

struct NoCalendar;

impl Calendar for NoCalendar {
    fn next(&self, _: &str, _: Wall) -> Option<Wall> {
        None
    }
}

fn app(kind: u8) -> AppSpec {
    let mut spec = support::spec("web");
    if kind.is_multiple_of(2) {
        spec.mode = ExecMode::Cluster;
    }
    if kind.is_multiple_of(3) {
        spec.restart.restart_delay = Some(Millis(300));
    }
    spec.restart.max_restarts = 3;
    spec.n_instances = u32::from(kind % 3) + 1;
    spec
}

/// Reads a pair of numbers as an event.
fn event(n: u64, kind: u8, which: u8) -> Event {
    let (run, id) = (
        Incarnation(u64::from(which) + 1),
        PmId(u32::from(which % 4)),
    );
    let request = |request| Event::Request(RequestId(n), request);
    match kind {
        0 => request(Request::Start {
            spec: Box::new(app(which)),
            register_only: false,
        }),
        1 => request(Request::Stop(id)),
        2 => request(Request::Restart(id, Changes::default())),
        3..=4 => request(Request::Reload(id, Changes::default())),
        5 => request(Request::StartProcess(id)),
        6..=9 => Event::Spawned {
            run,
            pid: u32::from(which) + 100,
            version: None,
            place: None,
        },
        10..=13 => Event::Message {
            run,
            message: AppMessage::Online,
        },
        14 => Event::Message {
            run,
            message: AppMessage::Listening {
                key: "4:80".to_owned(),
            },
        },
        15 => Event::SpawnFailed {
            run,
            reason: "no".to_owned(),
            kind: SpawnFailure::Transient,
        },
        16..=17 => Event::Exited {
            run,
            status: ExitStatus::Code(1),
        },
        18 => Event::TreeGone { run },
        _ => Event::Deadline,
    }
}

fn step(supervisor: &mut Supervisor, event: &Event, now: Now) -> Vec<Action> {
    let mut actions = Vec::new();
    supervisor.step(event.clone(), now, &mut actions);
    // The clients of a dead daemon are gone.
    actions.retain(|action| !matches!(action, Action::Reply(..)));
    actions
}

/// Returns the processes without those who wait for them.
fn facts(supervisor: &Supervisor) -> Vec<Process> {
    let without_waiters = |process: &Process| Process {
        waiters: Vec::new(),
        ..process.clone()
    };
    supervisor.processes().map(without_waiters).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn a_restored_supervisor_does_what_the_one_that_died_would_have_done(
        events in prop::collection::vec((0u8..22, 0u8..8, 0u64..2000), 1..60),
        cut in 0usize..60,
    ) {
        let mut now = Now { mono: Mono(1000), wall: Wall(1000) };
        let mut first = Supervisor::new(support::settings(6), Box::new(NoCalendar));
        let mut second = None;
        for (n, (kind, which, wait)) in events.into_iter().enumerate() {
            now.mono = now.mono + Millis(wait);
            if n == cut {
                let stored = first.processes().cloned().collect();
                let calendar = Box::new(NoCalendar);
                let last = first.last_run();
                second = Some(Supervisor::restore(support::settings(6), calendar, stored, last, now));
            }
            let event = event(n as u64, kind, which);
            let actions = step(&mut first, &event, now);
            if let Some(second) = &mut second {
                prop_assert_eq!(actions, step(second, &event, now));
                prop_assert_eq!(facts(&first), facts(second));
                prop_assert_eq!(first.next_deadline(now), second.next_deadline(now));
            }
        }
    }

    #[test]
    fn the_deadline_lies_ahead_once_it_was_handled(
        events in prop::collection::vec((0u8..22, 0u8..8, 0u64..2000), 1..60),
    ) {
        let mut now = Now { mono: Mono(1000), wall: Wall(1000) };
        let mut supervisor = Supervisor::new(support::settings(6), Box::new(NoCalendar));
        for (n, (kind, which, wait)) in events.into_iter().enumerate() {
            now.mono = now.mono + Millis(wait);
            step(&mut supervisor, &event(n as u64, kind, which), now);
            step(&mut supervisor, &Event::Deadline, now);
            let next = supervisor.next_deadline(now);
            prop_assert!(next.is_none_or(|at| at > now.mono), "{next:?} at {now:?}");
        }
    }

    #[test]
    fn the_back_off_never_falls_nor_passes_its_cap_while_runs_are_short(
        first in 1u64..15_000,
        uptimes in prop::collection::vec(0u64..30_000, 1..60),
    ) {
        let policy = RestartPolicy {
            exp_backoff: Some(Millis(first)),
            max_restarts: 1_000_000,
            ..RestartPolicy::default()
        };
        let mut history = young();
        let mut previous = Millis(0);
        for uptime in uptimes {
            let got = verdict(&policy, &mut history, EXIT_1, Mono(0), Mono(uptime));
            let Verdict::Restart { after } = got else {
                return Err(TestCaseError::fail("gave up"));
            };
            prop_assert!(after >= previous && after <= BACKOFF_CAP);
            previous = after;
        }
    }

    #[test]
    fn giving_up_agrees_with_counting_by_hand(
        max_restarts in 0u32..6,
        min_uptime in 0u64..3000,
        uptimes in prop::collection::vec(0u64..4000, 1..20),
    ) {
        let policy = RestartPolicy {
            max_restarts,
            min_uptime: Millis(min_uptime),
            ..RestartPolicy::default()
        };
        let mut history = young();
        let (mut now, mut n_unstable) = (0, 0);
        for uptime in uptimes {
            let started = now;
            now += uptime;
            let is_young = now < min_uptime * u64::from(max_restarts);
            n_unstable += u32::from(is_young && uptime < min_uptime);
            let expected = if n_unstable >= max_restarts { Verdict::GiveUp } else { AT_ONCE };
            let got = verdict(&policy, &mut history, SEGV, Mono(started), Mono(now));
            prop_assert_eq!(got, expected);
            if got == Verdict::GiveUp {
                break;
            }
        }
    }
}
