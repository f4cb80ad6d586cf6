//! Everything a client can ask, when it is legal, and what it answers.
//!
//! This enum is the daemon's public interface. PM2's method names stand in the
//! doc comments; `wire::rpc` maps them. Reads (`getMonitorData`, `getVersion`,
//! `ping`) are answered from a snapshot and are not requests.

pub use super::roll::{Receipt, RollTo};
pub use crate::app::Changes;

use crate::app::AppSpec;
use crate::exit::Signal;
use crate::id::PmId;
use crate::view::ProcessView;

/// A wish of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `prepare`: make `spec.n_instances` new processes. Always legal while the
    /// daemon is not ending. Answers [`Reply::Processes`] when each is online,
    /// has failed, or was only registered.
    Start {
        /// What to run.
        spec: Box<AppSpec>,
        /// True when the processes are only to be listed as stopped (resurrect
        /// of a stopped entry, `autostart: false`).
        register_only: bool,
    },
    /// `startProcessId`: start one that is not running. Answers
    /// [`Reply::Processes`] with one element.
    StartProcess(PmId),
    /// `stopProcessId`. Legal in every state; answers [`Reply::Process`] when
    /// nothing of the process is left.
    Stop(PmId),
    /// `restartProcessId`: stop and start, or start if not running. Answers
    /// [`Reply::Process`] when the new run is online.
    Restart(PmId, Changes),
    /// `reloadProcessId`: replace the run by a proven successor; a fork-mode or
    /// stopped process is restarted. Answers [`Reply::Process`] with the old
    /// run's record.
    Reload(PmId, Changes),
    /// `musherReload`, `musherRollback`: one reload over these processes, as a
    /// transaction. Answers [`Reply::Rolled`], also when it failed.
    Roll {
        /// Which, in this order.
        targets: Vec<PmId>,
        /// To what.
        to: RollTo,
        /// Replaces the apps' own `reload.parallel`.
        parallel: Option<u32>,
    },
    /// `musherRetire`: as `Delete`, but while others of the app serve, the
    /// worker first finishes what it has accepted (scale down). Answers
    /// [`Reply::Process`].
    Retire(PmId),
    /// `deleteProcessId`: stop and forget. Answers [`Reply::Process`].
    Delete(PmId),
    /// `duplicateProcessId`: one more of the same app (scale up). Answers
    /// [`Reply::Processes`] with one element.
    Duplicate(PmId),
    /// `resetMetaProcessId`: counters to zero. Answers [`Reply::Done`].
    ResetMeta(PmId),
    /// `sendSignalToProcessId`: to the main process only. Answers [`Reply::Done`].
    Signal(PmId, Signal),
    /// `monitor` / `unmonitor`. Answers [`Reply::Done`].
    SetMonitored(PmId, bool),
    /// `notifyKillPM2`: the daemon is about to be killed; no automatic restart
    /// from here on. Answers [`Reply::Done`] (PM2 never answers; the wire
    /// drops it).
    PrepareShutdown,
}

/// The answer to a request, sent exactly once.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The processes concerned, as they are at this moment, ascending ids.
    Processes(Vec<ProcessView>),
    /// The one process concerned.
    Process(Box<ProcessView>),
    /// What became of a roll.
    Rolled(Box<Receipt>),
    /// Nothing to say.
    Done,
}

/// Why a request was not carried out. Display texts are PM2's where PM2 has
/// one, because clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// `<id> id unknown` (start, duplicate, reset, signal).
    #[error("{0} id unknown")]
    UnknownId(PmId),
    /// `<id> : id unknown` (stop, delete).
    #[error("{0} : id unknown")]
    UnknownIdStop(PmId),
    /// Restart of an unknown id.
    #[error("God db process id unknown")]
    UnknownIdRestart,
    /// Reload of an unknown id.
    #[error("PM2 ID unknown")]
    UnknownIdReload,
    /// Start of a running process.
    #[error("process already online")]
    AlreadyOnline,
    /// Signal to a process that does not run.
    #[error("process {0} is not running")]
    NotRunning(PmId),
    /// Another reload of this process is under way.
    #[error("Reload already in progress for process id {0}, retry later")]
    ReloadInProgress(PmId),
    /// There is no release to go back to.
    #[error("process {0} has no release before the one that serves; 'musher history' shows them")]
    NoPrevious(PmId),
    /// A newer request took over.
    #[error("superseded: {by} was asked for process id {id} before this {what} was finished")]
    Superseded {
        /// The process.
        id: PmId,
        /// What was asked.
        what: &'static str,
        /// What took over.
        by: &'static str,
    },
    /// The new run did not come up.
    #[error("{name}:{id} {reason}")]
    Failed {
        /// App name.
        name: String,
        /// The process.
        id: PmId,
        /// What happened, for people, with the next step.
        reason: String,
    },
    /// The changes do not make a valid app.
    #[error("{0}")]
    Invalid(String),
    /// The daemon is ending.
    #[error("[RestartProcessId] PM2 is being killed, stopping restart procedure...")]
    ShuttingDown,
    /// More processes than musher supervises.
    #[error("{asked} more processes asked for, {limit} is the limit of one daemon")]
    TooMany {
        /// How many were asked for.
        asked: u32,
        /// The limit.
        limit: u32,
    },
}
