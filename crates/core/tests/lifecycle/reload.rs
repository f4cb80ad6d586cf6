//! Stories of replacing runs: drains, probes, rolls, retiring, reboots.

use super::{ID, SIGINT, Story, fork, listening, reload, worker};
use musher_core::app::probe::{Check, Probe, ProbeKind};
use musher_core::app::{AppSpec, OnFailure, Place};
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::{Incarnation, PmId};
use musher_core::supervisor::process::Rest;
use musher_core::supervisor::{
    AppMessage, Changes, Drained, Event, Process, Request, RollTo, Want, restore,
};
use musher_core::time::Millis;
use std::sync::Arc;

const SIGKILL: ExitStatus = ExitStatus::Signal(Signal::KILL);
const TAKES_OVER: [&str; 3] = ["emit online 0 online", "detach 1", "kill 1 SIGINT"];

fn probe(period: u64, failure_threshold: u32) -> Option<Probe> {
    Some(Probe {
        check: Check::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 1,
        },
        initial_delay: Millis(0),
        period: Millis(period),
        timeout: Millis(100),
        success_threshold: 1,
        failure_threshold,
    })
}

fn roll(targets: &[u32]) -> Request {
    Request::Roll {
        targets: targets.iter().map(|id| PmId(*id)).collect(),
        to: RollTo::Changed(Changes::default()),
        parallel: None,
    }
}

impl Story {
    #[track_caller]
    fn probed(&mut self, run: u64, kind: ProbeKind, is_well: bool, expected: &[&str]) {
        let outcome = match is_well {
            true => Ok(()),
            false => Err("refused".to_owned()),
        };
        let run = Incarnation(run);
        self.on(Event::Probed { run, kind, outcome }, expected);
    }

    /// A run is executed in a release: what the link to the apps points to.
    #[track_caller]
    fn executed(&mut self, run: u64, release: &str, expected: &[&str]) {
        let place = Place {
            cwd: format!("/srv/{release}"),
            script: "/srv/web.js".to_owned(),
        };
        let event = Event::Spawned {
            run: Incarnation(run),
            pid: 1000 + u32::try_from(run).unwrap(),
            version: None,
            place: Some(place),
        };
        self.on(event, expected);
    }

    /// Starts two workers as runs 1 and 2, online and listening, in release a.
    fn with_two(spec: AppSpec) -> Story {
        let mut story = Story::new();
        let spec = AppSpec {
            n_instances: 2,
            ..spec
        };
        let spawns = ["spawn 1@0", "slots [0]", "spawn 2@1", "slots [0, 1]"];
        story.start(spec, &spawns);
        story.executed(1, "a", &[]);
        story.executed(2, "a", &[]);
        let online = ["emit online 0 launching", "emit start 0 by hand online"];
        story.said(1, AppMessage::Online, &online);
        #[rustfmt::skip]
        story.said(2, AppMessage::Online, &[
            "emit online 1 launching", "emit start 1 by hand online", "reply 1 [0, 1]",
        ]);
        story.said(1, listening(), &[]);
        story.said(2, listening(), &[]);
        story
    }

    fn release(&self, id: u32) -> (u32, String, Option<u32>) {
        let p = self.supervisor.process(PmId(id)).unwrap();
        let revision = p.revision.as_ref().unwrap();
        let cwd = revision.place.as_ref().unwrap().cwd.clone();
        let previous = p.previous.as_ref().map(|previous| previous.number);
        (revision.number, cwd, previous)
    }
}

/// Starts a worker with an agent as run 1 and lets run 2 take over from it.
fn draining() -> Story {
    let mut story = Story::with_worker(worker());
    story.said(1, AppMessage::AgentUp, &[]);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    let taken_over = ["emit online 0 online", "detach 1", "drain 1"];
    story.said(2, listening(), &taken_over);
    story
}

#[test]
fn a_predecessor_drains_is_asked_and_is_killed_in_that_order() {
    let mut story = draining();
    story.after(30_000, &["kill 1 SIGINT"]);
    story.after(1600, &["kill 1 SIGKILL"]);
    story.exited(1, SIGKILL, &["emit exit 0 online"]);
    story.tree_gone(1, &["forget 1", "reply 2 online"]);
    let p = story.supervisor.process(ID).unwrap();
    assert!(p.replacement.as_ref().unwrap().was_killed);
}

#[test]
fn a_drained_predecessor_is_asked_to_end_at_once() {
    let mut story = draining();
    story.pass(70);
    let drained = AppMessage::Drained(Drained {
        n_finished: 3,
        ..Drained::default()
    });
    story.said(1, drained.clone(), &["kill 1 SIGINT"]);
    story.said(1, drained, &[]);
    story.exited(1, SIGINT, &["emit exit 0 online"]);
    story.tree_gone(1, &["forget 1", "reply 2 online"]);
    let p = story.supervisor.process(ID).unwrap();
    let replacement = p.replacement.as_ref().unwrap();
    assert_eq!(replacement.drained.unwrap().n_finished, 3);
    assert!(!replacement.was_killed);
}

#[test]
fn what_a_draining_run_leaves_behind_when_it_ends_is_ended_too() {
    let mut story = draining();
    let ends = ["kill 1 SIGINT", "emit exit 0 online"];
    story.exited(1, ExitStatus::Code(0), &ends);
    story.tree_gone(1, &["forget 1", "reply 2 online"]);
}

#[test]
fn a_draining_run_whose_tree_was_gone_first_is_over_when_it_ends() {
    let mut story = draining();
    story.tree_gone(1, &[]);
    #[rustfmt::skip]
    story.exited(1, ExitStatus::Code(0), &[
        "kill 1 SIGINT", "emit exit 0 online", "forget 1", "reply 2 online",
    ]);
}

#[test]
fn a_stop_does_not_wait_for_a_drain() {
    let mut story = draining();
    let superseded = "refuse 2 superseded: stop was asked for process id 0 before this reload was \
                      finished";
    let stop = [superseded, "kill 1 SIGINT", "detach 2", "kill 2 SIGINT"];
    story.ask(Request::Stop(ID), &stop);
}

/// Starts a worker with a readiness probe as run 1, and run 2 beside it, which
/// listens.
fn probed(period: u64) -> Story {
    let mut spec = worker();
    spec.probes.readiness = probe(period, 1);
    let mut story = Story::new();
    story.start(spec, &["spawn 1@0", "slots [0]"]);
    story.spawned(1, &[]);
    story.said(1, AppMessage::Online, &[]);
    story.after(0, &["probe 1 readiness"]);
    #[rustfmt::skip]
    story.probed(1, ProbeKind::Readiness, true, &[
        "emit online 0 launching", "emit start 0 by hand online", "reply 1 [0]", "traffic 1 true",
    ]);
    story.said(1, listening(), &[]);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(2, listening(), &[]);
    story.after(0, &["probe 2 readiness"]);
    story
}

#[test]
fn a_successor_takes_over_when_its_readiness_probe_succeeds() {
    let mut story = probed(1000);
    story.probed(2, ProbeKind::Readiness, false, &[]);
    story.after(1000, &["probe 1 readiness", "probe 2 readiness"]);
    let taken_over = [["traffic 2 true"].as_slice(), &TAKES_OVER].concat();
    story.probed(2, ProbeKind::Readiness, true, &taken_over);
}

#[test]
fn a_successor_whose_readiness_probe_never_succeeds_leaves() {
    let mut story = probed(60_000);
    story.probed(2, ProbeKind::Readiness, false, &[]);
    let refusal = "refuse 2 web:0 its readiness probe did not succeed: refused within 30000 ms; \
                   the old process goes on serving (raise listen_timeout if the app needs longer \
                   to start)";
    story.after(30_000, &["detach 2", "kill 2 SIGINT", refusal]);
}

#[test]
fn a_successor_has_to_be_whole_for_min_ready_in_a_row() {
    let mut spec = worker();
    spec.reload.min_ready = Millis(5000);
    let mut story = Story::with_worker(spec);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(2, listening(), &[]);
    story.pass(4000);
    let key = "4:80".to_owned();
    story.said(2, AppMessage::Closed { key }, &[]);
    story.pass(500);
    story.said(2, listening(), &[]);
    story.after(5000, &TAKES_OVER);
}

#[test]
fn a_successor_that_died_does_not_take_over_while_its_tree_is_ended() {
    let mut spec = worker();
    spec.reload.min_ready = Millis(500);
    let mut story = Story::with_worker(spec);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(2, listening(), &[]);
    let run = Incarnation(2);
    story.on(Event::Died { run, oom: None }, &[]);
    story.pass(600);
    story.on(Event::Deadline, &[]);
    let refusal = "refuse 2 web:0 the new process ended (exit 1) before it was ready";
    story.exited(2, ExitStatus::Code(1), &["forget 2", refusal]);
}

#[test]
fn a_successor_that_fails_its_liveness_probe_does_not_take_over() {
    let mut spec = worker();
    spec.probes.liveness = probe(60_000, 1);
    spec.reload.min_ready = Millis(500);
    let mut story = Story::with_worker(spec);
    story.on(Event::Deadline, &["probe 1 liveness"]);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(2, listening(), &[]);
    story.after(0, &["probe 2 liveness"]);
    story.probed(2, ProbeKind::Liveness, false, &["traffic 2 false"]);
    story.pass(600);
    story.on(Event::Deadline, &[]);
}

#[test]
fn a_worker_gets_connections_when_none_of_its_probes_says_no() {
    let mut story = probed(60_000);
    let mut spec = worker();
    spec.probes.readiness = probe(1000, 1);
    spec.probes.liveness = probe(1000, 3);
    story.start(spec, &["spawn 3@1", "slots [0, 1]"]);
    story.spawned(3, &[]);
    story.said(3, AppMessage::Online, &[]);
    story.on(Event::Deadline, &["probe 3 readiness", "probe 3 liveness"]);
    #[rustfmt::skip]
    story.probed(3, ProbeKind::Readiness, true, &[
        "emit online 1 launching", "emit start 1 by hand online", "reply 3 [1]", "traffic 3 true",
    ]);
    story.pass(1000);
    story.on(Event::Deadline, &["probe 3 readiness"]);
    story.probed(3, ProbeKind::Readiness, false, &["traffic 3 false"]);
    story.probed(3, ProbeKind::Liveness, true, &[]);
    story.pass(1000);
    story.on(Event::Deadline, &["probe 3 readiness", "probe 3 liveness"]);
    story.probed(3, ProbeKind::Readiness, true, &["traffic 3 true"]);
}

#[test]
fn a_run_that_fails_its_liveness_probe_is_restarted() {
    let mut spec = fork();
    spec.probes.liveness = probe(1000, 2);
    let mut story = Story::with_fork(spec);
    story.after(0, &["probe 1 liveness"]);
    story.probed(1, ProbeKind::Liveness, false, &[]);
    story.after(1000, &["probe 1 liveness"]);
    let restart = ["traffic 1 false", "detach 1", "kill 1 SIGINT"];
    story.probed(1, ProbeKind::Liveness, false, &restart);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    story.tree_gone(1, &["forget 1", "emit exit 0 launching", "spawn 2@0"]);
}

/// Rolls two workers; the first is replaced by run 3 in release b, the second
/// begun as run 4.
fn half_rolled(on_failure: OnFailure) -> Story {
    let mut spec = worker();
    spec.reload.on_failure = on_failure;
    let on_failure = match on_failure {
        OnFailure::Abort => "abort",
        OnFailure::Rollback => "rollback",
    };
    let declared = serde_json::json!({
        "name": "web", "pm_exec_path": "/srv/web.js", "pm_cwd": "/srv", "exec_mode": "cluster_mode",
        "reload": {"on_failure": on_failure},
    });
    spec.declared = Arc::new(declared.as_object().unwrap().clone());
    let mut story = Story::with_two(spec);
    story.ask(roll(&[0, 1]), &["spawn 3@0"]);
    let refusal = "refuse 3 Reload already in progress for process id 1, retry later";
    story.ask(roll(&[1]), &[refusal]);
    story.executed(3, "b", &[]);
    story.said(3, AppMessage::Online, &[]);
    let next = [TAKES_OVER.as_slice(), &["spawn 4@1"]].concat();
    story.said(3, listening(), &next);
    story.exited(1, SIGINT, &["emit exit 0 online"]);
    story.tree_gone(1, &["forget 1"]);
    story.executed(4, "b", &[]);
    story
}

#[test]
fn a_failed_roll_leaves_what_it_replaced_if_it_is_to_abort() {
    let mut story = half_rolled(OnFailure::Abort);
    let end = ["forget 4", "reply 2 rolled replaced failed"];
    story.exited(4, ExitStatus::Code(1), &end);
    assert_eq!(story.release(0), (2, "/srv/b".to_owned(), Some(1)));
    assert_eq!(story.release(1), (1, "/srv/a".to_owned(), None));
}

#[test]
fn a_failed_roll_takes_back_what_it_replaced_if_it_is_to_roll_back() {
    let mut story = half_rolled(OnFailure::Rollback);
    story.exited(4, ExitStatus::Code(1), &["forget 4", "spawn 5@0"]);
    story.executed(5, "a", &[]);
    story.said(5, AppMessage::Online, &[]);
    let back = ["emit online 0 online", "detach 3", "kill 3 SIGINT"];
    story.said(5, listening(), &back);
    story.exited(3, SIGINT, &["emit exit 0 online"]);
    story.tree_gone(3, &["forget 3", "reply 2 rolled back failed"]);
    assert_eq!(story.release(0), (3, "/srv/a".to_owned(), Some(2)));
    assert_eq!(story.release(1), (1, "/srv/a".to_owned(), None));
}

#[test]
fn a_roll_back_starts_nothing_that_was_stopped_meanwhile() {
    let mut story = half_rolled(OnFailure::Rollback);
    story.ask(Request::Stop(ID), &["detach 3", "kill 3 SIGINT"]);
    let end = ["forget 4", "reply 2 rolled stays failed"];
    story.exited(4, ExitStatus::Code(1), &end);
}

#[test]
fn an_announced_end_stops_a_roll_and_begins_nothing() {
    let mut story = half_rolled(OnFailure::Rollback);
    story.ask(Request::PrepareShutdown, &["reply 4 done"]);
    let end = ["forget 4", "reply 2 rolled replaced failed"];
    story.exited(4, ExitStatus::Code(1), &end);
}

#[test]
fn a_restart_that_fails_in_a_roll_goes_back_too() {
    let mut spec = fork();
    spec.ready.wait_ready = true;
    spec.reload.on_failure = OnFailure::Rollback;
    let mut story = Story::new();
    story.start(spec, &["spawn 1@0", "slots [0]"]);
    story.spawned(1, &[]);
    #[rustfmt::skip]
    story.said(1, AppMessage::Ready, &[
        "emit online 0 launching", "emit start 0 by hand online", "reply 1 [0]",
    ]);
    story.ask(roll(&[0]), &["detach 1", "kill 1 SIGINT"]);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    story.tree_gone(1, &["forget 1", "emit exit 0 launching", "spawn 2@0"]);
    story.spawned(2, &[]);
    // Patience ends: online for PM2, no proof for a roll.
    let goes_back = ["emit online 0 launching", "detach 2", "kill 2 SIGINT"];
    story.after(3000, &goes_back);
    story.exited(2, SIGINT, &["emit exit 0 stopping"]);
    story.tree_gone(2, &["forget 2", "emit exit 0 launching", "spawn 3@0"]);
    story.spawned(3, &[]);
    let end = ["emit online 0 launching", "reply 2 rolled back"];
    story.said(3, AppMessage::Ready, &end);
}

#[test]
fn a_process_named_twice_is_rolled_once() {
    let mut story = Story::with_worker(worker());
    story.ask(roll(&[0, 0]), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(2, listening(), &TAKES_OVER);
    story.exited(1, SIGINT, &["emit exit 0 online"]);
    story.tree_gone(1, &["forget 1", "reply 2 rolled replaced"]);
}

#[test]
fn a_retired_worker_drains_while_another_one_serves() {
    let mut story = Story::with_two(worker());
    for run in [1, 2] {
        story.said(run, AppMessage::AgentUp, &[]);
    }
    story.ask(Request::Retire(PmId(1)), &["detach 2", "drain 2"]);
    story.said(
        2,
        AppMessage::Drained(Drained::default()),
        &["kill 2 SIGINT"],
    );
    story.exited(2, SIGINT, &["emit exit 1 stopping"]);
    #[rustfmt::skip]
    story.tree_gone(2, &[
        "forget 2", "emit exit 1 stopped", "erase 1", "emit delete 1 by hand stopped",
        "reply 2 stopped", "slots [0]",
    ]);
    story.ask(Request::Retire(ID), &["detach 1", "kill 1 SIGINT"]);
}

#[test]
fn after_a_reboot_what_ran_is_started_and_nothing_else() {
    let stored = |want, rest| {
        let mut story = Story::with_worker(worker());
        story.ask(reload(), &["spawn 2@0"]);
        let p = story.supervisor.process(ID).unwrap();
        let mut p = Process::clone(p);
        p.want = want;
        if rest == Rest::Errored {
            p.serving = None;
            p.second = None;
            p.rest = rest;
        }
        restore::after_reboot(&mut p);
        assert!(p.runs().next().is_none());
        p.rest
    };
    assert_eq!(stored(Want::Up, Rest::Stopped), Rest::Due);
    assert_eq!(stored(Want::Down, Rest::Stopped), Rest::Stopped);
    assert_eq!(stored(Want::Up, Rest::Errored), Rest::Errored);
}
