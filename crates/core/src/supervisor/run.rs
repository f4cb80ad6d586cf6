//! The life of one pid: phases that only go forward.

use super::event::Oom;
use super::health::Health;
use crate::app::{AppSpec, Place};
use crate::exit::ExitStatus;
use crate::id::Incarnation;
use crate::time::Mono;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One life of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its identity.
    pub id: Incarnation,
    /// What it was started from; kept, because a reload may change the slot's.
    pub spec: Arc<AppSpec>,
    /// Its process id, once known.
    pub pid: Option<u32>,
    /// When it was spawned.
    pub started: Mono,
    /// Where its directory and script really were when it was executed.
    pub place: Option<Place>,
    /// When and how its main process died, while what it left is being ended.
    pub died: Option<Died>,
    /// What it said so far.
    pub said: Said,
    /// What its probes told so far.
    pub health: Health,
    /// Where it is in its life.
    pub phase: Phase,
}

/// The death of a main process before its exit is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died {
    /// When.
    pub at: Mono,
    /// Whether memory was the reason.
    pub oom: Option<Oom>,
}

/// What a run told over its channel, as far as readiness goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Node's cluster handshake arrived.
    pub online: bool,
    /// The string `"ready"` arrived.
    pub ready: bool,
    /// The agent is in it.
    pub agent: bool,
    /// Keys of the servers that listen; what the app closed is taken out.
    pub listening: BTreeSet<String>,
}

/// Where a run is in its life. Only forward: `rank` never falls.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Asked for; exec(2) has not been confirmed.
    Spawning,
    /// Executed; not ready.
    Launching {
        /// When waiting ends.
        ready_by: Mono,
    },
    /// Ready.
    Online {
        /// Since when.
        since: Mono,
    },
    /// Being ended.
    Stopping(Stopping),
}

/// How far the end of a run has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopping {
    /// How hard it was asked.
    pub rung: Rung,
    /// How the main process ended, once it did.
    pub exited: Option<ExitStatus>,
    /// Nothing of its tree is left.
    pub tree_gone: bool,
}

/// Rungs of the stop ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// It finishes what it accepted; nobody has asked it to end.
    Draining {
        /// When it is asked.
        ask_at: Mono,
    },
    /// Asked by message or signal.
    Asked {
        /// When SIGKILL follows.
        kill_at: Mono,
    },
    /// SIGKILL was sent to everything left.
    Killed {
        /// When waiting ends.
        give_up_at: Mono,
    },
    /// It survived SIGKILL (uninterruptible sleep): reported, still watched.
    Stuck,
}

impl Phase {
    /// Returns the position of the phase in a life, for the forward-only rule.
    pub const fn rank(&self) -> u8 {
        match self {
            Phase::Spawning => 0,
            Phase::Launching { .. } => 1,
            Phase::Online { .. } => 2,
            Phase::Stopping(_) => 3,
        }
    }
}

impl Run {
    /// Returns a run that was just asked for.
    pub fn new(id: Incarnation, spec: Arc<AppSpec>, now: Mono) -> Run {
        Run {
            id,
            spec,
            pid: None,
            started: now,
            place: None,
            died: None,
            said: Said::default(),
            health: Health::default(),
            phase: Phase::Spawning,
        }
    }

    /// Returns when its main process ended, if it ended by `now`.
    pub fn ended_at(&self, now: Mono) -> Mono {
        self.died.map_or(now, |died| died.at)
    }

    /// Returns how it ended, in words.
    pub fn exit_reason(&self, status: ExitStatus) -> String {
        let why = match self.died.and_then(|died| died.oom) {
            Some(Oom::Certain) => ": the kernel killed it for want of memory (OOM)",
            Some(Oom::Maybe) => ", maybe by the kernel for want of memory (OOM)",
            None => "",
        };
        match status {
            ExitStatus::Code(code) => format!("the last run ended with exit code {code}"),
            ExitStatus::Signal(signal) => format!("the last run was ended by {signal}{why}"),
            ExitStatus::Unknown => "the last run ended; how is not known".to_owned(),
        }
    }

    /// Returns whether nothing of the run is left after its end was begun.
    pub fn is_over(&self) -> bool {
        match &self.phase {
            Phase::Stopping(stopping) => stopping.exited.is_some() && stopping.tree_gone,
            Phase::Spawning | Phase::Launching { .. } | Phase::Online { .. } => false,
        }
    }

    /// Returns whether the run was executed, lives, and nobody ends it.
    pub fn is_executed(&self) -> bool {
        let lives = self.died.is_none() || planted!(DeadAreAsked);
        lives && matches!(self.phase, Phase::Launching { .. } | Phase::Online { .. })
    }

    /// Returns whether the run is ready and nobody ends it.
    pub const fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// Returns whether the run's end was begun.
    pub const fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_))
    }

    /// Returns when this run needs attention next.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Spawning => None,
            // Its exit is about to be told: nothing is expected of it.
            Phase::Online { .. } | Phase::Launching { .. } if !self.is_executed() => None,
            Phase::Online { .. } => self.health.deadline(),
            Phase::Launching { ready_by } => {
                let question = self.health.deadline();
                Some(question.map_or(*ready_by, |at| at.min(*ready_by)))
            }
            Phase::Stopping(stopping) => match stopping.rung {
                Rung::Draining { ask_at } => Some(ask_at),
                Rung::Asked { kill_at } => Some(kill_at),
                Rung::Killed { give_up_at } => Some(give_up_at),
                Rung::Stuck => None,
            },
        }
    }
}
