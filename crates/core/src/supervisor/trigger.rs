//! What restarts a process without a person: time, memory, cron.

use super::event::{AppMessage, Sample};
use super::lifecycle::{self, Ctx};
use super::process::{Goal, Process, Rest, Second, Want};
use super::run::Phase;
use super::{Action, Calendar, Supervisor, reload, requests};
use crate::id::{Incarnation, PmId};
use crate::supervisor::restart::BACKOFF_RESET;
use crate::time::Now;
use serde_json::Value;

/// Actions one process may register; PM2 has no bound.
const MAX_ACTIONS: usize = 256;
/// Metrics and options one process may register, each.
const MAX_ENTRIES: usize = 1024;

/// Computes when the cron expression of a slot is due next.
pub(super) fn schedule(p: &mut Process, calendar: &dyn Calendar, now: Now) {
    p.cron_at = p
        .spec
        .cron_restart
        .as_ref()
        .and_then(|pattern| calendar.next(pattern, now.wall));
}

impl Supervisor {
    pub(super) fn on_deadline(&mut self, now: Now, out: &mut Vec<Action>) {
        let due: Vec<PmId> = self
            .processes
            .values()
            .filter(|p| p.deadline().is_some_and(|at| at <= now.mono))
            .map(|p| p.pm_id)
            .collect();
        for id in due {
            self.with_process(id, now, out, expire);
        }
        let cron: Vec<PmId> = self
            .processes
            .values()
            .filter(|p| p.cron_at.is_some_and(|at| at <= now.wall))
            .map(|p| p.pm_id)
            .collect();
        for id in cron {
            if let Some(process) = self.processes.get_mut(&id) {
                schedule(process, self.calendar.as_ref(), now);
            }
            if self.ending {
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
            if is_stable {
                p.history.prev_delay = None;
            }
            p.memory_bytes = sample.memory_bytes;
            p.cpu_percent = sample.cpu_percent;
            let limit = p
                .spec
                .max_memory_bytes
                .filter(|limit| sample.memory_bytes > *limit);
            let Some(limit) = limit else { continue };
            if !serving.is_online() || p.second.is_some() || self.ending {
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
        let is_serving = p.serving.as_ref().is_some_and(|serving| serving.id == run);
        match message {
            AppMessage::NodeVersion(version) => p.node_version = Some(version),
            AppMessage::Monitor(metrics) if is_serving => merge(&mut p.axm.monitor, metrics),
            AppMessage::Options(options) if is_serving => merge(&mut p.axm.options, options),
            AppMessage::Action(action) if is_serving => register(&mut p.axm.actions, action),
            AppMessage::Monitor(_) | AppMessage::Options(_) | AppMessage::Action(_) => {}
            AppMessage::Online => self.on_said(run, now, out, |said| said.online = true),
            AppMessage::Ready => self.on_said(run, now, out, |said| said.ready = true),
            AppMessage::Listening { key } => {
                self.on_said(run, now, out, |said| {
                    said.listening.insert(key);
                });
            }
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
            if let Some(run) = p.run_mut(run) {
                say(&mut run.said);
            }
            lifecycle::advance(p, run, ctx);
        });
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
    expire_launch(p, ctx);
    let name = p.spec.name.clone();
    let mut is_stuck = false;
    if let Some(run) = &mut p.serving {
        is_stuck |= lifecycle::climb(run, &name, ctx);
    }
    if let Some(Second::Leaving(run)) = &mut p.second {
        is_stuck |= lifecycle::climb(run, &name, ctx);
    }
    if is_stuck {
        let pid = p.runs().find_map(|run| run.pid).unwrap_or(0);
        let reason = format!(
            "process {pid} could not be stopped: it survived SIGKILL (see its state with \
             'ps -o stat,wchan -p {pid}')"
        );
        ctx.out
            .push(Action::Log(format!("App [{name}:{}] {reason}", p.pm_id)));
        p.reason = Some(reason.clone());
        lifecycle::fail(p, &reason, ctx, |goal| match goal {
            Goal::Stopped | Goal::Deleted | Goal::Restarted | Goal::Reloaded => true,
            Goal::Started => false,
        });
    }
}

/// A launch whose patience is over counts as online, as PM2 has it; a
/// successor does not: it is judged by its proof.
fn expire_launch(p: &mut Process, ctx: &mut Ctx<'_>) {
    let Some(run) = &p.serving else { return };
    let id = run.id;
    if let Phase::Launching { ready_by } = run.phase
        && ready_by <= ctx.now.mono
    {
        let what = if run.spec.ready.wait_ready {
            "'ready'"
        } else {
            "online"
        };
        let waited = ctx.now.mono.since(run.started).get();
        let reason = format!("online without having said {what} within {waited} ms");
        ctx.out.push(Action::Log(format!(
            "App [{}:{}] {reason}",
            p.spec.name, p.pm_id
        )));
        lifecycle::become_online(p, id, ctx);
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
