//! What restarts a process without a person: time, memory, cron.

use super::event::{AppMessage, Drained, Sample};
use super::health::Heard;
use super::ladder;
use super::lifecycle::{self, Ctx};
use super::process::{CronDue, Goal, Process, Rest, Second, Want};
use super::run::Phase;
use super::{Action, Calendar, Supervisor, reload, requests};
use crate::app::probe::ProbeKind;
use crate::id::{Incarnation, PmId};
use crate::supervisor::restart::BACKOFF_RESET;
use crate::time::{Millis, Now};
use serde_json::Value;

/// Actions one process may register; PM2 has no bound.
const MAX_ACTIONS: usize = 256;
/// Metrics and options one process may register, each.
const MAX_ENTRIES: usize = 1024;

/// A clock set back by less than this does not bring an occurrence a second
/// time; set back further it is another day. cron(8) draws the same line.
const SET_BACK: Millis = Millis(3 * 3_600_000);

/// Computes when the cron expression of a slot is due next.
pub(super) fn schedule(p: &mut Process, calendar: &dyn Calendar, now: Now) {
    let pattern = p.spec.cron_restart.as_ref();
    let next = pattern.and_then(|pattern| calendar.next(pattern, now.wall));
    p.cron = next.map(|at| CronDue {
        at,
        computed_at: now.wall,
    });
}

impl Supervisor {
    pub(super) fn on_deadline(&mut self, now: Now, out: &mut Vec<Action>) {
        // First cron: a delayed restart due at the same moment is the same restart.
        let cron: Vec<(PmId, CronDue)> = self
            .processes
            .values()
            .filter_map(|p| p.cron.map(|due| (p.pm_id, due)))
            .filter(|(_, due)| {
                due.at <= now.wall
                    || (due.computed_at.since(now.wall) > SET_BACK && !planted!(SetBackIgnored))
            })
            .collect();
        for (id, due) in cron {
            if let Some(process) = self.processes.get_mut(&id) {
                schedule(process, self.calendar.as_ref(), now);
            }
            if due.at > now.wall || self.is_ending() {
                continue;
            }
            self.with_process(id, now, out, |p, ctx| {
                ctx.out.push(Action::Log(format!(
                    "App [{}:{}] cron restart is due",
                    p.spec.name, p.pm_id
                )));
                renew(p, ctx);
            });
        }
        let due: Vec<PmId> = self
            .processes
            .values()
            .filter(|p| p.deadline().is_some_and(|at| at <= now.mono))
            .map(|p| p.pm_id)
            .collect();
        for id in due {
            self.with_process(id, now, out, expire);
        }
    }

    pub(super) fn on_samples(&mut self, samples: &[Sample], now: Now, out: &mut Vec<Action>) {
        for sample in samples {
            let Some(id) = self.owner(sample.run) else {
                continue;
            };
            let Some(p) = self.processes.get_mut(&id) else {
                continue;
            };
            let Some(serving) = p.serving.as_ref().filter(|run| run.id == sample.run) else {
                continue;
            };
            let is_stable = matches!(serving.phase, Phase::Online { since }
                if now.mono.since(since) > BACKOFF_RESET);
            if is_stable && p.history.prev_delay.take().is_some() {
                self.changed.insert(id);
            }
            p.memory_bytes = sample.memory_bytes;
            p.cpu_percent = sample.cpu_percent;
            let limit = p
                .spec
                .max_memory_bytes
                .filter(|limit| sample.memory_bytes > *limit);
            let Some(limit) = limit else { continue };
            if !serving.is_online() || p.second.is_some() || self.is_ending() {
                continue;
            }
            out.push(Action::Log(format!(
                "[PM2][WORKER] Process {id} restarted because it exceeds --max-memory-restart \
                 value (current_memory={} max_memory_limit={limit} [octets])",
                sample.memory_bytes
            )));
            self.with_process(id, now, out, renew);
        }
    }

    pub(super) fn on_message(
        &mut self,
        run: Incarnation,
        message: AppMessage,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(id) = self.owner(run) else { return };
        let Some(p) = self.processes.get_mut(&id) else {
            return;
        };
        match message {
            AppMessage::NodeVersion(version) => {
                if let Some(facts) = p.facts_mut(run) {
                    facts.node_version = Some(version);
                }
            }
            AppMessage::Monitor(metrics) => {
                if let Some(facts) = p.facts_mut(run) {
                    merge(&mut facts.axm.monitor, metrics);
                }
            }
            AppMessage::Options(options) => {
                if let Some(facts) = p.facts_mut(run) {
                    merge(&mut facts.axm.options, options);
                }
            }
            AppMessage::Action(action) => {
                if let Some(facts) = p.facts_mut(run) {
                    register(&mut facts.axm.actions, action);
                }
            }
            AppMessage::Online => self.on_said(run, now, out, |said| said.online = true),
            AppMessage::Ready => self.on_said(run, now, out, |said| said.ready = true),
            AppMessage::Listening { key } => {
                self.on_said(run, now, out, |said| {
                    said.listening.insert(key);
                });
            }
            // A successor need not listen where nothing listens any more.
            AppMessage::Closed { key } => self.on_said(run, now, out, |said| {
                said.listening.remove(&key);
            }),
            AppMessage::AgentUp => self.on_said(run, now, out, |said| said.agent = true),
            AppMessage::Drained(drained) => self.with_run(run, now, out, |p, ctx| {
                on_drained(p, run, drained, ctx);
            }),
            AppMessage::Disconnecting => {}
        }
    }

    fn on_said(
        &mut self,
        run: Incarnation,
        now: Now,
        out: &mut Vec<Action>,
        say: impl FnOnce(&mut super::run::Said),
    ) {
        self.with_run(run, now, out, |p, ctx| {
            let heard = match p.serving.as_ref() {
                Some(serving) if planted!(StaleReadyAccepted) => serving.id,
                Some(_) | None => run,
            };
            if let Some(run) = p.run_mut(heard) {
                say(&mut run.said);
            }
            if let Some(serving) = p.serving.as_ref().filter(|serving| serving.id == run)
                && !serving.is_stopping()
            {
                p.keys.clone_from(&serving.said.listening);
            }
            lifecycle::advance(p, run, ctx);
        });
    }
}

/// A worker has finished what it had accepted: it can be asked to end.
fn on_drained(p: &mut Process, id: Incarnation, drained: Drained, ctx: &mut Ctx<'_>) {
    let is_predecessor = matches!(&p.second, Some(Second::Leaving(run)) if run.id == id);
    if let Some(replacement) = p.replacement.as_mut().filter(|_| is_predecessor) {
        replacement.drained = Some(drained);
    }
    if let Some(run) = p.run_mut(id).filter(|_| !planted!(DrainedUnheard)) {
        ladder::hasten(run, ctx);
    }
}

/// Takes in the answer to a question of a probe.
pub(super) fn on_probed(
    p: &mut Process,
    id: Incarnation,
    kind: ProbeKind,
    outcome: Result<(), String>,
    ctx: &mut Ctx<'_>,
) {
    let Some(run) = p.run_mut(id).filter(|run| run.is_executed()) else {
        return;
    };
    let probes = run.spec.probes.clone();
    let heard = run.health.hear(kind, outcome, &probes, ctx.now.mono);
    // One probe that is well says nothing about the others.
    let is_well = !run.health.is_failing() || planted!(AnyProbeTurnsTrafficOn);
    let was_online = run.is_online();
    lifecycle::advance(p, id, ctx);
    let is_serving = p.serving.as_ref().is_some_and(|run| run.id == id);
    match (heard, kind) {
        (Heard::Well, _) if is_well => {
            ctx.out.push(Action::TakeTraffic { run: id, on: true });
        }
        (Heard::Nothing | Heard::Well, _) => {}
        (Heard::Failing(_), ProbeKind::Readiness) if !was_online => {}
        (Heard::Failing(reason), kind) => {
            ctx.out.push(Action::TakeTraffic { run: id, on: false });
            ctx.out.push(Action::Log(format!(
                "App [{}:{}] {} probe failed: {reason}",
                p.spec.name,
                p.pm_id,
                kind.name()
            )));
            p.reason = Some(format!("the {} probe failed: {reason}", kind.name()));
            let renews = kind != ProbeKind::Readiness && !planted!(LivenessOverlooked);
            if is_serving && renews && !ctx.ending {
                renew(p, ctx);
            }
        }
    }
}

/// Asks the questions of a slot's probes that are due.
fn ask_probes(p: &mut Process, ctx: &mut Ctx<'_>) {
    let serving = p.serving.iter_mut();
    let second = p.second.iter_mut().map(Second::run_mut);
    for run in serving.chain(second).filter(|run| run.is_executed()) {
        for kind in run.health.take_due(ctx.now.mono) {
            if let Some(probe) = run.spec.probes.get(kind) {
                ctx.out.push(Action::Probe {
                    run: run.id,
                    kind,
                    probe: Box::new(probe.clone()),
                });
            }
        }
    }
}

/// Replaces the run of a slot: a reload where that is possible, else a restart.
///
/// A slot somebody is busy with is left alone: a person's wish goes first.
fn renew(p: &mut Process, ctx: &mut Ctx<'_>) {
    if p.want == Want::Gone || p.second.is_some() || !p.waiters.is_empty() {
        return;
    }
    if reload::is_possible(p) {
        let spec = p.spec.clone();
        reload::begin(p, spec, ctx);
    } else {
        requests::renew_by_restart(p, ctx);
    }
}

/// Does what is due in a slot whose deadline has come.
fn expire(p: &mut Process, ctx: &mut Ctx<'_>) {
    if let Rest::Waiting { until } = p.rest
        && until <= ctx.now.mono
        && p.serving.is_none()
    {
        p.history.restart_time += 1;
        p.rest = Rest::Due;
    }
    ask_probes(p, ctx);
    expire_launch(p, ctx);
    let name = p.spec.name.clone();
    if let Some(run) = &mut p.serving
        && ladder::climb(run, &name, ctx)
    {
        let pid = run.pid.unwrap_or(0);
        report_stuck(p, pid, ctx, |_| true);
    }
    if let Some(Second::Leaving(run)) = &mut p.second
        && ladder::climb(run, &name, ctx)
    {
        let pid = run.pid.unwrap_or(0);
        // What is being started beside it does not depend on its end.
        report_stuck(p, pid, ctx, |goal| match goal {
            Goal::Stopped | Goal::Deleted | Goal::Reloaded => true,
            Goal::Started | Goal::Restarted => false,
        });
    }
}

/// Says that a process survived SIGKILL, to the log and to those it concerns.
fn report_stuck(p: &mut Process, pid: u32, ctx: &mut Ctx<'_>, concerned: impl Fn(Goal) -> bool) {
    let reason = format!(
        "process {pid} could not be stopped: it survived SIGKILL (see its state with \
         'ps -o stat,wchan -p {pid}')"
    );
    ctx.out.push(Action::Log(format!(
        "App [{}:{}] {reason}",
        p.spec.name, p.pm_id
    )));
    p.reason = Some(reason.clone());
    lifecycle::fail(p, &reason, ctx, concerned);
}

/// A launch whose patience is over counts as online, as PM2 has it; a
/// successor does not: it is judged by its proof.
fn expire_launch(p: &mut Process, ctx: &mut Ctx<'_>) {
    let Some(run) = &p.serving else { return };
    let id = run.id;
    if let Phase::Launching { ready_by } = run.phase
        && ready_by <= ctx.now.mono
        && run.died.is_none()
    {
        let waited = ctx.now.mono.since(run.started).get();
        let what = match run.health.owes(&run.spec.probes) {
            _ if run.spec.ready.wait_ready && !run.said.ready => "said 'ready'".to_owned(),
            Some((kind, _)) => format!("passed its {} probe", kind.name()),
            None => "said online".to_owned(),
        };
        let reason = format!("online without having {what} within {waited} ms");
        ctx.out.push(Action::Log(format!(
            "App [{}:{}] {reason}",
            p.spec.name, p.pm_id
        )));
        let is_failing = run.health.is_failing();
        lifecycle::become_online(p, id, ctx);
        if is_failing {
            ctx.out.push(Action::TakeTraffic { run: id, on: false });
        }
        p.reason = Some(reason);
    }
}

fn merge(into: &mut serde_json::Map<String, Value>, entries: serde_json::Map<String, Value>) {
    for (key, value) in entries {
        if into.len() < MAX_ENTRIES || into.contains_key(&key) {
            into.insert(key, value);
        }
    }
}

fn register(actions: &mut Vec<Value>, action: Value) {
    let name = &action["action_name"];
    let is_known = actions.iter().any(|known| known["action_name"] == *name);
    if !is_known && actions.len() < MAX_ACTIONS {
        actions.push(action);
    }
}
