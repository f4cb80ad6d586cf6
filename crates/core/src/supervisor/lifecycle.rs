//! The life of a slot: launch, ready, exit, stop ladder; and `reach`, the only
//! place that moves fact towards wish.

use super::action::{Action, ProcessEvent};
use super::event::SpawnFailure;
use super::health::Health;
use super::process::{Goal, Process, Rest, Second, Waiter, Want};
use super::record::{ExitRecord, Record};
use super::reload;
use super::replies::Requests;
use super::request::RequestError;
use super::restart::{Ending, Verdict, verdict};
use super::run::{Phase, Run, Rung};
use super::{Ids, ladder, plan, revision};
use crate::app::agent::Agent;
use crate::app::{ExecMode, Place};
use crate::exit::{ExitStatus, Signal};
use crate::id::Incarnation;
use crate::time::{Millis, Mono, Now};
use crate::view::Axm;

/// How long a worker without `wait_ready` may take to say Node's `online`
/// before it counts as online without it. PM2 waits for ever.
pub const WORKER_ONLINE_BOUND: Millis = Millis(30_000);

/// What a slot's life needs besides the slot.
pub struct Ctx<'a> {
    /// The time of this step.
    pub now: Now,
    /// Actions of this step.
    pub out: &'a mut Vec<Action>,
    /// Identities.
    pub ids: &'a mut Ids,
    /// Open requests.
    pub requests: &'a mut Requests,
    /// The script that Node apps are started with.
    pub agent: Option<&'a Agent>,
    /// No automatic restart any more.
    pub ending: bool,
}

/// Starts a run in an empty slot.
pub fn launch(p: &mut Process, ctx: &mut Ctx<'_>) {
    debug_assert!(p.serving.is_none());
    let now = ctx.now;
    p.history.created.get_or_insert((now.mono, now.wall));
    let run = new_run(p, ctx);
    p.rest = Rest::Stopped;
    p.reason = None;
    p.history.started_at = now.wall;
    p.facts.axm = Axm::default();
    p.serving = Some(run);
}

/// Allocates a run and emits its `Spawn`.
pub fn new_run(p: &mut Process, ctx: &mut Ctx<'_>) -> Run {
    let id = ctx.ids.allocate(p.pm_id);
    let mut spawn_plan = plan::spawn_plan(p, p.history.restart_time, ctx.now);
    if let Some(agent) = ctx.agent {
        plan::preload(&mut spawn_plan, p, agent);
    }
    let word = match p.spec.mode {
        ExecMode::Fork => "fork",
        ExecMode::Cluster => "cluster",
    };
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] starting in -{word} mode-",
        p.spec.name, p.pm_id
    )));
    ctx.out.push(Action::Spawn {
        run: id,
        pm_id: p.pm_id,
        plan: Box::new(spawn_plan),
    });
    if planted!(SuccessorShownEarly) {
        p.history.started_at = ctx.now.wall;
    }
    Run::new(id, p.spec.clone(), ctx.now.mono)
}

/// exec(2) succeeded.
pub fn on_spawned(
    p: &mut Process,
    id: Incarnation,
    pid: u32,
    place: Option<Place>,
    ctx: &mut Ctx<'_>,
) {
    let now = ctx.now.mono;
    let Some(run) = p.run_mut(id) else { return };
    run.pid = Some(pid);
    run.place = place;
    if run.phase != Phase::Spawning {
        return;
    }
    let patience = match (run.spec.ready.wait_ready, run.spec.mode) {
        (true, _) => run.spec.ready.listen_timeout,
        (false, ExecMode::Cluster) => WORKER_ONLINE_BOUND,
        (false, ExecMode::Fork) => Millis(0),
    };
    let probes = &run.spec.probes;
    let patience = match (&probes.startup, &probes.readiness) {
        (None, None) => patience,
        (Some(_), _) | (_, Some(_)) => patience.max(reload::proof_patience(&run.spec)),
    };
    run.health = Health::begin(probes, now);
    run.phase = Phase::Launching {
        ready_by: now + patience,
    };
    revision::note(p);
    advance(p, id, ctx);
}

/// Says what a run that is not ready has not done.
pub fn missing(run: &Run) -> String {
    if run.spec.ready.wait_ready && !run.said.ready {
        return "it did not say the message 'ready'".to_owned();
    }
    if run.spec.mode == ExecMode::Cluster && !run.said.online {
        return "it did not say online".to_owned();
    }
    match run.health.owes(&run.spec.probes) {
        Some((kind, Some(failure))) => {
            format!("its {} probe did not succeed: {failure}", kind.name())
        }
        Some((kind, None)) => format!("its {} probe did not succeed", kind.name()),
        None => "it did not start".to_owned(),
    }
}

/// Makes a launching run online if all it waits for has come.
pub fn advance(p: &mut Process, id: Incarnation, ctx: &mut Ctx<'_>) {
    let Some(run) = p.run_mut(id) else { return };
    let Phase::Launching { .. } = run.phase else {
        return;
    };
    let is_ready = if run.spec.ready.wait_ready {
        run.said.ready
    } else {
        match run.spec.mode {
            ExecMode::Fork => true,
            ExecMode::Cluster => run.said.online,
        }
    };
    if is_ready && run.died.is_none() && run.health.owes(&run.spec.probes).is_none() {
        become_online(p, id, ctx);
    }
}

/// A run is ready, or waiting for it ended.
pub fn become_online(p: &mut Process, id: Incarnation, ctx: &mut Ctx<'_>) {
    let is_serving = p.serving.as_ref().is_some_and(|run| run.id == id);
    if is_serving {
        // PM2's event carries the status before the change.
        emit(p, ProcessEvent::Online, false, ctx);
    }
    let Some(run) = p.run_mut(id) else { return };
    run.phase = Phase::Online {
        since: ctx.now.mono,
    };
    if !is_serving {
        return;
    }
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] online",
        p.spec.name, p.pm_id
    )));
    if !p.announced {
        p.announced = true;
        emit(p, ProcessEvent::Start, true, ctx);
    }
    settle(p, ctx, |goal| {
        matches!(goal, Goal::Started | Goal::Restarted)
    });
    if p.second.is_none() {
        settle(p, ctx, |goal| goal == Goal::Reloaded);
    }
}

/// A run never came to be.
pub fn on_spawn_failed(
    p: &mut Process,
    id: Incarnation,
    reason: &str,
    kind: SpawnFailure,
    ctx: &mut Ctx<'_>,
) {
    let Some(run) = p.run_mut(id) else { return };
    let (started, was_stopping) = (run.started, run.is_stopping());
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] {reason}",
        p.spec.name, p.pm_id
    )));
    ctx.out.push(Action::Forget { run: id });
    ctx.ids.release(id);
    if reload::is_second(p, id) {
        reload::second_is_gone(p, Some(reason), ctx);
        return;
    }
    p.serving = None;
    if was_stopping {
        p.rest = rest_after_stop(p);
        return;
    }
    p.reason = Some(reason.to_owned());
    fail_launch(p, reason, ctx);
    decide(p, Ending::SpawnFailed(kind), (started, ctx.now.mono), ctx);
}

/// The main process of a run ended.
pub fn on_exited(p: &mut Process, id: Incarnation, status: ExitStatus, ctx: &mut Ctx<'_>) {
    log_exit(p, status, ctx);
    let Some(run) = p.run_mut(id) else { return };
    if let Phase::Stopping(stopping) = &mut run.phase {
        stopping.exited.get_or_insert(status);
        let note = match &stopping.rung {
            Rung::Draining { .. } | Rung::Asked { .. } => None,
            Rung::Killed { .. } | Rung::Stuck => Some("it was killed after kill_timeout"),
        };
        let ended = run.clone();
        // It ended by itself: whatever it leaves behind is ended too.
        ladder::hasten(run, ctx);
        if !planted!(ExitUnrecorded) {
            record_exit(p, &ended, status, note, ctx);
        }
        emit(p, ProcessEvent::Exit, false, ctx);
        return;
    }
    let was_online = run.is_online();
    let ended = run.clone();
    ctx.out.push(Action::Forget { run: id });
    ctx.ids.release(id);
    if reload::is_second(p, id) {
        let reason = format!("the new process ended ({status}) before it was ready");
        record_exit(p, &ended, status, Some(&reason), ctx);
        reload::second_is_gone(p, Some(&reason), ctx);
        return;
    }
    p.serving = None;
    p.reason = Some(ended.exit_reason(status));
    if !was_online {
        fail_launch(p, &format!("ended ({status}) before it was ready"), ctx);
    }
    let life = (ended.started, ended.ended_at(ctx.now.mono));
    decide(p, Ending::Exited(status), life, ctx);
    let followed = follow_up(p, ctx);
    record_exit(p, &ended, status, Some(&followed), ctx);
}

/// Says what follows the end of a run, for the history.
fn follow_up(p: &Process, ctx: &Ctx<'_>) -> String {
    match p.rest {
        _ if p.serving.is_some() => "a successor took over".to_owned(),
        Rest::Due => "restarted at once".to_owned(),
        Rest::Waiting { until } => {
            format!("restart after {} ms", until.since(ctx.now.mono).get())
        }
        Rest::Stopped => "not restarted".to_owned(),
        Rest::Errored => p.reason.clone().unwrap_or_else(|| "given up".to_owned()),
    }
}

/// Puts the end of a run into the history.
fn record_exit(p: &Process, run: &Run, status: ExitStatus, note: Option<&str>, ctx: &mut Ctx<'_>) {
    ctx.out
        .push(Action::Record(Record::Exit(Box::new(ExitRecord {
            pm_id: p.pm_id,
            app: p.app_key(),
            run: run.id,
            pid: run.pid,
            status,
            lived: run.ended_at(ctx.now.mono).since(run.started),
            was_asked: run.is_stopping(),
            note: note.map(str::to_owned),
        }))));
}

/// Nothing of a stopped tree is left.
pub fn on_tree_gone(p: &mut Process, id: Incarnation) {
    if let Some(run) = p.run_mut(id)
        && let Phase::Stopping(stopping) = &mut run.phase
    {
        stopping.tree_gone = true;
    }
}

/// Asks the policy what follows an unasked end, and books it.
fn decide(p: &mut Process, ending: Ending, (started, ended): (Mono, Mono), ctx: &mut Ctx<'_>) {
    let is_exit = matches!(ending, Ending::Exited(_));
    p.rest = Rest::Stopped;
    let decision = if p.want == Want::Up {
        let spec = p.spec.clone();
        verdict(&spec.restart, &mut p.history, ending, started, ended)
    } else {
        Verdict::Stop
    };
    let is_replaced = reload::promote(p, ctx);
    if decision == Verdict::GiveUp && !is_replaced {
        give_up(p, ending, ctx);
    }
    if is_exit {
        // PM2's event says `stopped` whatever follows, and does not count it yet.
        emit(p, ProcessEvent::Exit, false, ctx);
    }
    if is_replaced {
        return;
    }
    match decision {
        Verdict::Stop => fail_launch(p, "ended and is not to be restarted", ctx),
        Verdict::Restart { .. } if ctx.ending && !planted!(EndingIgnored) => {
            fail_launch(p, "will not be restarted: the daemon is ending", ctx);
        }
        Verdict::Restart { after: Millis(0) } => {
            p.history.restart_time += 1;
            p.rest = Rest::Due;
        }
        Verdict::Restart { after } => wait(p, after, ctx),
        Verdict::GiveUp => {}
    }
}

fn wait(p: &mut Process, after: Millis, ctx: &mut Ctx<'_>) {
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] will restart in {}ms",
        p.spec.name,
        p.pm_id,
        after.get()
    )));
    let after = if planted!(DelayIgnored) {
        Millis(0)
    } else {
        after
    };
    p.rest = Rest::Waiting {
        until: ctx.now.mono + after,
    };
}

fn give_up(p: &mut Process, ending: Ending, ctx: &mut Ctx<'_>) {
    p.rest = Rest::Errored;
    if let Ending::Exited(status) = ending {
        let n = p.spec.restart.max_restarts;
        p.reason = Some(format!(
            "gave up after {n} unstable runs (shorter than min_uptime {} ms), the last: {status}",
            p.spec.restart.min_uptime.get()
        ));
        ctx.out.push(Action::Log(format!(
            "Script {} had too many unstable restarts ({n}). Stopped. \"errored\"",
            p.spec.script
        )));
        emit(p, ProcessEvent::RestartOverlimit, false, ctx);
    }
    fail_launch(p, "gave up after too many unstable runs", ctx);
}

/// Moves fact towards wish. Returns false when the slot is to be removed.
pub fn reach(p: &mut Process, ctx: &mut Ctx<'_>) -> bool {
    collect(p, ctx);
    match p.want {
        Want::Up => {
            if p.serving.is_none() && p.rest == Rest::Due && !reload::promote(p, ctx) {
                launch(p, ctx);
            }
            if p.second.is_none() && p.serving.as_ref().is_some_and(Run::is_online) {
                settle(p, ctx, |goal| goal == Goal::Reloaded);
            }
            true
        }
        Want::Down | Want::Gone => {
            end_runs(p, ctx);
            let overlooks = planted!(LeavingRunOverlooked) && p.serving.is_none();
            if p.runs().next().is_some() && !overlooks {
                return true;
            }
            settle(p, ctx, |goal| goal == Goal::Stopped);
            p.want == Want::Down
        }
    }
}

fn end_runs(p: &mut Process, ctx: &mut Ctx<'_>) {
    if p.runs().any(|run| !run.is_stopping()) {
        ctx.out.push(Action::Log(format!(
            "Stopping app:{} id:{}",
            p.spec.name, p.pm_id
        )));
    }
    if let Some(run) = &mut p.serving {
        ladder::begin_stop(run, ctx);
    }
    if planted!(SecondRunSpared) {
        return;
    }
    if let Some(second) = p.second.take() {
        let mut run = match second {
            Second::Successor { run, .. } | Second::Leaving(run) => run,
        };
        ladder::begin_stop(&mut run, ctx);
        p.second = Some(Second::Leaving(run));
    }
}

/// Takes away runs of which nothing is left.
fn collect(p: &mut Process, ctx: &mut Ctx<'_>) {
    if let Some(run) = p.serving.take_if(|run| run.is_over()) {
        ctx.out.push(Action::Forget { run: run.id });
        ctx.ids.release(run.id);
        if let Phase::Stopping(stopping) = &run.phase {
            p.history.last_exit = stopping.exited.or(p.history.last_exit);
        }
        p.rest = rest_after_stop(p);
        p.reason = None;
        emit(p, ProcessEvent::Exit, false, ctx);
    }
    if p.second
        .as_ref()
        .is_some_and(|second| second.run().is_over())
    {
        let id = p.second.as_ref().map(|second| second.run().id);
        if let Some(id) = id {
            ctx.out.push(Action::Forget { run: id });
            ctx.ids.release(id);
        }
        reload::second_is_gone(p, None, ctx);
    }
}

const fn rest_after_stop(p: &Process) -> Rest {
    match p.want {
        Want::Up => Rest::Due,
        Want::Down | Want::Gone => Rest::Stopped,
    }
}

/// Answers the waiters whose goal is reached.
pub fn settle(p: &mut Process, ctx: &mut Ctx<'_>, reached: impl Fn(Goal) -> bool) {
    let (done, rest): (Vec<Waiter>, Vec<Waiter>) =
        p.waiters.drain(..).partition(|waiter| reached(waiter.goal));
    p.waiters = rest;
    for waiter in done {
        ctx.requests
            .settle(waiter.request, Ok(p.view(ctx.now)), ctx.out);
    }
}

/// Tells the waiters of these goals that it failed.
pub fn fail(p: &mut Process, reason: &str, ctx: &mut Ctx<'_>, concerned: impl Fn(Goal) -> bool) {
    let (failed, rest): (Vec<Waiter>, Vec<Waiter>) = p
        .waiters
        .drain(..)
        .partition(|waiter| concerned(waiter.goal));
    p.waiters = rest;
    for waiter in failed {
        let error = RequestError::Failed {
            name: p.spec.name.clone(),
            id: p.pm_id,
            reason: reason.to_owned(),
        };
        ctx.requests.settle(waiter.request, Err(error), ctx.out);
    }
}

/// Tells those who wait for a run to serve that none will.
pub fn fail_launch(p: &mut Process, reason: &str, ctx: &mut Ctx<'_>) {
    if planted!(GiveUpUntold) {
        return;
    }
    fail(p, reason, ctx, |goal| {
        matches!(goal, Goal::Started | Goal::Restarted | Goal::Reloaded)
    });
}

/// Publishes a process event.
pub fn emit(p: &Process, event: ProcessEvent, manually: bool, ctx: &mut Ctx<'_>) {
    let process = Box::new(p.view(ctx.now));
    ctx.out.push(Action::Emit {
        event,
        manually,
        process,
    });
}

fn log_exit(p: &Process, status: ExitStatus, ctx: &mut Ctx<'_>) {
    let signal = match status {
        ExitStatus::Signal(signal) => signal,
        // PM2 prints SIGINT when there was no signal.
        ExitStatus::Code(_) | ExitStatus::Unknown => Signal::INT,
    };
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] exited with code [{}] via signal [{signal}]",
        p.spec.name,
        p.pm_id,
        status.code()
    )));
}
