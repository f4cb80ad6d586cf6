//! What an observer knows who sees only events and actions: the model the
//! invariants compare the supervisor with.

use musher_core::app::ExecMode;
use musher_core::exit::Signal;
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::supervisor::process::{Rest, Want};
use musher_core::supervisor::restart::History;
use musher_core::supervisor::run::{Phase, Said};
use musher_core::supervisor::{
    Action, AppKey, AppMessage, Event, Process, ProcessEvent, Request, Supervisor,
};
use musher_core::time::{Mono, Now, Wall};
use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::Kernel;

/// A request as the client sees it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) n_answers: u32,
    pub(crate) is_abandoned: bool,
}

/// A run as seen from outside.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) pm_id: PmId,
    pub(crate) mode: ExecMode,
    pub(crate) wait_ready: bool,
    pub(crate) listen_timeout: u64,
    pub(crate) kill_timeout: u64,
    pub(crate) executed_at: Option<Mono>,
    pub(crate) said: Said,
    pub(crate) rank: u8,
    pub(crate) first_kill: Option<Mono>,
    pub(crate) sigkills: Vec<Mono>,
    /// A person or cron asked again since the last SIGKILL.
    pub(crate) was_asked_again: bool,
    pub(crate) n_online_events: u32,
    pub(crate) n_forgotten: u32,
    pub(crate) is_detached: bool,
    pub(crate) is_over: bool,
}

/// The part of a process that has to survive the daemon.
#[derive(Debug, PartialEq)]
pub(crate) struct Durable {
    want: Want,
    rest: Rest,
    history: History,
    runs: Vec<(Incarnation, Option<u32>, Phase)>,
    reason: Option<String>,
    monitored: bool,
}

impl Durable {
    pub(crate) fn of(p: &Process) -> Durable {
        Durable {
            want: p.want,
            rest: p.rest,
            history: p.history.clone(),
            runs: p
                .runs()
                .map(|run| (run.id, run.pid, run.phase.clone()))
                .collect(),
            reason: p.reason.clone(),
            monitored: p.monitored,
        }
    }
}

impl Durable {
    /// Returns whether this is what a process is.
    pub(crate) fn is(&self, p: &Process) -> bool {
        let runs = self.runs.iter().map(|(id, pid, phase)| (*id, *pid, phase));
        self.want == p.want
            && self.rest == p.rest
            && self.history == p.history
            && self.reason == p.reason
            && self.monitored == p.monitored
            && runs.eq(p.runs().map(|run| (run.id, run.pid, &run.phase)))
    }
}

/// Everything observed so far.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    pub(crate) runs: BTreeMap<Incarnation, Seen>,
    pub(crate) slots: BTreeMap<AppKey, Vec<u32>>,
    pub(crate) store: BTreeMap<PmId, Durable>,
    pub(crate) erased_now: BTreeSet<PmId>,
    pub(crate) cron: BTreeMap<PmId, Wall>,
    pub(crate) next_pm_id: u32,
    pub(crate) last_spawned: u64,
    pub(crate) n_exits: u32,
    pub(crate) is_ending: bool,
    pub(crate) is_exiting: bool,
    /// An end was announced at some time, perhaps to a daemon that died since.
    pub(crate) was_ending: bool,
}

pub(crate) type Processes = BTreeMap<PmId, Process>;

/// One step with everything an invariant may look at.
pub(crate) struct Step<'a> {
    pub(crate) event: &'a Event,
    pub(crate) actions: &'a [Action],
    pub(crate) before: &'a Processes,
    pub(crate) after: &'a Processes,
    pub(crate) state: &'a Supervisor,
    pub(crate) kernel: &'a Kernel,
    pub(crate) model: &'a Model,
    pub(crate) owner_before: Option<PmId>,
    pub(crate) deadline_after: Option<Mono>,
    pub(crate) now: Now,
    /// The same deadline was just handled at this very time.
    pub(crate) is_repeated: bool,
}

impl Step<'_> {
    /// Returns the spawns of this step.
    pub(crate) fn spawns(&self) -> impl Iterator<Item = (Incarnation, PmId)> {
        self.actions.iter().filter_map(|action| match action {
            Action::Spawn { run, pm_id, .. } => Some((*run, *pm_id)),
            _ => None,
        })
    }

    /// Returns the runs a kill was ordered for in this step.
    pub(crate) fn kills(&self) -> impl Iterator<Item = (Incarnation, Option<Signal>)> {
        self.actions.iter().filter_map(|action| match action {
            Action::Kill { run, signal, .. } => Some((*run, *signal)),
            _ => None,
        })
    }

    /// Returns whether this step is a client's wish for this slot, or the end.
    pub(crate) fn is_wish_for(&self, id: PmId) -> bool {
        match self.event {
            Event::Request(_, request) => target(request) == Some(id),
            Event::Shutdown => true,
            _ => false,
        }
    }
}

/// Returns the run an event is about.
pub(crate) fn run_of(event: &Event) -> Option<Incarnation> {
    match event {
        Event::Spawned { run, .. }
        | Event::SpawnFailed { run, .. }
        | Event::Exited { run, .. }
        | Event::Died { run, .. }
        | Event::TreeGone { run }
        | Event::Message { run, .. } => Some(*run),
        _ => None,
    }
}

/// Returns the slot a request is about.
pub(crate) fn target(request: &Request) -> Option<PmId> {
    match request {
        Request::StartProcess(id)
        | Request::Stop(id)
        | Request::Restart(id, _)
        | Request::Reload(id, _)
        | Request::Delete(id)
        | Request::Retire(id)
        | Request::Duplicate(id)
        | Request::ResetMeta(id)
        | Request::Signal(id, _)
        | Request::SetMonitored(id, _) => Some(*id),
        Request::Start { .. } | Request::Roll { .. } | Request::PrepareShutdown => None,
    }
}

impl Model {
    /// Takes in what is about to happen.
    pub(crate) fn hear(&mut self, event: &Event, now: Now) {
        match event {
            Event::Request(id, request) => {
                self.is_ending |= *request == Request::PrepareShutdown;
                self.was_ending |= self.is_ending;
                let asked = Asked {
                    request: request.clone(),
                    n_answers: 0,
                    is_abandoned: false,
                };
                self.asked.insert(*id, asked);
                if let Some(pm_id) = target(request) {
                    for seen in self.runs.values_mut().filter(|seen| seen.pm_id == pm_id) {
                        seen.was_asked_again = true;
                    }
                }
            }
            Event::Abandoned(id) => {
                if let Some(asked) = self.asked.get_mut(id) {
                    asked.is_abandoned = true;
                }
            }
            Event::Shutdown => {
                self.is_ending = true;
                self.is_exiting = true;
            }
            Event::Spawned { run, .. } => {
                if let Some(seen) = self.runs.get_mut(run) {
                    seen.executed_at = Some(now.mono);
                }
            }
            Event::Exited { run, .. } | Event::SpawnFailed { run, .. } => {
                if let Some(seen) = self.runs.get_mut(run) {
                    seen.is_over = true;
                }
            }
            Event::Message { run, message } => self.hear_message(*run, message),
            Event::Deadline => {
                for seen in self.runs.values_mut() {
                    let due = self.cron.get(&seen.pm_id);
                    seen.was_asked_again |= due.is_some_and(|at| *at <= now.wall);
                }
            }
            Event::Died { .. }
            | Event::TreeGone { .. }
            | Event::Probed { .. }
            | Event::Sampled(_) => {}
        }
    }

    fn hear_message(&mut self, run: Incarnation, message: &AppMessage) {
        let Some(seen) = self.runs.get_mut(&run) else {
            return;
        };
        match message {
            AppMessage::Online => seen.said.online = true,
            AppMessage::Ready => seen.said.ready = true,
            AppMessage::Listening { key } => {
                seen.said.listening.insert(key.clone());
            }
            _ => {}
        }
    }

    /// Takes in what was ordered. Returns what is wrong about it in itself.
    pub(crate) fn see(
        &mut self,
        actions: &[Action],
        after: &Processes,
        now: Now,
    ) -> Result<(), (&'static str, String)> {
        self.erased_now.clear();
        for action in actions {
            self.see_one(action, after, now)?;
        }
        Ok(())
    }

    fn see_one(
        &mut self,
        action: &Action,
        after: &Processes,
        now: Now,
    ) -> Result<(), (&'static str, String)> {
        match action {
            Action::Spawn { run, pm_id, .. } => {
                if run.0 <= self.last_spawned {
                    return Err(("a_run_id_is_never_used_twice", format!("run {run}")));
                }
                self.last_spawned = run.0;
                let p = after.get(pm_id);
                let spec = p
                    .and_then(|p| p.runs().find(|r| r.id == *run).map(|r| &r.spec))
                    .or_else(|| p.map(|p| &p.spec));
                let Some(spec) = spec else {
                    return Err(("a_spawn_has_a_slot", format!("run {run}")));
                };
                let seen = Seen {
                    pm_id: *pm_id,
                    mode: spec.mode,
                    wait_ready: spec.ready.wait_ready,
                    listen_timeout: spec.ready.listen_timeout.get(),
                    kill_timeout: spec.stop.kill_timeout.get(),
                    executed_at: None,
                    said: Said::default(),
                    rank: 0,
                    first_kill: None,
                    sigkills: Vec::new(),
                    was_asked_again: false,
                    n_online_events: 0,
                    n_forgotten: 0,
                    is_detached: false,
                    is_over: false,
                };
                self.runs.insert(*run, seen);
            }
            Action::Kill { run, signal, .. } => self.see_kill(*run, *signal, now)?,
            Action::Signal { run, .. }
            | Action::AskToShutDown { run }
            | Action::TakeTraffic { run, .. }
            | Action::Drain { run, .. }
            | Action::Probe { run, .. } => {
                self.known(*run)?;
            }
            Action::Detach { run } => self.known(*run)?.is_detached = true,
            Action::Forget { run } => {
                let seen = self.known(*run)?;
                seen.n_forgotten += 1;
                if !seen.is_over {
                    return Err(("only_ended_runs_are_forgotten", format!("run {run}")));
                }
            }
            Action::Slots { app, live } => {
                self.slots.insert(app.clone(), live.clone());
            }
            Action::Emit { event, process, .. } => {
                if *event == ProcessEvent::Online
                    && let Some(seen) = process.run.and_then(|run| self.runs.get_mut(&run))
                {
                    seen.n_online_events += 1;
                }
            }
            Action::Persist(id) => {
                let Some(p) = after.get(id) else {
                    return Err(("only_slots_are_persisted", format!("slot {id}")));
                };
                self.store.insert(*id, Durable::of(p));
            }
            Action::Erase(id) => {
                if self.store.remove(id).is_none() || !self.erased_now.insert(*id) {
                    return Err(("a_slot_is_erased_once", format!("slot {id}")));
                }
            }
            Action::Reply(id, _) => {
                let Some(asked) = self.asked.get_mut(id) else {
                    return Err(("only_requests_are_answered", format!("request {id}")));
                };
                asked.n_answers += 1;
                if asked.is_abandoned {
                    return Err(("an_abandoned_request_is_not_answered", format!("{id}")));
                }
            }
            Action::Exit => self.n_exits += 1,
            Action::Log(_) | Action::Record(_) => {}
        }
        Ok(())
    }

    fn see_kill(
        &mut self,
        run: Incarnation,
        signal: Option<Signal>,
        now: Now,
    ) -> Result<(), (&'static str, String)> {
        let seen = self.known(run)?;
        let is_first = seen.first_kill.is_none();
        let since = *seen.first_kill.get_or_insert(now.mono);
        if signal != Some(Signal::KILL) {
            return if is_first {
                Ok(())
            } else {
                Err(("a_stop_signal_is_sent_once", format!("run {run}")))
            };
        }
        let previous = seen.sigkills.last().copied();
        let waited = now.mono.since(previous.unwrap_or(since)).get();
        let may_harden = match previous {
            None => !is_first,
            Some(_) => seen.was_asked_again || now.mono == since,
        };
        seen.sigkills.push(now.mono);
        seen.was_asked_again = false;
        if !may_harden || waited < seen.kill_timeout {
            return Err((
                "sigkill_comes_once_and_after_kill_timeout",
                format!("run {run}"),
            ));
        }
        Ok(())
    }

    fn known(&mut self, run: Incarnation) -> Result<&mut Seen, (&'static str, String)> {
        let rule = "orders_concern_runs_that_exist";
        let seen = self.runs.get_mut(&run).filter(|seen| seen.n_forgotten == 0);
        seen.ok_or_else(|| (rule, format!("run {run}")))
    }
}

impl Model {
    /// The daemon died: its clients are gone, the end it had announced and the
    /// numbers above the highest in use are forgotten.
    pub(crate) fn mourn(&mut self, processes: &Processes) {
        for asked in self.asked.values_mut() {
            asked.is_abandoned |= asked.n_answers == 0;
        }
        self.is_ending = false;
        self.next_pm_id = 0;
        self.remember(processes);
    }

    /// Keeps what the next step is compared with.
    pub(crate) fn remember(&mut self, after: &Processes) {
        self.cron.clear();
        for p in after.values() {
            self.cron.extend(p.cron.map(|due| (p.pm_id, due.at)));
            for run in p.runs() {
                if let Some(seen) = self.runs.get_mut(&run.id) {
                    seen.rank = run.phase.rank();
                }
            }
            self.next_pm_id = self.next_pm_id.max(p.pm_id.0 + 1);
        }
        if after.is_empty() {
            self.next_pm_id = 0;
        }
    }
}
