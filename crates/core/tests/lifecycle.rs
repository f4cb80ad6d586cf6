//! Scripted stories: each event, and exactly what is ordered in answer to it.
//!
//! Orders are compared in short words (see [`word`]); log lines and `Persist`
//! are left out, the simulator watches over the latter.
#![allow(clippy::unwrap_used)]

#[path = "lifecycle/reload.rs"]
mod reloads;
mod support;

use musher_core::app::{AppSpec, ExecMode, ReadyPolicy};
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::supervisor::{
    Action, AppMessage, Calendar, Changes, Event, Oom, Outcome, Reply, Request, Sample,
    SpawnFailure, Supervisor,
};
use musher_core::time::{Millis, Mono, Now, Wall};
use musher_core::view::{ProcessView, Status};
use serde_json::json;
use std::sync::Arc;

/// Every pattern is a period in milliseconds.
struct Periods;

impl Calendar for Periods {
    fn next(&self, pattern: &str, after: Wall) -> Option<Wall> {
        let period: i64 = pattern.parse().ok()?;
        Some(Wall((after.0 / period + 1) * period))
    }
}

struct Story {
    supervisor: Supervisor,
    now: Now,
    n_requests: u64,
}

/// Returns the short word of an order: `spawn 1@0` is run 1 in slot 0.
fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Spawn { run, pm_id, .. } => format!("spawn {run}@{pm_id}"),
        Action::Signal { run, signal } => format!("signal {run} {signal}"),
        Action::Kill { run, signal, tree } => {
            let signal = signal.map_or("nothing".to_owned(), |signal| signal.to_string());
            let scope = if *tree { "" } else { " alone" };
            format!("kill {run} {signal}{scope}")
        }
        Action::AskToShutDown { run } => format!("ask {run}"),
        Action::Detach { run } => format!("detach {run}"),
        Action::Drain { run, .. } => format!("drain {run}"),
        Action::Probe { run, kind, .. } => format!("probe {run} {}", kind.name()),
        Action::Forget { run } => format!("forget {run}"),
        Action::Slots { live, .. } => format!("slots {live:?}"),
        Action::Emit {
            event,
            process,
            manually,
        } => {
            let by = if *manually { " by hand" } else { "" };
            let word = event.pm2_name();
            format!(
                "emit {word} {}{by} {}",
                process.pm_id,
                process.status.pm2_name()
            )
        }
        Action::Erase(id) => format!("erase {id}"),
        Action::Reply(id, Ok(Reply::Processes(views))) => {
            let ids: Vec<u32> = views.iter().map(|view| view.pm_id.0).collect();
            format!("reply {id} {ids:?}")
        }
        Action::Reply(id, Ok(Reply::Process(view))) => {
            format!("reply {id} {}", view.status.pm2_name())
        }
        Action::Reply(id, Ok(Reply::Done)) => format!("reply {id} done"),
        Action::Reply(id, Err(error)) => format!("refuse {id} {error}"),
        Action::Exit => "exit".to_owned(),
        Action::TakeTraffic { run, on } => format!("traffic {run} {on}"),
        Action::Reply(id, Ok(Reply::Rolled(receipt))) => {
            let words: Vec<&str> = receipt.parts.iter().map(|p| outcome(&p.outcome)).collect();
            format!("reply {id} rolled {}", words.join(" "))
        }
        Action::Log(_) | Action::Persist(_) | Action::Record(_) => return None,
    })
}

fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Replaced => "replaced",
        Outcome::Restarted => "restarted",
        Outcome::Failed(_) => "failed",
        Outcome::Untouched => "untouched",
        Outcome::RolledBack => "back",
        Outcome::NotRolledBack(_) => "stays",
    }
}

impl Story {
    fn new() -> Story {
        let settings = support::settings(10);
        Story {
            supervisor: Supervisor::new(settings, Box::new(Periods)),
            now: Now {
                mono: Mono(10_000),
                wall: Wall(1_000_000),
            },
            n_requests: 0,
        }
    }

    /// Takes one event and expects exactly these orders.
    #[track_caller]
    fn on(&mut self, event: Event, expected: &[&str]) {
        let mut actions = Vec::new();
        self.supervisor.step(event, self.now, &mut actions);
        let words: Vec<String> = actions.iter().filter_map(word).collect();
        assert_eq!(words, expected);
    }

    #[track_caller]
    fn ask(&mut self, request: Request, expected: &[&str]) {
        self.n_requests += 1;
        let id = RequestId(self.n_requests);
        self.on(Event::Request(id, request), expected);
    }

    #[track_caller]
    fn start(&mut self, spec: AppSpec, expected: &[&str]) {
        let spec = Box::new(spec);
        let register_only = false;
        self.ask(
            Request::Start {
                spec,
                register_only,
            },
            expected,
        );
    }

    #[track_caller]
    fn spawned(&mut self, run: u64, expected: &[&str]) {
        let event = Event::Spawned {
            run: Incarnation(run),
            pid: 1000 + u32::try_from(run).unwrap(),
            version: None,
            place: None,
        };
        self.on(event, expected);
    }

    #[track_caller]
    fn said(&mut self, run: u64, message: AppMessage, expected: &[&str]) {
        let run = Incarnation(run);
        self.on(Event::Message { run, message }, expected);
    }

    #[track_caller]
    fn exited(&mut self, run: u64, status: ExitStatus, expected: &[&str]) {
        let run = Incarnation(run);
        self.on(Event::Exited { run, status }, expected);
    }

    #[track_caller]
    fn tree_gone(&mut self, run: u64, expected: &[&str]) {
        let run = Incarnation(run);
        self.on(Event::TreeGone { run }, expected);
    }

    /// Lets time pass and expects that the deadline comes exactly then.
    #[track_caller]
    fn after(&mut self, span: u64, expected: &[&str]) {
        let due = self.now.mono + Millis(span);
        assert_eq!(self.supervisor.next_deadline(self.now), Some(due));
        self.pass(span);
        self.on(Event::Deadline, expected);
    }

    fn pass(&mut self, span: u64) {
        self.now.mono = self.now.mono + Millis(span);
        self.now.wall.0 += i64::try_from(span).unwrap();
    }

    fn view(&self, id: u32) -> ProcessView {
        self.supervisor.view(PmId(id), self.now).unwrap()
    }

    #[track_caller]
    fn expect(&self, id: u32, status: Status, run: Option<u64>, restart_time: u32) {
        let view = self.view(id);
        let got = (view.status, view.run, view.restart_time);
        assert_eq!(got, (status, run.map(Incarnation), restart_time));
    }

    /// Starts one fork-mode app as run 1 in slot 0, online.
    fn with_fork(spec: AppSpec) -> Story {
        let mut story = Story::new();
        story.start(spec, &["spawn 1@0", "slots [0]"]);
        let online = [
            "emit online 0 launching",
            "emit start 0 by hand online",
            "reply 1 [0]",
        ];
        story.spawned(1, &online);
        story
    }

    /// Starts one worker as run 1 in slot 0, online and listening.
    fn with_worker(spec: AppSpec) -> Story {
        let mut story = Story::new();
        story.start(spec, &["spawn 1@0", "slots [0]"]);
        story.spawned(1, &[]);
        let online = [
            "emit online 0 launching",
            "emit start 0 by hand online",
            "reply 1 [0]",
        ];
        story.said(1, AppMessage::Online, &online);
        story.said(1, listening(), &[]);
        story
    }
}

fn fork() -> AppSpec {
    support::spec("api")
}

fn worker() -> AppSpec {
    AppSpec {
        mode: ExecMode::Cluster,
        ..support::spec("web")
    }
}

fn listening() -> AppMessage {
    AppMessage::Listening {
        key: "4:80".to_owned(),
    }
}

const ID: PmId = PmId(0);
const SIGINT: ExitStatus = ExitStatus::Signal(Signal::INT);

fn reload() -> Request {
    Request::Reload(ID, Changes::default())
}

fn restart() -> Request {
    Request::Restart(ID, Changes::default())
}

#[test]
fn a_fork_app_is_online_as_soon_as_it_is_executed() {
    let mut story = Story::with_fork(fork());
    story.expect(0, Status::Online, Some(1), 0);
    assert_eq!(story.view(0).pid, Some(1001));
    story.ask(
        Request::StartProcess(ID),
        &["refuse 2 process already online"],
    );
}

#[test]
fn a_cluster_of_four_is_answered_when_the_last_is_online() {
    let mut story = Story::new();
    let spec = AppSpec {
        n_instances: 4,
        ..worker()
    };
    #[rustfmt::skip]
    story.start(spec, &[
        "spawn 1@0", "slots [0]", "spawn 2@1", "slots [0, 1]",
        "spawn 3@2", "slots [0, 1, 2]", "spawn 4@3", "slots [0, 1, 2, 3]",
    ]);
    for run in 1..=4 {
        story.spawned(run, &[]);
    }
    for (run, id) in [(3, 2), (1, 0), (4, 3)] {
        let online = format!("emit online {id} launching");
        let start = format!("emit start {id} by hand online");
        story.said(run, AppMessage::Online, &[&online, &start]);
    }
    let last = [
        "emit online 1 launching",
        "emit start 1 by hand online",
        "reply 1 [0, 1, 2, 3]",
    ];
    story.said(2, AppMessage::Online, &last);
    let instances: Vec<u32> = (0..4).map(|id| story.view(id).instance).collect();
    assert_eq!(instances, [0, 1, 2, 3]);
}

#[test]
fn waiting_for_ready_ends_with_listen_timeout_and_says_so() {
    let mut spec = fork();
    spec.ready = ReadyPolicy {
        wait_ready: true,
        listen_timeout: Millis(3000),
    };
    let mut story = Story::new();
    story.start(spec, &["spawn 1@0", "slots [0]"]);
    story.spawned(1, &[]);
    let online = [
        "emit online 0 launching",
        "emit start 0 by hand online",
        "reply 1 [0]",
    ];
    story.after(3000, &online);
    let reason = story.view(0).reason.unwrap();
    assert!(reason.contains("'ready' within 3000 ms"), "{reason}");
}

#[test]
fn ready_before_the_exec_was_heard_of_counts() {
    let mut spec = fork();
    spec.ready.wait_ready = true;
    let mut story = Story::new();
    story.start(spec, &["spawn 1@0", "slots [0]"]);
    story.said(1, AppMessage::Ready, &[]);
    let online = [
        "emit online 0 launching",
        "emit start 0 by hand online",
        "reply 1 [0]",
    ];
    story.spawned(1, &online);
}

#[test]
fn a_stop_climbs_the_ladder_gives_up_and_can_be_asked_again() {
    let mut story = Story::with_fork(fork());
    story.ask(Request::Stop(ID), &["detach 1", "kill 1 SIGINT"]);
    story.after(1600, &["kill 1 SIGKILL"]);
    story.expect(0, Status::Stopping, Some(1), 0);
    let stuck = "refuse 2 api:0 process 1001 could not be stopped: it survived SIGKILL (see its \
                 state with 'ps -o stat,wchan -p 1001')";
    story.after(1600, &[stuck]);
    story.expect(0, Status::Errored, Some(1), 0);
    assert_eq!(story.supervisor.next_deadline(story.now), None);
    story.ask(Request::Stop(ID), &["kill 1 SIGKILL"]);
    story.exited(
        1,
        ExitStatus::Signal(Signal::KILL),
        &["emit exit 0 stopping"],
    );
    let end = [
        "forget 1",
        "emit exit 0 stopped",
        "reply 3 stopped",
        "slots []",
    ];
    story.tree_gone(1, &end);
    story.expect(0, Status::Stopped, None, 0);
}

#[test]
fn a_start_behind_an_unkillable_process_is_told_and_not_left_waiting() {
    let mut story = Story::with_fork(fork());
    story.ask(Request::Stop(ID), &["detach 1", "kill 1 SIGINT"]);
    let superseded = "refuse 2 superseded: start was asked for process id 0 before this stop was \
                      finished";
    story.ask(Request::StartProcess(ID), &[superseded]);
    story.after(1600, &["kill 1 SIGKILL"]);
    let stuck = "refuse 3 api:0 process 1001 could not be stopped: it survived SIGKILL (see its \
                 state with 'ps -o stat,wchan -p 1001')";
    story.after(1600, &[stuck]);
}

#[test]
fn a_stop_waits_for_the_last_descendant() {
    let mut story = Story::with_fork(fork());
    story.ask(Request::Stop(ID), &["detach 1", "kill 1 SIGINT"]);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    story.expect(0, Status::Stopping, Some(1), 0);
    story.after(1600, &["kill 1 SIGKILL"]);
    let end = [
        "forget 1",
        "emit exit 0 stopped",
        "reply 2 stopped",
        "slots []",
    ];
    story.tree_gone(1, &end);
    assert_eq!(story.view(0).last_exit, Some(SIGINT));
}

#[test]
fn a_run_that_left_something_is_judged_by_its_own_life() {
    let mut story = Story::with_fork(fork());
    story.pass(400);
    let died = |oom| Event::Died {
        run: Incarnation(1),
        oom,
    };
    story.on(died(None), &[]);
    story.expect(0, Status::Online, Some(1), 0);
    story.pass(5000);
    let killed = ExitStatus::Signal(Signal::KILL);
    story.exited(1, killed, &["forget 1", "emit exit 0 stopped", "spawn 2@0"]);
    assert_eq!(story.view(0).unstable_restarts, 1);
}

#[test]
fn a_dead_run_that_waits_for_what_it_left_never_becomes_ready() {
    let mut spec = fork();
    spec.ready.wait_ready = true;
    let mut story = Story::new();
    story.start(spec, &["spawn 1@0", "slots [0]"]);
    story.spawned(1, &[]);
    let run = Incarnation(1);
    story.on(Event::Died { run, oom: None }, &[]);
    assert_eq!(story.supervisor.next_deadline(story.now), None);
    story.said(1, AppMessage::Ready, &[]);
    story.expect(0, Status::Launching, Some(1), 0);
}

#[test]
fn a_death_for_want_of_memory_is_told_as_such() {
    let words = [
        (None, "the last run was ended by SIGKILL"),
        (
            Some(Oom::Certain),
            "the last run was ended by SIGKILL: the kernel killed it for want of memory (OOM)",
        ),
        (
            Some(Oom::Maybe),
            "the last run was ended by SIGKILL, maybe by the kernel for want of memory (OOM)",
        ),
    ];
    for (oom, reason) in words {
        let mut spec = fork();
        spec.restart.autorestart = false;
        let mut story = Story::with_fork(spec);
        let run = Incarnation(1);
        story.on(Event::Died { run, oom }, &[]);
        let killed = ExitStatus::Signal(Signal::KILL);
        story.exited(1, killed, &["forget 1", "emit exit 0 stopped", "slots []"]);
        assert_eq!(story.view(0).reason.as_deref(), Some(reason));
    }
}

#[test]
fn shutdown_with_message_asks_and_only_watches() {
    let mut spec = fork();
    spec.stop.with_message = true;
    spec.stop.treekill = false;
    let mut story = Story::with_fork(spec);
    story.ask(
        Request::Stop(ID),
        &["detach 1", "ask 1", "kill 1 nothing alone"],
    );
    story.after(1600, &["kill 1 SIGKILL alone"]);
}

#[test]
fn a_crash_loop_gives_up_and_restart_leads_out_of_it() {
    let mut story = Story::with_fork(fork());
    for run in 1..16 {
        let spawn = format!("spawn {}@0", run + 1);
        let forget = format!("forget {run}");
        story.pass(10);
        let orders = [forget.as_str(), "emit exit 0 stopped", &spawn];
        story.exited(run, ExitStatus::Code(1), &orders);
        story.spawned(run + 1, &["emit online 0 launching"]);
    }
    let end = [
        "forget 16",
        "emit restart overlimit 0 errored",
        "emit exit 0 errored",
        "slots []",
    ];
    story.exited(16, ExitStatus::Code(1), &end);
    story.expect(0, Status::Errored, None, 15);
    assert_eq!(
        (story.view(0).unstable_restarts, story.view(0).created_at),
        (0, None)
    );
    assert_eq!(story.supervisor.next_deadline(story.now), None);
    story.ask(restart(), &["spawn 17@0", "slots [0]"]);
    story.spawned(17, &["emit online 0 launching", "reply 2 online"]);
    story.expect(0, Status::Online, Some(17), 15);
}

#[test]
fn a_failed_exec_is_errored_with_its_reason_and_not_retried() {
    let mut story = Story::new();
    story.start(fork(), &["spawn 1@0", "slots [0]"]);
    let failed = Event::SpawnFailed {
        run: Incarnation(1),
        reason: "exec /srv/api.js: no such file".to_owned(),
        kind: SpawnFailure::Permanent,
    };
    let orders = [
        "forget 1",
        "refuse 1 api:0 exec /srv/api.js: no such file",
        "slots []",
    ];
    story.on(failed, &orders);
    story.expect(0, Status::Errored, None, 0);
    assert_eq!(
        story.view(0).reason.unwrap(),
        "exec /srv/api.js: no such file"
    );
}

#[test]
fn a_restart_stops_first_and_a_delayed_one_needs_no_stop() {
    let mut spec = fork();
    spec.restart.restart_delay = Some(Millis(500));
    let mut story = Story::with_fork(spec);
    story.ask(restart(), &["detach 1", "kill 1 SIGINT"]);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    story.tree_gone(1, &["forget 1", "emit exit 0 launching", "spawn 2@0"]);
    story.spawned(2, &["emit online 0 launching", "reply 2 online"]);
    story.expect(0, Status::Online, Some(2), 1);
    story.pass(2000);
    story.exited(2, ExitStatus::Code(1), &["forget 2", "emit exit 0 stopped"]);
    assert_eq!(story.view(0).pid, None);
    story.ask(restart(), &["spawn 3@0"]);
    story.spawned(3, &["emit online 0 launching", "reply 3 online"]);
    story.expect(0, Status::Online, Some(3), 1);
    story.pass(2000);
    story.exited(3, ExitStatus::Code(1), &["forget 3", "emit exit 0 stopped"]);
    story.after(500, &["spawn 4@0"]);
    story.expect(0, Status::Launching, Some(4), 2);
}

#[test]
fn a_reload_proves_the_successor_before_the_predecessor_leaves() {
    let mut story = Story::with_worker(worker());
    story.ask(reload(), &["spawn 2@0"]);
    story.expect(0, Status::Online, Some(1), 0);
    story.ask(
        reload(),
        &["refuse 3 Reload already in progress for process id 0, retry later"],
    );
    story.spawned(2, &[]);
    let action = AppMessage::Action(json!({"action_name": "gc"}));
    story.said(2, action, &[]);
    assert!(story.view(0).axm.actions.is_empty());
    story.said(2, AppMessage::Online, &[]);
    story.said(
        2,
        listening(),
        &["emit online 0 online", "detach 1", "kill 1 SIGINT"],
    );
    story.expect(0, Status::Online, Some(2), 1);
    assert_eq!(story.view(0).axm.actions.len(), 1);
    story.exited(1, SIGINT, &["emit exit 0 online"]);
    story.tree_gone(1, &["forget 1", "reply 2 online"]);
}

#[test]
fn a_successor_need_not_listen_where_the_app_has_closed_its_server() {
    let mut story = Story::with_worker(worker());
    let once = "4:81".to_owned();
    let opened = AppMessage::Listening { key: once.clone() };
    story.said(1, opened, &[]);
    story.said(1, AppMessage::Closed { key: once }, &[]);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(
        2,
        listening(),
        &["emit online 0 online", "detach 1", "kill 1 SIGINT"],
    );
}

#[test]
fn a_successor_that_never_listens_leaves_and_nothing_changed() {
    let mut story = Story::with_worker(worker());
    let before = story.view(0);
    story.pass(5000);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    let refusal = "refuse 2 web:0 it does not listen on 4:80 within 30000 ms; the old process \
                   goes on serving (raise listen_timeout if the app needs longer to start)";
    story.after(30_000, &["detach 2", "kill 2 SIGINT", refusal]);
    story.exited(2, SIGINT, &["emit exit 0 online"]);
    story.tree_gone(2, &["forget 2"]);
    let after = story.view(0);
    assert!(after.reason.unwrap().starts_with("the last reload failed"));
    assert_eq!((after.run, after.pid), (before.run, before.pid));
    assert_eq!((after.pm_uptime, after.restart_time), (before.pm_uptime, 0));
}

#[test]
fn a_declared_listen_timeout_bounds_the_proof() {
    let mut spec = worker();
    spec.ready.listen_timeout = Millis(800);
    let declared = json!({"listen_timeout": 800});
    spec.declared = Arc::new(declared.as_object().unwrap().clone());
    let mut story = Story::with_worker(spec);
    story.ask(reload(), &["spawn 2@0"]);
    let due = story.supervisor.next_deadline(story.now);
    assert_eq!(due, Some(story.now.mono + Millis(800)));
}

#[test]
fn a_successor_that_crashes_fails_the_reload_at_once() {
    let mut story = Story::with_worker(worker());
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    let refusal = "refuse 2 web:0 the new process ended (exit 1) before it was ready";
    story.exited(2, ExitStatus::Code(1), &["forget 2", refusal]);
    story.expect(0, Status::Online, Some(1), 0);
    story.ask(reload(), &["spawn 3@0"]);
}

#[test]
fn a_worker_that_does_not_listen_has_to_survive_min_uptime() {
    let mut story = Story::new();
    story.start(worker(), &["spawn 1@0", "slots [0]"]);
    story.spawned(1, &[]);
    let online = [
        "emit online 0 launching",
        "emit start 0 by hand online",
        "reply 1 [0]",
    ];
    story.said(1, AppMessage::Online, &online);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.after(1000, &["emit online 0 online", "detach 1", "kill 1 SIGINT"]);
}

#[test]
fn if_the_predecessor_dies_meanwhile_the_successor_serves() {
    let mut story = Story::with_worker(worker());
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.exited(
        1,
        ExitStatus::Signal(Signal(11)),
        &["forget 1", "emit exit 0 launching"],
    );
    story.expect(0, Status::Launching, Some(2), 1);
    story.said(
        2,
        AppMessage::Online,
        &["emit online 0 launching", "reply 2 online"],
    );
}

#[test]
fn a_reload_whose_successor_gives_up_after_taking_over_is_told() {
    let mut spec = worker();
    spec.restart.autorestart = false;
    let mut story = Story::with_worker(spec);
    story.ask(reload(), &["spawn 2@0"]);
    story.spawned(2, &[]);
    story.said(2, AppMessage::Online, &[]);
    story.said(
        2,
        listening(),
        &["emit online 0 online", "detach 1", "kill 1 SIGINT"],
    );
    let refusal = "refuse 2 web:0 ended and is not to be restarted";
    story.exited(
        2,
        ExitStatus::Code(0),
        &["forget 2", "emit exit 0 stopping", refusal],
    );
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    story.tree_gone(1, &["forget 1", "slots []"]);
    story.expect(0, Status::Stopped, None, 1);
}

#[test]
fn cron_starts_a_stopped_process_once_per_occurrence() {
    let mut spec = fork();
    spec.cron_restart = Some("30000".to_owned());
    let mut story = Story::with_fork(spec);
    story.ask(Request::Stop(ID), &["detach 1", "kill 1 SIGINT"]);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    let end = [
        "forget 1",
        "emit exit 0 stopped",
        "reply 2 stopped",
        "slots []",
    ];
    story.tree_gone(1, &end);
    story.after(20_000, &["spawn 2@0", "slots [0]"]);
    story.on(Event::Deadline, &[]);
    story.spawned(2, &["emit online 0 launching"]);
    story.after(30_000, &["detach 2", "kill 2 SIGINT"]);
}

#[test]
fn too_much_memory_reloads_a_worker_and_restarts_a_fork() {
    let sample = |run| {
        Event::Sampled(vec![Sample {
            run: Incarnation(run),
            memory_bytes: 101,
            cpu_percent: 0.0,
        }])
    };
    let limited = |spec| AppSpec {
        max_memory_bytes: Some(100),
        ..spec
    };
    let mut story = Story::with_worker(limited(worker()));
    story.on(sample(1), &["spawn 2@0"]);
    story.on(sample(1), &[]);
    story.on(sample(2), &[]);
    let mut story = Story::with_fork(limited(fork()));
    story.on(sample(1), &["detach 1", "kill 1 SIGINT"]);
    story.on(sample(1), &[]);
}

#[test]
fn scaling_takes_the_smallest_free_instance_and_a_fresh_id() {
    let mut story = Story::new();
    let spec = AppSpec {
        n_instances: 2,
        ..fork()
    };
    story.start(
        spec,
        &["spawn 1@0", "slots [0]", "spawn 2@1", "slots [0, 1]"],
    );
    story.ask(
        Request::Duplicate(PmId(1)),
        &["spawn 3@2", "slots [0, 1, 2]"],
    );
    let superseded = "refuse 1 superseded: delete was asked for process id 0 before this start \
                      was finished";
    story.spawned(
        2,
        &["emit online 1 launching", "emit start 1 by hand online"],
    );
    story.ask(
        Request::Delete(ID),
        &[superseded, "detach 1", "kill 1 SIGINT"],
    );
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    #[rustfmt::skip]
    story.tree_gone(1, &[
        "forget 1", "emit exit 0 stopped", "erase 0", "emit delete 0 by hand stopped",
        "reply 3 stopped", "slots [1, 2]",
    ]);
    story.ask(
        Request::Duplicate(PmId(1)),
        &["spawn 4@3", "slots [0, 1, 2]"],
    );
    assert_eq!(story.view(3).instance, 0);
    story.ask(Request::Stop(ID), &["refuse 5 0 : id unknown"]);
}

#[test]
fn the_last_delete_begins_the_numbers_anew() {
    let mut story = Story::with_fork(fork());
    story.ask(Request::Delete(ID), &["detach 1", "kill 1 SIGINT"]);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    #[rustfmt::skip]
    story.tree_gone(1, &[
        "forget 1", "emit exit 0 stopped", "erase 0", "emit delete 0 by hand stopped",
        "reply 2 stopped", "slots []",
    ]);
    story.start(fork(), &["spawn 2@0", "slots [0]"]);
}

#[test]
fn after_the_end_is_announced_nothing_starts_any_more() {
    let mut spec = fork();
    spec.n_instances = 2;
    spec.restart.restart_delay = Some(Millis(500));
    let mut story = Story::new();
    story.start(
        spec,
        &["spawn 1@0", "slots [0]", "spawn 2@1", "slots [0, 1]"],
    );
    story.spawned(
        1,
        &["emit online 0 launching", "emit start 0 by hand online"],
    );
    let online = [
        "emit online 1 launching",
        "emit start 1 by hand online",
        "reply 1 [0, 1]",
    ];
    story.spawned(2, &online);
    story.pass(5000);
    story.exited(1, ExitStatus::Code(1), &["forget 1", "emit exit 0 stopped"]);
    story.ask(Request::PrepareShutdown, &["slots [1]", "reply 2 done"]);
    story.exited(
        2,
        ExitStatus::Code(1),
        &["forget 2", "emit exit 1 stopped", "slots []"],
    );
    assert_eq!(story.supervisor.next_deadline(story.now), None);
    let refusal = "refuse 3 [RestartProcessId] PM2 is being killed, stopping restart procedure...";
    story.ask(restart(), &[refusal]);
}

#[test]
fn shutdown_exits_once_when_the_last_process_is_gone() {
    let mut story = Story::with_fork(fork());
    story.on(Event::Shutdown, &["detach 1", "kill 1 SIGINT"]);
    story.tree_gone(1, &[]);
    #[rustfmt::skip]
    story.exited(1, SIGINT, &[
        "emit exit 0 stopping", "forget 1", "emit exit 0 stopped", "erase 0",
        "emit delete 0 by hand stopped", "slots []", "exit",
    ]);
    story.on(Event::Deadline, &[]);
    story.on(Event::Shutdown, &[]);
    let mut story = Story::new();
    story.on(Event::Shutdown, &["exit"]);
}

#[test]
fn an_abandoned_request_is_carried_out_and_not_answered() {
    let mut story = Story::with_fork(fork());
    story.ask(Request::Stop(ID), &["detach 1", "kill 1 SIGINT"]);
    story.on(Event::Abandoned(RequestId(2)), &[]);
    story.exited(1, SIGINT, &["emit exit 0 stopping"]);
    story.tree_gone(1, &["forget 1", "emit exit 0 stopped", "slots []"]);
    assert_eq!(story.supervisor.n_open_requests(), 0);
}

#[test]
fn late_words_of_the_dead_change_nothing() {
    let mut story = Story::with_fork(fork());
    story.exited(
        1,
        ExitStatus::Code(0),
        &["forget 1", "emit exit 0 stopped", "spawn 2@0"],
    );
    let before = story.view(0);
    story.spawned(1, &[]);
    story.said(1, AppMessage::Ready, &[]);
    story.exited(1, ExitStatus::Code(0), &[]);
    story.tree_gone(1, &[]);
    assert_eq!(story.view(0), before);
}
