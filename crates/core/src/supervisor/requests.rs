//! What a client's request changes: the wish, the spec, and who waits.

use super::ladder;
use super::lifecycle::Ctx;
use super::process::{Goal, Process, Rest, Second, Waiter, Want};
use super::replies::Shape;
use super::request::{Changes, Reply, Request, RequestError};
use super::run::Run;
use super::{Action, Supervisor, instances, reload, trigger};
use crate::app::{AppSpec, description};
use crate::exit::Signal;
use crate::id::{PmId, RequestId};
use crate::time::Now;
use std::sync::Arc;

impl Supervisor {
    pub(super) fn on_request(
        &mut self,
        id: RequestId,
        request: Request,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let refused = match request {
            Request::Start {
                spec,
                register_only,
            } => self.start(id, *spec, register_only, now, out),
            Request::StartProcess(pm_id) => self.start_process(id, pm_id, now, out),
            Request::Stop(pm_id) => self.stop(id, pm_id, Goal::Stopped, now, out),
            Request::Delete(pm_id) => self.stop(id, pm_id, Goal::Deleted, now, out),
            Request::Restart(pm_id, changes) => self.restart(id, pm_id, &changes, now, out),
            Request::Reload(pm_id, changes) => self.reload(id, pm_id, &changes, now, out),
            Request::Roll {
                targets,
                to,
                parallel,
            } => self.roll(id, targets, to, parallel, now),
            Request::Retire(pm_id) => self.retire(id, pm_id, now, out),
            Request::Duplicate(pm_id) => self.duplicate(id, pm_id, now, out),
            Request::ResetMeta(pm_id) => self.reset_meta(id, pm_id, now, out),
            Request::Signal(pm_id, signal) => self.signal(id, pm_id, signal, out),
            Request::SetMonitored(pm_id, on) => self.set_monitored(id, pm_id, on, now, out),
            Request::PrepareShutdown => {
                self.on_prepare_shutdown(now, out);
                out.push(Action::Reply(id, Ok(Reply::Done)));
                Ok(())
            }
        };
        if let Err(error) = refused {
            out.push(Action::Reply(id, Err(error)));
        }
    }

    fn start(
        &mut self,
        request: RequestId,
        spec: AppSpec,
        register_only: bool,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        self.refuse_while_ending()?;
        let n = spec.n_instances.max(1);
        self.refuse_too_many(n)?;
        let spec = Arc::new(spec);
        let runs = spec.autostart && !register_only;
        self.requests.open(request, Shape::Many, n as usize);
        for _ in 0..n {
            self.add(request, Arc::clone(&spec), runs, now, out);
        }
        Ok(())
    }

    /// Makes one slot and, if `runs`, starts it.
    fn add(
        &mut self,
        request: RequestId,
        spec: Arc<AppSpec>,
        runs: bool,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if planted!(NumbersReused) {
            let free = (0..).find(|n| !self.processes.contains_key(&PmId(*n)));
            self.next_pm_id = free.unwrap_or_default();
        }
        let pm_id = PmId(self.next_pm_id);
        self.next_pm_id += 1;
        let instance = instances::free_instance(&self.processes, &spec.name);
        let increment = instances::next_increment(&self.processes, &spec);
        let mut process = Process::new(pm_id, spec, instance, increment);
        trigger::schedule(&mut process, self.calendar.as_ref(), now);
        process.history.created = Some((now.mono, now.wall));
        self.processes.insert(pm_id, process);
        self.with_process(pm_id, now, out, |p, ctx| {
            if runs {
                p.want = Want::Up;
                p.rest = Rest::Due;
                p.waiters.push(Waiter {
                    request,
                    goal: Goal::Started,
                });
            } else {
                ctx.requests.settle(request, Ok(p.view(now)), ctx.out);
            }
        });
    }

    fn start_process(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        self.refuse_while_ending()?;
        let process = self.wanted(pm_id).ok_or(RequestError::UnknownId(pm_id))?;
        if process.want == Want::Up && process.serving.is_some() {
            return Err(RequestError::AlreadyOnline);
        }
        self.requests.open(request, Shape::Many, 1);
        self.with_process(pm_id, now, out, |p, ctx| {
            supersede(p, Goal::Started, ctx);
            want_up(p, ctx);
            p.waiters.push(Waiter {
                request,
                goal: Goal::Started,
            });
        });
        Ok(())
    }

    fn stop(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        goal: Goal,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        if !self.processes.contains_key(&pm_id) {
            return Err(RequestError::UnknownIdStop(pm_id));
        }
        self.requests.open(request, Shape::One, 1);
        self.with_process(pm_id, now, out, |p, ctx| {
            supersede(p, goal, ctx);
            p.waiters.push(Waiter { request, goal });
            // A wish to be gone is not taken back by a stop.
            p.want = match (goal, p.want) {
                (Goal::Deleted, _) | (_, Want::Gone) => Want::Gone,
                (Goal::Started | Goal::Restarted | Goal::Stopped | Goal::Reloaded, _) => Want::Down,
            };
            p.rest = Rest::Stopped;
            p.keys.clear();
            hasten(p, ctx);
            retry_stuck(p, ctx);
        });
        Ok(())
    }

    /// Deletes a process whose work others go on with.
    fn retire(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        let process = self
            .processes
            .get(&pm_id)
            .ok_or(RequestError::UnknownIdStop(pm_id))?;
        let app = process.app_key();
        let has_heirs = self.processes.values().any(|other| {
            other.pm_id != pm_id
                && other.app_key() == app
                && other.want == Want::Up
                && other.serving.as_ref().is_some_and(Run::is_online)
        });
        if !has_heirs && !planted!(LastOneDrains) {
            return self.stop(request, pm_id, Goal::Deleted, now, out);
        }
        self.requests.open(request, Shape::One, 1);
        self.with_process(pm_id, now, out, |p, ctx| {
            supersede(p, Goal::Deleted, ctx);
            p.waiters.push(Waiter {
                request,
                goal: Goal::Deleted,
            });
            p.want = Want::Gone;
            p.rest = Rest::Stopped;
            if let Some(run) = &mut p.serving {
                ladder::begin_drain(run, ctx);
            }
            retry_stuck(p, ctx);
        });
        Ok(())
    }

    fn restart(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        changes: &Changes,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        self.refuse_while_ending()?;
        let process = self.wanted(pm_id).ok_or(RequestError::UnknownIdRestart)?;
        let spec = changed(&process.spec, changes, &self.settings.defaults)?;
        self.requests.open(request, Shape::One, 1);
        self.with_process(pm_id, now, out, |p, ctx| {
            p.spec = spec;
            renew_by_restart(p, ctx);
            p.waiters.push(Waiter {
                request,
                goal: Goal::Restarted,
            });
        });
        Ok(())
    }

    fn reload(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        changes: &Changes,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        self.refuse_while_ending()?;
        let process = self.wanted(pm_id).ok_or(RequestError::UnknownIdReload)?;
        if process.second.is_some() {
            return Err(RequestError::ReloadInProgress(pm_id));
        }
        let spec = changed(&process.spec, changes, &self.settings.defaults)?;
        let possible = reload::is_possible(process);
        self.requests.open(request, Shape::One, 1);
        self.with_process(pm_id, now, out, |p, ctx| {
            if possible {
                p.waiters.push(Waiter {
                    request,
                    goal: Goal::Reloaded,
                });
                reload::begin(p, spec, ctx);
            } else {
                p.spec = spec;
                renew_by_restart(p, ctx);
                p.waiters.push(Waiter {
                    request,
                    goal: Goal::Restarted,
                });
            }
        });
        Ok(())
    }

    fn duplicate(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        self.refuse_while_ending()?;
        let process = self.wanted(pm_id).ok_or(RequestError::UnknownId(pm_id))?;
        let spec = Arc::clone(&process.spec);
        self.refuse_too_many(1)?;
        self.requests.open(request, Shape::Many, 1);
        self.add(request, spec, true, now, out);
        Ok(())
    }

    fn reset_meta(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        if !self.processes.contains_key(&pm_id) {
            return Err(RequestError::UnknownId(pm_id));
        }
        self.with_process(pm_id, now, out, |p, _| {
            p.history.created = Some((now.mono, now.wall));
            p.history.unstable_restarts = 0;
            p.history.restart_time = 0;
        });
        out.push(Action::Reply(request, Ok(Reply::Done)));
        Ok(())
    }

    fn signal(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        signal: Signal,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        let process = self
            .processes
            .get(&pm_id)
            .ok_or(RequestError::UnknownId(pm_id))?;
        let run = process
            .serving
            .as_ref()
            .ok_or(RequestError::NotRunning(pm_id))?;
        out.push(Action::Signal {
            run: run.id,
            signal,
        });
        out.push(Action::Reply(request, Ok(Reply::Done)));
        Ok(())
    }

    fn set_monitored(
        &mut self,
        request: RequestId,
        pm_id: PmId,
        on: bool,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), RequestError> {
        if !self.processes.contains_key(&pm_id) {
            return Err(RequestError::UnknownId(pm_id));
        }
        self.with_process(pm_id, now, out, |p, _| p.monitored = on);
        out.push(Action::Reply(request, Ok(Reply::Done)));
        Ok(())
    }

    /// Returns a slot nobody asked to delete.
    pub(super) fn wanted(&self, pm_id: PmId) -> Option<&Process> {
        self.processes
            .get(&pm_id)
            .filter(|process| process.want != Want::Gone)
    }

    fn refuse_while_ending(&self) -> Result<(), RequestError> {
        if self.is_ending() {
            Err(RequestError::ShuttingDown)
        } else {
            Ok(())
        }
    }

    fn refuse_too_many(&self, asked: u32) -> Result<(), RequestError> {
        let limit = self.settings.max_processes;
        let n_used = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        if n_used.saturating_add(asked) > limit {
            return Err(RequestError::TooMany { asked, limit });
        }
        Ok(())
    }
}

pub(super) fn changed(
    spec: &Arc<AppSpec>,
    changes: &Changes,
    defaults: &description::Defaults,
) -> Result<Arc<AppSpec>, RequestError> {
    if changes.env.is_empty() && changes.attributes.is_empty() && spec.release.is_none() {
        return Ok(Arc::clone(spec));
    }
    match description::apply(spec, changes, defaults) {
        Ok(spec) => Ok(Arc::new(spec)),
        Err(errors) => {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(RequestError::Invalid(texts.join("; ")))
        }
    }
}

/// Stops what runs and starts again, or starts what does not run.
pub(super) fn renew_by_restart(p: &mut Process, ctx: &mut Ctx<'_>) {
    supersede(p, Goal::Restarted, ctx);
    p.history.created = Some((ctx.now.mono, ctx.now.wall));
    p.history.unstable_restarts = 0;
    p.history.prev_delay = None;
    p.keys.clear();
    if p.second
        .as_ref()
        .is_some_and(|second| matches!(second, Second::Successor { .. }))
    {
        reload::abort(p, "a restart took over", ctx);
    }
    want_up(p, ctx);
    if let Some(run) = &mut p.serving {
        if !run.is_stopping() {
            p.history.restart_time += 1;
            ctx.out.push(Action::Log(format!(
                "Stopping app:{} id:{}",
                p.spec.name, p.pm_id
            )));
        }
        ladder::begin_stop(run, ctx);
    }
}

/// Ends the drains of a slot: somebody wants it to end now.
pub(super) fn hasten(p: &mut Process, ctx: &mut Ctx<'_>) {
    if let Some(run) = &mut p.serving {
        ladder::hasten(run, ctx);
    }
    if let Some(second) = &mut p.second {
        ladder::hasten(second.run_mut(), ctx);
    }
}

fn want_up(p: &mut Process, ctx: &mut Ctx<'_>) {
    if p.want != Want::Gone {
        p.want = Want::Up;
    }
    if p.serving.is_none() {
        p.rest = Rest::Due;
    }
    retry_stuck(p, ctx);
}

fn retry_stuck(p: &mut Process, ctx: &mut Ctx<'_>) {
    if let Some(run) = &mut p.serving {
        ladder::retry_stuck(run, ctx);
    }
    if let Some(second) = &mut p.second {
        ladder::retry_stuck(second.run_mut(), ctx);
    }
}

/// Tells older requests that a newer one, for `goal`, takes over from them.
pub(super) fn supersede(p: &mut Process, goal: Goal, ctx: &mut Ctx<'_>) {
    let id = p.pm_id;
    let waiters = std::mem::take(&mut p.waiters);
    for waiter in waiters {
        if is_compatible(waiter.goal, goal) {
            p.waiters.push(waiter);
            continue;
        }
        if planted!(SupersedeUntold) {
            continue;
        }
        let error = RequestError::Superseded {
            id,
            what: waiter.goal.verb(),
            by: goal.verb(),
        };
        ctx.requests.settle(waiter.request, Err(error), ctx.out);
    }
}

/// Returns whether an older goal is still reached when a newer one is pursued.
const fn is_compatible(older: Goal, newer: Goal) -> bool {
    match newer {
        Goal::Started | Goal::Restarted | Goal::Reloaded => {
            matches!(older, Goal::Started | Goal::Restarted)
        }
        Goal::Stopped | Goal::Deleted => matches!(older, Goal::Stopped | Goal::Deleted),
    }
}
