//! The decider: everything musher does to processes is decided here.
//!
//! [`Supervisor::step`] is the only function that changes supervised state. It
//! performs nothing, reads no clock and never waits; it states its next
//! deadline. Read [`event`] and [`action`] for the vocabulary, [`lifecycle`]
//! for the life of a slot, [`reload`] for the replacement of a run.

pub mod action;
pub mod event;
pub mod health;
pub mod instances;
pub mod ladder;
pub mod lifecycle;
pub mod plan;
pub mod process;
pub mod record;
pub mod reload;
pub mod replies;
pub mod request;
mod requests;
pub mod restart;
pub mod restore;
pub mod revision;
pub mod roll;
pub mod run;
mod trigger;

pub use action::{Action, AppKey, Channel, Output, ProcessEvent, SpawnPlan};
pub use event::{AppMessage, Drained, Event, Oom, Sample, SpawnFailure};
pub use process::{Process, Want};
pub use record::{ExitRecord, Record};
pub use request::{Changes, Reply, Request, RequestError};
pub use roll::{Outcome, Part, Receipt, RollTo};

use crate::app::agent::Agent;
use crate::app::description::Defaults;
use crate::id::{Incarnation, PmId, RequestId};
use crate::time::{Millis, Mono, Now, Wall};
use crate::view::ProcessView;
use lifecycle::Ctx;
use replies::Requests;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The longest sleep of the loop, so that a jump of the wall clock is noticed
/// by cron within this time.
pub const LONGEST_SLEEP: Millis = Millis(60_000);

/// Computes when a cron expression is due next; the supervisor has no calendar.
pub trait Calendar {
    /// Returns the first instant after `after` that matches, or `None` if there
    /// is none or the pattern is invalid.
    fn next(&self, pattern: &str, after: Wall) -> Option<Wall>;
}

/// Bounds and defaults of a supervisor.
#[derive(Clone, Debug)]
pub struct Settings {
    /// More processes than this are refused.
    pub max_processes: u32,
    /// Daemon-wide defaults of app attributes.
    pub defaults: Defaults,
    /// The script that Node apps are started with; without one they are
    /// started as they are.
    pub agent: Option<Agent>,
}

/// Identities and who owns them.
#[derive(Debug, Default)]
pub struct Ids {
    next_run: u64,
    owners: BTreeMap<Incarnation, PmId>,
}

/// How far the daemon's own end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It serves.
    Serving,
    /// Its end was announced: nothing is started any more.
    Ending,
    /// It was told to end: it exits when no slot is left.
    Exiting,
    /// [`Action::Exit`] was said.
    Over,
}

/// The decider.
pub struct Supervisor {
    settings: Settings,
    calendar: Box<dyn Calendar>,
    processes: BTreeMap<PmId, Process>,
    next_pm_id: u32,
    ids: Ids,
    requests: Requests,
    rolls: BTreeMap<RequestId, roll::Roll>,
    changed: BTreeSet<PmId>,
    stage: Stage,
}

impl Ids {
    /// Returns a run id never used before, owned by this slot.
    pub fn allocate(&mut self, owner: PmId) -> Incarnation {
        self.next_run += 1;
        let id = Incarnation(self.next_run);
        self.owners.insert(id, owner);
        id
    }

    /// Forgets a run that is over; events of it find no owner from here on.
    pub fn release(&mut self, id: Incarnation) {
        self.owners.remove(&id);
    }
}

impl Supervisor {
    /// Returns a supervisor without processes.
    pub fn new(settings: Settings, calendar: Box<dyn Calendar>) -> Supervisor {
        Supervisor {
            settings,
            calendar,
            processes: BTreeMap::new(),
            next_pm_id: 0,
            ids: Ids::default(),
            requests: Requests::default(),
            rolls: BTreeMap::new(),
            changed: BTreeSet::new(),
            stage: Stage::Serving,
        }
    }

    /// Takes in one event and appends what is to be done, in order.
    ///
    /// An event of a run that is over or unknown changes nothing.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Vec<Action>) {
        match event {
            Event::Request(id, request) => self.on_request(id, request, now, out),
            Event::Abandoned(id) => self.abandon(id),
            Event::Spawned {
                run,
                pid,
                version,
                place,
            } => self.with_run(run, now, out, |p, ctx| {
                if let Some(facts) = p.facts_mut(run) {
                    facts.version = version;
                }
                lifecycle::on_spawned(p, run, pid, place, ctx);
            }),
            Event::SpawnFailed { run, reason, kind } => self.with_run(run, now, out, |p, ctx| {
                lifecycle::on_spawn_failed(p, run, &reason, kind, ctx);
            }),
            Event::Died { run, oom } => self.with_run(run, now, out, |p, ctx| {
                if let Some(run) = p.run_mut(run) {
                    let at = ctx.now.mono;
                    run.died.get_or_insert(run::Died { at, oom });
                }
            }),
            Event::Exited { run, status } => self.with_run(run, now, out, |p, ctx| {
                lifecycle::on_exited(p, run, status, ctx);
            }),
            Event::TreeGone { run } => {
                self.with_run(run, now, out, |p, _| lifecycle::on_tree_gone(p, run));
            }
            Event::Message { run, message } => self.on_message(run, message, now, out),
            Event::Probed { run, kind, outcome } => self.with_run(run, now, out, |p, ctx| {
                trigger::on_probed(p, run, kind, outcome, ctx);
            }),
            Event::Sampled(samples) => self.on_samples(&samples, now, out),
            Event::Deadline => self.on_deadline(now, out),
            Event::Shutdown => self.on_shutdown(now, out),
        }
        self.advance_rolls(now, out);
        self.persist(out);
        if self.stage == Stage::Exiting && self.processes.is_empty() {
            self.stage = Stage::Over;
            out.push(Action::Exit);
        }
    }

    /// Returns when [`Event::Deadline`] is due, if ever. May be in the past.
    pub fn next_deadline(&self, now: Now) -> Option<Mono> {
        let runs = self.processes.values().filter_map(Process::deadline).min();
        let cron = self
            .processes
            .values()
            .filter_map(|p| p.cron)
            .map(|due| due.at)
            .min()
            .map(|at| {
                let wait = at.since(now.wall).min(LONGEST_SLEEP);
                now.mono + wait
            });
        [runs, cron].into_iter().flatten().min()
    }

    /// Returns a copy of every process, ascending ids.
    pub fn views(&self, now: Now) -> Vec<ProcessView> {
        self.processes.values().map(|p| p.view(now)).collect()
    }

    /// Returns a copy of one process.
    pub fn view(&self, id: PmId, now: Now) -> Option<ProcessView> {
        self.processes.get(&id).map(|p| p.view(now))
    }

    /// Returns one process with everything the supervisor knows of it.
    pub fn process(&self, id: PmId) -> Option<&Process> {
        self.processes.get(&id)
    }

    /// Returns all processes, ascending ids.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Returns the slot a living run belongs to.
    pub fn owner(&self, run: Incarnation) -> Option<PmId> {
        self.ids.owners.get(&run).copied()
    }

    /// Returns how many requests wait for an answer.
    pub fn n_open_requests(&self) -> usize {
        self.requests.len() + self.n_awaited_rolls()
    }

    /// Returns the highest run id used so far.
    pub fn last_run(&self) -> Incarnation {
        Incarnation(self.ids.next_run)
    }

    /// Changes the slot that owns a run, then lets it reach for its wish.
    fn with_run(
        &mut self,
        run: Incarnation,
        now: Now,
        out: &mut Vec<Action>,
        change: impl FnOnce(&mut Process, &mut Ctx<'_>),
    ) {
        let Some(id) = self.owner(run) else { return };
        self.with_process(id, now, out, change);
    }

    /// Changes a slot, then lets it reach for its wish. Unknown ids change nothing.
    fn with_process(
        &mut self,
        id: PmId,
        now: Now,
        out: &mut Vec<Action>,
        change: impl FnOnce(&mut Process, &mut Ctx<'_>),
    ) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        let used_slot = process.uses_slot();
        let spec = Arc::clone(&process.spec);
        let ending = self.stage != Stage::Serving;
        let mut ctx = Ctx {
            now,
            out,
            ids: &mut self.ids,
            requests: &mut self.requests,
            agent: self.settings.agent.as_ref(),
            ending,
        };
        change(process, &mut ctx);
        reload::check(process, &mut ctx);
        let stays = lifecycle::reach(process, &mut ctx);
        self.changed.insert(id);
        // Only a spec that is in force has a schedule: that of a failed reload has none.
        if process.spec.cron_restart != spec.cron_restart {
            trigger::schedule(process, self.calendar.as_ref(), now);
        }
        let app = process.app_key();
        if !stays {
            self.remove(id, now, out);
        } else if used_slot != process.uses_slot() {
            self.announce_slots(app, out);
        }
    }

    fn remove(&mut self, id: PmId, now: Now, out: &mut Vec<Action>) {
        let Some(mut process) = self.processes.remove(&id) else {
            return;
        };
        self.changed.remove(&id);
        if self.processes.is_empty() {
            self.next_pm_id = 0;
        }
        let mut ctx = Ctx {
            now,
            out,
            ids: &mut self.ids,
            requests: &mut self.requests,
            agent: self.settings.agent.as_ref(),
            ending: self.stage != Stage::Serving,
        };
        ctx.out.push(Action::Erase(id));
        lifecycle::emit(&process, ProcessEvent::Delete, true, &mut ctx);
        lifecycle::settle(&mut process, &mut ctx, |_| true);
        self.announce_slots(process.app_key(), out);
    }

    /// Tells which slots of listening sockets an app still uses.
    fn announce_slots(&self, app: AppKey, out: &mut Vec<Action>) {
        let mut live: Vec<u32> = self
            .processes
            .values()
            .filter(|p| p.app_key() == app)
            .filter(|p| p.uses_slot())
            .map(|p| p.instance)
            .collect();
        live.sort_unstable();
        out.push(Action::Slots { app, live });
    }

    fn is_ending(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// Announces the end: what waits for a restart stays stopped.
    fn on_prepare_shutdown(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Ending;
        }
        let waiting: Vec<PmId> = self
            .processes
            .values()
            .filter(|p| matches!(p.rest, process::Rest::Waiting { .. }))
            .filter(|_| !planted!(WaitingOutlivesTheEnd))
            .map(|p| p.pm_id)
            .collect();
        for id in waiting {
            self.with_process(id, now, out, |p, ctx| {
                p.rest = process::Rest::Stopped;
                lifecycle::fail_launch(p, "will not be restarted: the daemon is ending", ctx);
            });
        }
    }

    fn persist(&mut self, out: &mut Vec<Action>) {
        for id in std::mem::take(&mut self.changed) {
            out.push(Action::Persist(id));
        }
    }

    fn on_shutdown(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.stage == Stage::Over {
            return;
        }
        self.stage = Stage::Exiting;
        let ids: Vec<PmId> = self.processes.keys().copied().collect();
        for id in ids {
            self.with_process(id, now, out, |p, ctx| {
                requests::supersede(p, process::Goal::Deleted, ctx);
                p.want = Want::Gone;
                p.rest = process::Rest::Stopped;
                requests::hasten(p, ctx);
            });
        }
    }
}
