//! What an observer knows who sees only events and actions: the model the
//! invariants compare the supervisor with.

use musher_core::app::probe::{Probe, ProbeKind};
use musher_core::app::{AppSpec, ExecMode, Place};
use musher_core::exit::Signal;
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::supervisor::process::{Rest, Want};
use musher_core::supervisor::process::{Revision, Second};
use musher_core::supervisor::restart::History;
use musher_core::supervisor::run::Rung;
use musher_core::supervisor::run::{Phase, Said};
use musher_core::supervisor::{
    Action, AppKey, AppMessage, Event, Process, ProcessEvent, Record, Request, Supervisor,
};
use musher_core::time::{Mono, Now, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kernel::Kernel;
use crate::rolls::Rolls;

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
    pub(crate) spec: Arc<AppSpec>,
    pub(crate) has_died: bool,
    /// What its probes told, by kind.
    pub(crate) told: [Told; 3],
    /// From when its probes may be asked.
    pub(crate) probed_from: Option<Mono>,
    pub(crate) has_started: bool,
    pub(crate) gets_traffic: bool,
    pub(crate) drain: Option<Drain>,
    pub(crate) n_exit_records: u32,
    /// A successor: since when nothing is missing.
    pub(crate) complete_since: Option<Mono>,
    /// A daemon died during its life: what it said before may be lost.
    pub(crate) is_inherited: bool,
}

/// What one probe of a run told, counted anew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) is_asked: bool,
    pub(crate) answered_at: Option<Mono>,
    n_well: u32,
    pub(crate) n_failed: u32,
    pub(crate) is_well: bool,
    pub(crate) is_failing: bool,
}

/// A drain as seen from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) ends_at: Mono,
    pub(crate) is_done: bool,
    /// A daemon that took over says it once more.
    pub(crate) is_owed: bool,
}

impl Told {
    fn hear(&mut self, is_well: bool, probe: &Probe, now: Mono) {
        self.is_asked = false;
        self.answered_at = Some(now);
        if is_well {
            self.n_failed = 0;
            self.n_well += 1;
            if self.n_well >= probe.success_threshold {
                self.is_well = true;
                self.is_failing = false;
            }
        } else {
            self.n_well = 0;
            self.n_failed += 1;
            if self.n_failed >= probe.failure_threshold {
                self.is_well = false;
                self.is_failing = true;
            }
        }
    }
}

impl Seen {
    fn new(pm_id: PmId, spec: &Arc<AppSpec>) -> Seen {
        Seen {
            pm_id,
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
            spec: Arc::clone(spec),
            has_died: false,
            told: [Told::default(); 3],
            probed_from: None,
            has_started: spec.probes.startup.is_none(),
            gets_traffic: true,
            drain: None,
            n_exit_records: 0,
            complete_since: None,
            is_inherited: false,
        }
    }

    /// Returns whether its startup and readiness probes, if any, are well.
    pub(crate) fn is_well(&self) -> bool {
        let probes = &self.spec.probes;
        [ProbeKind::Startup, ProbeKind::Readiness]
            .into_iter()
            .all(|kind| probes.get(kind).is_none() || self.told[kind as usize].is_well)
    }

    /// Returns whether any of its probes says it is not well.
    pub(crate) fn is_failing(&self) -> bool {
        self.told.iter().any(|told| told.is_failing)
    }

    fn hear_probe(&mut self, kind: ProbeKind, is_well: bool, now: Mono) {
        let spec = Arc::clone(&self.spec);
        let Some(probe) = spec.probes.get(kind) else {
            return;
        };
        if self.is_detached || self.is_over || self.has_died {
            return;
        }
        self.told[kind as usize].hear(is_well, probe, now);
        if kind == ProbeKind::Startup && self.told[kind as usize].is_well && !self.has_started {
            self.has_started = true;
            self.probed_from = Some(now);
        }
    }

    /// Returns what is wrong about asking it now.
    fn ask(&mut self, kind: ProbeKind, now: Mono) -> Result<(), String> {
        let spec = Arc::clone(&self.spec);
        let Some(probe) = spec.probes.get(kind) else {
            return Err("it has no such probe".to_owned());
        };
        let Some(from) = self.probed_from else {
            return Err("it was not executed".to_owned());
        };
        if self.is_detached || self.is_over || self.has_died {
            return Err("it is ending or dead".to_owned());
        }
        if (kind == ProbeKind::Startup) == self.has_started {
            return Err("startup is over, or is not".to_owned());
        }
        let told = &mut self.told[kind as usize];
        let due = match told.answered_at {
            None => from + probe.initial_delay,
            Some(at) => at + probe.period,
        };
        if std::mem::replace(&mut told.is_asked, true) || now < due {
            return Err("too early, or asked already".to_owned());
        }
        Ok(())
    }
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
    keys: BTreeSet<String>,
    releases: [Option<Release>; 2],
    said: Vec<(bool, bool, BTreeSet<String>)>,
}

type Release = (u32, Option<Place>);

fn release(revision: Option<&Revision>) -> Option<Release> {
    revision.map(|revision| (revision.number, revision.place.clone()))
}

fn said(p: &Process) -> Vec<(bool, bool, BTreeSet<String>)> {
    let all = p.runs().map(|run| &run.said);
    all.map(|said| (said.ready, said.agent, said.listening.clone()))
        .collect()
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
            keys: p.keys.clone(),
            releases: [release(p.revision.as_ref()), release(p.previous.as_ref())],
            said: said(p),
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
            && self.keys == p.keys
            && self.releases == [release(p.revision.as_ref()), release(p.previous.as_ref())]
            && self.said == said(p)
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
    pub(crate) rolls: Rolls,
    /// The parts of rolls that wait for slots.
    parts: BTreeMap<PmId, RequestId>,
    /// The slot somebody wants something of in this step.
    wish: Option<PmId>,
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

    /// Returns whether this step is a client's wish for this slot, or the end:
    /// of its own or as a part of a roll that has come to it.
    pub(crate) fn is_wish_for(&self, id: PmId) -> bool {
        let part = |p: &Process| crate::rolls::part_of(p);
        let is_part = self.after.get(&id).and_then(part);
        if is_part.is_some() && is_part != self.before.get(&id).and_then(part) {
            return true;
        }
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
        | Event::Probed { run, .. }
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
    pub(crate) fn hear(&mut self, event: &Event, before: &Processes, now: Now) {
        self.wish = None;
        match event {
            Event::Request(id, request) => {
                self.wish = target(request);
                if let Request::Roll {
                    targets, parallel, ..
                } = request
                {
                    self.rolls.begin(*id, targets, *parallel, before, now);
                }
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
                    seen.probed_from = Some(now.mono);
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
            Event::Died { run, .. } => {
                if let Some(seen) = self.runs.get_mut(run) {
                    seen.has_died = true;
                }
            }
            Event::Probed { run, kind, outcome } => {
                if let Some(seen) = self.runs.get_mut(run) {
                    seen.hear_probe(*kind, outcome.is_ok(), now.mono);
                }
            }
            Event::TreeGone { .. } | Event::Sampled(_) => {}
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
            AppMessage::Closed { key } => {
                seen.said.listening.remove(key);
            }
            AppMessage::AgentUp => seen.said.agent = true,
            AppMessage::Drained(_) => {
                if let Some(drain) = &mut seen.drain {
                    drain.is_done = true;
                }
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
        for (id, p) in after {
            let part = crate::rolls::part_of(p);
            if part.is_some() && part != self.parts.get(id).copied() {
                // A roll has come to this slot.
                for seen in self.runs.values_mut().filter(|seen| seen.pm_id == *id) {
                    seen.was_asked_again = true;
                }
            }
        }
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
                let seen = Seen::new(*pm_id, spec);
                self.runs.insert(*run, seen);
            }
            Action::Kill { run, signal, .. } => self.see_kill(*run, *signal, now)?,
            Action::Signal { run, .. } | Action::AskToShutDown { run } => {
                self.known(*run)?;
            }
            Action::TakeTraffic { run, on } => self.known(*run)?.gets_traffic = *on,
            Action::Drain { run, limit, .. } => {
                let seen = self.known(*run)?;
                let is_first = seen.drain.is_none() && seen.first_kill.is_none();
                let declared = seen.spec.reload.drain;
                let is_again = seen
                    .drain
                    .is_some_and(|drain| drain.is_owed && *limit == drain.ends_at.since(now.mono));
                let is_fresh = is_first && *limit == declared && limit.get() > 0;
                if !seen.said.agent || !(is_fresh || is_again) {
                    let rule = "a_drain_is_asked_once_of_one_that_can";
                    return Err((rule, format!("run {run}")));
                }
                seen.drain = Some(Drain {
                    ends_at: seen.drain.map_or(now.mono + *limit, |drain| drain.ends_at),
                    is_done: false,
                    is_owed: false,
                });
            }
            Action::Probe { run, kind, .. } => {
                let asked = self.known(*run)?.ask(*kind, now.mono);
                let rule = "a_question_comes_in_its_time";
                asked.map_err(|what| (rule, format!("{} of run {run}: {what}", kind.name())))?;
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
            Action::Reply(id, reply) => {
                self.rolls.answered(*id, reply)?;
                let Some(asked) = self.asked.get_mut(id) else {
                    return Err(("only_requests_are_answered", format!("request {id}")));
                };
                asked.n_answers += 1;
                if asked.is_abandoned {
                    return Err(("an_abandoned_request_is_not_answered", format!("{id}")));
                }
            }
            Action::Exit => self.n_exits += 1,
            Action::Record(Record::Exit(exit)) => {
                let seen = self.known(exit.run);
                // A run that ended by itself is forgotten before it is recorded.
                if let Err(error) = seen {
                    let seen = self.runs.get_mut(&exit.run).ok_or(error)?;
                    seen.n_exit_records += 1;
                } else if let Some(seen) = self.runs.get_mut(&exit.run) {
                    seen.n_exit_records += 1;
                }
            }
            Action::Record(Record::Reload(receipt)) => {
                self.rolls.end(receipt, after, self.is_ending)?;
            }
            Action::Log(_) => {}
        }
        Ok(())
    }

    fn see_kill(
        &mut self,
        run: Incarnation,
        signal: Option<Signal>,
        now: Now,
    ) -> Result<(), (&'static str, String)> {
        let (wish, is_exiting) = (self.wish, self.is_exiting);
        let seen = self.known(run)?;
        if let (Some(drain), None) = (seen.drain, seen.first_kill) {
            let is_over = drain.is_done || drain.ends_at <= now.mono || seen.is_over;
            if !is_over && wish != Some(seen.pm_id) && !is_exiting {
                return Err(("a_drain_is_given_its_time", format!("run {run}")));
            }
        }
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
    /// numbers above the highest in use are forgotten. What it was told of runs
    /// is what its successor knows of them.
    pub(crate) fn mourn(&mut self, processes: &Processes, last_run: Incarnation, now: Now) {
        for asked in self.asked.values_mut() {
            asked.is_abandoned |= asked.n_answers == 0;
        }
        self.rolls = Rolls::default();
        self.is_ending = false;
        self.is_exiting = false;
        self.n_exits = 0;
        self.next_pm_id = 0;
        self.last_spawned = last_run.0;
        self.store = processes
            .iter()
            .map(|(id, p)| (*id, Durable::of(p)))
            .collect();
        let inherited = processes.values().flat_map(|p| {
            let serving = p.serving.as_ref().map(|run| run.id);
            p.runs().map(move |run| (p.pm_id, run, serving))
        });
        self.runs = inherited
            .map(|(pm_id, run, serving)| {
                let mut seen = Seen::new(pm_id, &run.spec);
                let is_executed = run.phase != Phase::Spawning;
                seen.is_inherited = true;
                seen.executed_at = is_executed.then_some(run.started);
                seen.probed_from = is_executed.then_some(now.mono);
                seen.said = run.said.clone();
                let is_online = matches!(run.phase, Phase::Online { .. });
                if is_online && serving == Some(run.id) {
                    seen.has_started = true;
                    seen.told[ProbeKind::Startup as usize].is_well = true;
                    seen.n_online_events = 1;
                }
                if let Phase::Stopping(stopping) = &run.phase {
                    seen.is_detached = true;
                    let drained = match stopping.rung {
                        Rung::Draining { ask_at } => Some(ask_at),
                        Rung::Asked { .. } | Rung::Killed { .. } | Rung::Stuck => None,
                    };
                    seen.first_kill = drained.is_none().then_some(now.mono);
                    seen.drain = drained.map(|ends_at| Drain {
                        ends_at,
                        is_done: false,
                        is_owed: true,
                    });
                }
                (run.id, seen)
            })
            .collect();
        self.remember(processes, now);
    }

    /// Keeps what the next step is compared with.
    pub(crate) fn remember(&mut self, after: &Processes, now: Now) {
        self.cron.clear();
        self.parts.clear();
        self.rolls.remember(after);
        for p in after.values() {
            let part = crate::rolls::part_of(p);
            self.parts.extend(part.map(|part| (p.pm_id, part)));
            self.cron.extend(p.cron.map(|due| (p.pm_id, due.at)));
            for run in p.runs() {
                if let Some(seen) = self.runs.get_mut(&run.id) {
                    seen.rank = run.phase.rank();
                }
            }
            self.next_pm_id = self.next_pm_id.max(p.pm_id.0 + 1);
            if let (Some(old), Some(Second::Successor { run, .. })) = (&p.serving, &p.second) {
                let is_complete = self.is_complete(old.id, run.id, &p.keys);
                if let Some(seen) = self.runs.get_mut(&run.id) {
                    let since = seen.complete_since.unwrap_or(now.mono);
                    seen.complete_since = is_complete.then_some(since);
                }
            }
        }
        if after.is_empty() {
            self.next_pm_id = 0;
        }
    }

    /// Returns whether a successor has shown all it owes.
    pub(crate) fn is_complete(
        &self,
        old: Incarnation,
        new: Incarnation,
        keys: &BTreeSet<String>,
    ) -> bool {
        let (Some(old), Some(new)) = (self.runs.get(&old), self.runs.get(&new)) else {
            return false;
        };
        let served = match old.said.listening.is_empty() {
            true => keys,
            false => &old.said.listening,
        };
        let is_up = match new.mode {
            ExecMode::Cluster => new.said.online || (new.wait_ready && new.said.ready),
            ExecMode::Fork => true,
        };
        let is_ready = !new.wait_ready || new.said.ready;
        let is_ill = new.told[ProbeKind::Liveness as usize].is_failing;
        let lives = !new.is_over && !new.has_died && new.executed_at.is_some();
        lives
            && is_up
            && is_ready
            && new.is_well()
            && !is_ill
            && served.is_subset(&new.said.listening)
    }
}
