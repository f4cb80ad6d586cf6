//! A process slot: a wish, at most two runs, and what is remembered.

use super::restart::History;
use super::run::{Phase, Run, Rung};
use crate::app::{AppSpec, Place};
use crate::id::{Incarnation, PmId, RequestId};
use crate::supervisor::action::AppKey;
use crate::supervisor::event::Drained;
use crate::time::{Mono, Now, Wall};
use crate::view::{Axm, ProcessView, Status};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A numbered slot for one instance of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// The slot's number.
    pub pm_id: PmId,
    /// What the next run is started from.
    pub spec: Arc<AppSpec>,
    /// NODE_APP_INSTANCE, and the slot of the listening sockets.
    pub instance: u32,
    /// Value of the `increment_var` variable.
    pub increment: Option<i64>,
    /// The wish.
    pub want: Want,
    /// The run that serves.
    pub serving: Option<Run>,
    /// A second run, while one replaces the other.
    pub second: Option<Second>,
    /// Why nothing serves, when nothing does.
    pub rest: Rest,
    /// Counters.
    pub history: History,
    /// When the cron expression is due next.
    pub cron: Option<CronDue>,
    /// Why the status is what it is.
    pub reason: Option<String>,
    /// Whether the first launch was already announced on the bus.
    pub announced: bool,
    /// What is known of the program that serves, or served last.
    pub facts: Facts,
    /// Resident memory at the last sample, bytes.
    pub memory_bytes: u64,
    /// CPU at the last sample.
    pub cpu_percent: f64,
    /// `monitor` was asked for.
    pub monitored: bool,
    /// Requests that wait for something of this slot.
    pub waiters: Vec<Waiter>,
    /// Keys of the last run that listened, without those it closed: what a
    /// successor has to listen on.
    pub keys: BTreeSet<String>,
    /// What serves, or served last, as a release.
    pub revision: Option<Revision>,
    /// The release before.
    pub previous: Option<Revision>,
    /// How the last replacement of a run went.
    pub replacement: Option<Replacement>,
}

/// One release of a slot: what it runs, and from where.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Counted from 1; a release gone back to is a further one.
    pub number: u32,
    /// What it is started from.
    pub spec: Arc<AppSpec>,
    /// Where that really was.
    pub place: Option<Place>,
}

/// How one run of a slot was replaced by another.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    /// Pid of the predecessor.
    pub old_pid: Option<u32>,
    /// Pid of the successor, once known.
    pub new_pid: Option<u32>,
    /// When the successor was asked for.
    pub began: Mono,
    /// When it took over.
    pub took_over: Option<Mono>,
    /// What became of the predecessor's connections, if an agent told.
    pub drained: Option<Drained>,
    /// When nothing was left of the predecessor.
    pub ended: Option<Mono>,
    /// The predecessor had to be killed.
    pub was_killed: bool,
}

/// What is known of the program of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// `version` of package.json.
    pub version: Option<String>,
    /// Node's version.
    pub node_version: Option<String>,
    /// Agent data.
    pub axm: Axm,
}

/// What is wanted of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Run.
    Up,
    /// Do not run.
    Down,
    /// Do not exist.
    Gone,
}

/// The second run of a slot.
#[derive(Clone, Debug, PartialEq)]
pub enum Second {
    /// Has to prove itself before it takes over.
    Successor {
        /// The run.
        run: Run,
        /// When its time is up.
        prove_by: Mono,
        /// Since when nothing is missing.
        proven: Option<Mono>,
        /// When it was asked for.
        started_at: Wall,
        /// What is known of its program; the slot's once it takes over.
        facts: Box<Facts>,
    },
    /// Is being ended: a replaced predecessor or a failed successor.
    Leaving(Run),
}

/// Why nothing serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// To be started at once, as soon as nothing stands in the way.
    Due,
    /// A delayed restart is scheduled.
    Waiting {
        /// For when.
        until: Mono,
    },
    /// Stopped by request, ended without a restart, or never started.
    Stopped,
    /// Given up.
    Errored,
}

/// The next occurrence of a cron expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CronDue {
    /// When it is due.
    pub at: Wall,
    /// The time it was computed at: a clock far before that was set back.
    pub computed_at: Wall,
}

/// A request that waits for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The request.
    pub request: RequestId,
    /// What it waits for.
    pub goal: Goal,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The next run is online.
    Started,
    /// As `Started`, after a stop.
    Restarted,
    /// Nothing runs.
    Stopped,
    /// The slot is gone.
    Deleted,
    /// The successor took over and nothing is left of the predecessor.
    Reloaded,
}

impl Goal {
    /// Returns the word for messages.
    pub const fn verb(self) -> &'static str {
        match self {
            Goal::Started => "start",
            Goal::Restarted => "restart",
            Goal::Stopped => "stop",
            Goal::Deleted => "delete",
            Goal::Reloaded => "reload",
        }
    }
}

impl Second {
    /// Returns the run.
    pub const fn run(&self) -> &Run {
        match self {
            Second::Successor { run, .. } | Second::Leaving(run) => run,
        }
    }

    /// Returns the run, to be changed.
    pub const fn run_mut(&mut self) -> &mut Run {
        match self {
            Second::Successor { run, .. } | Second::Leaving(run) => run,
        }
    }
}

impl Process {
    /// Returns a slot in which nothing has run.
    pub fn new(pm_id: PmId, spec: Arc<AppSpec>, instance: u32, increment: Option<i64>) -> Process {
        Process {
            pm_id,
            spec,
            instance,
            increment,
            want: Want::Down,
            serving: None,
            second: None,
            rest: Rest::Stopped,
            history: History::default(),
            cron: None,
            reason: None,
            announced: false,
            facts: Facts::default(),
            memory_bytes: 0,
            cpu_percent: 0.0,
            monitored: false,
            waiters: Vec::new(),
            keys: BTreeSet::new(),
            revision: None,
            previous: None,
            replacement: None,
        }
    }

    /// Returns the app's identity towards its listening sockets.
    pub fn app_key(&self) -> AppKey {
        AppKey {
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
        }
    }

    /// Returns the run of this id, whichever place it has.
    pub fn run_mut(&mut self, id: Incarnation) -> Option<&mut Run> {
        if self.serving.as_ref().is_some_and(|run| run.id == id) {
            return self.serving.as_mut();
        }
        self.second
            .as_mut()
            .map(Second::run_mut)
            .filter(|run| run.id == id)
    }

    /// Returns what is known of the program of a run that serves or is to serve.
    pub fn facts_mut(&mut self, id: Incarnation) -> Option<&mut Facts> {
        if self.serving.as_ref().is_some_and(|run| run.id == id) {
            return Some(&mut self.facts);
        }
        match &mut self.second {
            Some(Second::Successor { run, facts, .. }) if run.id == id => Some(facts),
            Some(Second::Successor { .. } | Second::Leaving(_)) | None => None,
        }
    }

    /// Returns whether the slot has a process, or is about to have one: its
    /// listening sockets are in use.
    pub fn uses_slot(&self) -> bool {
        let is_meant = self.want == Want::Up
            && match self.rest {
                Rest::Due | Rest::Waiting { .. } => true,
                Rest::Stopped | Rest::Errored => false,
            };
        is_meant || self.runs().next().is_some()
    }

    /// Returns both runs, the serving one first.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.serving
            .iter()
            .chain(self.second.iter().map(Second::run))
    }

    /// Returns PM2's status, derived from wish and fact.
    pub fn status(&self) -> Status {
        if let Some(run) = &self.serving {
            return match &run.phase {
                Phase::Spawning | Phase::Launching { .. } => Status::Launching,
                Phase::Online { .. } => Status::Online,
                Phase::Stopping(stopping) => match stopping.rung {
                    Rung::Draining { .. } | Rung::Asked { .. } | Rung::Killed { .. } => {
                        Status::Stopping
                    }
                    Rung::Stuck => Status::Errored,
                },
            };
        }
        if self.second.is_some() {
            return Status::Stopping;
        }
        match self.rest {
            Rest::Due => Status::Launching,
            Rest::Waiting { .. } => Status::WaitingRestart,
            Rest::Stopped => Status::Stopped,
            Rest::Errored => Status::Errored,
        }
    }

    /// Returns a copy for drawing.
    pub fn view(&self, now: Now) -> ProcessView {
        let status = self.status();
        let online = status == Status::Online;
        ProcessView {
            pm_id: self.pm_id,
            spec: Arc::clone(&self.spec),
            instance: self.instance,
            increment: self.increment,
            status,
            reason: self.reason.clone(),
            run: self.serving.as_ref().map(|run| run.id),
            pid: self.serving.as_ref().and_then(|run| run.pid),
            restart_time: self.history.restart_time,
            unstable_restarts: self.history.unstable_restarts,
            pm_uptime: self.history.started_at,
            created_at: self.history.created.map(|(_, wall)| wall),
            last_exit: self.history.last_exit,
            prev_restart_delay: self.history.prev_delay,
            next_restart_at: match self.rest {
                Rest::Waiting { until } => {
                    let wait = i64::try_from(until.since(now.mono).get()).unwrap_or(i64::MAX);
                    Some(Wall(now.wall.0.saturating_add(wait)))
                }
                Rest::Due | Rest::Stopped | Rest::Errored => None,
            },
            version: self.facts.version.clone(),
            node_version: self.facts.node_version.clone(),
            axm: self.facts.axm.clone(),
            memory_bytes: if online { self.memory_bytes } else { 0 },
            cpu_percent: if online { self.cpu_percent } else { 0.0 },
            monitored: self.monitored,
        }
    }

    /// Returns when this slot needs attention next, cron aside.
    pub fn deadline(&self) -> Option<Mono> {
        let waiting = match self.rest {
            Rest::Waiting { until } if self.serving.is_none() => Some(until),
            Rest::Waiting { .. } | Rest::Due | Rest::Stopped | Rest::Errored => None,
        };
        let leaving = match &self.second {
            Some(Second::Leaving(run)) => run.deadline(),
            Some(Second::Successor { .. }) | None => None,
        };
        let serving = self.serving.as_ref().and_then(Run::deadline);
        [waiting, serving, leaving, super::reload::deadline(self)]
            .into_iter()
            .flatten()
            .min()
    }
}
