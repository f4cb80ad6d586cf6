//! PM2's method table: what a client may call, and in which shape it is answered.
//!
//! [`parse_call`] turns the body of a request into a [`Call`] or into the error
//! text PM2 gives; [`Answer::body`] turns the supervisor's reply back. Texts are
//! an interface: clients match on them. This module decides nothing about
//! processes, and no input makes it panic.

mod answer;
mod parse;
#[cfg(test)]
mod tests;

pub use answer::{Answer, error_body, methods_body, value_body};
pub use parse::parse_call;

use crate::app::AppSpec;
use crate::exit::Signal;
use crate::id::PmId;
use crate::supervisor::request::Request;
use serde_json::{Map, Value};

/// A method: its name, and its parameters as `methods` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// PM2's name.
    pub name: &'static str,
    /// Parameter names; the last is the callback unless the method never answers.
    pub params: &'static [&'static str],
}

const fn method(name: &'static str, params: &'static [&'static str]) -> Method {
    Method { name, params }
}

/// Every method, in the order PM2 lists them.
pub const METHODS: &[Method] = &[
    method("killMe", &[]),
    method("profileCPU", &[]),
    method("profileMEM", &[]),
    method("prepare", &["env", "cb"]),
    method("getMonitorData", &["env", "cb"]),
    method("getSystemData", &["env", "cb"]),
    method("startProcessId", &["id", "cb"]),
    method("stopProcessId", &["id", "cb"]),
    method("restartProcessId", &["opts", "cb"]),
    method("deleteProcessId", &["id", "cb"]),
    method("sendLineToStdin", &["packet", "cb"]),
    method("softReloadProcessId", &["opts", "cb"]),
    method("reloadProcessId", &["opts", "cb"]),
    method("duplicateProcessId", &["id", "cb"]),
    method("resetMetaProcessId", &["id", "cb"]),
    method("stopWatch", &["method", "value", "fn"]),
    method("startWatch", &["method", "value", "fn"]),
    method("toggleWatch", &["method", "value", "fn"]),
    method("notifyByProcessId", &["opts", "cb"]),
    method("notifyKillPM2", &[]),
    method("monitor", &["pm_id", "cb"]),
    method("unmonitor", &["pm_id", "cb"]),
    method("msgProcess", &["cmd", "cb"]),
    method("sendDataToProcessId", &["packet", "cb"]),
    method("sendSignalToProcessId", &["opts", "cb"]),
    method("sendSignalToProcessName", &["opts", "cb"]),
    method("ping", &["env", "cb"]),
    method("getVersion", &["env", "cb"]),
    method("getReport", &["arg", "cb"]),
    method("reloadLogs", &["opts", "cb"]),
];

/// musher's own methods, which the list for PM2's clients leaves out.
pub const OWN_METHODS: &[&str] = &[
    "musherReload",
    "musherRollback",
    "musherRetire",
    "musherHistory",
    "musherUpdate",
    "musherBalance",
    "musherGc",
];

/// Turns PM2's bag of attributes into an app: `app::description`, with the
/// defaults of the daemon.
pub type Describe<'a> = &'a dyn Fn(&Map<String, Value>) -> Result<AppSpec, String>;

/// What a client asked for, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `{"type":"methods"}`: answered by [`methods_body`].
    Methods,
    /// Answered `{msg: 'pong'}`.
    Ping,
    /// Answered with a version text.
    GetVersion,
    /// Answered with all processes, ascending ids.
    GetMonitorData {
        /// Without `env` and the flattened variables.
        slim: bool,
    },
    /// Answered with the host's metrics map or `{}`.
    GetSystemData,
    /// Answered with facts about the daemon.
    GetReport,
    /// For the supervisor; the reply is shaped by the [`Answer`].
    Request(Request, Answer),
    /// `sendSignalToProcessName`. Answered with all processes.
    SignalName {
        /// Process name, exec path or `all`.
        name: String,
        /// What to send to each.
        signal: Signal,
    },
    /// `sendDataToProcessId`. Answered `{success: true, data: packet}`.
    SendData {
        /// To whom.
        id: PmId,
        /// Sent to the app unchanged.
        packet: Value,
    },
    /// `msgProcess`: trigger an action. Answered `{process_count, success: true}`.
    MsgProcess {
        /// To whom.
        to: Addressee,
        /// The action's name.
        action: String,
        /// What the app gets: the bare name, or the command with its parameters.
        message: Value,
    },
    /// `sendLineToStdin`. Answered with the packet `{pm_id, line}`.
    SendLine {
        /// To whom.
        id: PmId,
        /// Without its newline.
        line: String,
    },
    /// Answered with entries of the history, the newest last.
    History {
        /// Of this app; of all without.
        name: Option<String>,
        /// At most this many.
        limit: u32,
    },
    /// Answered with every address of the cluster apps: how connections are
    /// spread there, and what each worker has.
    Balance,
    /// `musherGc`: the app's garbage collector is run. Answered `{pm_id,
    /// heap_before, heap_after, rss_before, rss_after}`, in bytes.
    CollectGarbage {
        /// Of which process.
        id: PmId,
    },
    /// Every log file is opened again. Answered `{}`.
    ReloadLogs,
    /// Answered `{success: true}`, and `notrestarted: true` where a watch that
    /// runs was to be started.
    Watch {
        /// What to do.
        change: WatchChange,
        /// To whom; `None` when the call names nobody, which PM2 lets pass.
        who: Option<Watched>,
    },
    /// `notifyByProcessId`: publish a process event. Answered without a value.
    Notify {
        /// Whose.
        id: PmId,
        /// PM2's word: `restart`, `stop`, …
        action: String,
        /// Asked for by a person.
        manually: bool,
    },
    /// `killMe`: end the daemon, then SIGQUIT to the client. Never answered.
    KillMe {
        /// The client's pid.
        pid: Option<u32>,
    },
    /// `musherUpdate`: hand over to another executable. Answered `{success:
    /// true}` when the daemon is about to end for it.
    Update {
        /// Absolute path.
        executable: String,
    },
    /// `profileCPU`, `profileMEM`. Answered `{file}` or `{error}`.
    Profile {
        /// Which.
        kind: ProfileKind,
        /// Path of the file to write.
        file: String,
        /// How long, ms.
        timeout_ms: u64,
    },
}

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// One process.
    Id(PmId),
    /// Every process of this name, script basename or namespace; or `all`.
    Name(String),
}

/// What a watch call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchChange {
    /// `startWatch`.
    Start,
    /// `stopWatch`.
    Stop,
    /// `toggleWatch`.
    Toggle,
}

/// Whose watch a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// One process.
    Id(PmId),
    /// Every process.
    All,
}

/// What is profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileKind {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
}

/// Why a call was refused. Display texts are PM2's where PM2 has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such method.
    #[error("method \"{0}\" does not exist")]
    UnknownMethod(String),
    /// The call names no method.
    #[error(".method required")]
    NoMethod,
    /// The call has no argument list.
    #[error(".args required")]
    NoArgs,
    /// A description that is no object.
    #[error("prepare: the description is not an object")]
    NotADescription,
    /// A description that makes no valid app.
    #[error("{0}")]
    BadDescription(String),
    /// An id that is none (start, duplicate, reset, signal, trigger).
    #[error("{0} id unknown")]
    UnknownId(String),
    /// An id that is none (stop, delete).
    #[error("{0} : id unknown")]
    UnknownIdStop(String),
    /// Restart without an id.
    #[error("opts.id not passed to restartProcessId")]
    RestartWithoutId,
    /// Restart of an id that is none.
    #[error("God db process id unknown")]
    UnknownIdRestart,
    /// Reload of an id that is none.
    #[error("PM2 ID unknown")]
    UnknownIdReload,
    /// Soft reload of an id that is none or unknown.
    #[error("pm_id {0} not available in {0}")]
    UnknownIdSoftReload(String),
    /// Not a signal.
    #[error("Error when sending signal (signal unknown)")]
    UnknownSignal,
    /// Nobody has this name.
    #[error("Unknown process name")]
    UnknownName,
    /// `monitor`, `unmonitor` of an unknown id.
    #[error("Unknown pm_id")]
    UnknownMonitored,
    /// `sendLineToStdin` without a field.
    #[error("pm_id or line field missing")]
    LineFieldMissing,
    /// `sendDataToProcessId` without a field.
    #[error("ID, DATA or TOPIC field is missing")]
    DataFieldMissing,
    /// Data or a line for nobody.
    #[error("Process with ID {0} unknown.")]
    UnknownReceiver(String),
    /// Data or a line for a process that does not run.
    #[error("Process with ID {0} offline.")]
    OfflineReceiver(PmId),
    /// A line for a worker.
    #[error("Cannot send line to processes in cluster mode")]
    LineToCluster,
    /// `msgProcess` without an addressee.
    #[error("method requires name or id field")]
    NoAddressee,
    /// An action the app did not register.
    #[error("Action doesn't exist {action} for {name}")]
    UnknownAction {
        /// What was asked.
        action: String,
        /// Of whom.
        name: String,
    },
    /// An action for a process that does not run.
    #[error("{0} : id offline")]
    Offline(PmId),
    /// `notifyByProcessId` without an id.
    #[error("process id missing")]
    NotifyWithoutId,
    /// `musherUpdate` without an executable.
    #[error("executable field missing")]
    NoExecutable,
    /// `notifyByProcessId` of an unknown id.
    #[error("process id doesnt exists")]
    NotifyUnknownId,
}

impl Call {
    /// Returns false for the calls PM2 never answers: `killMe`, `notifyKillPM2`.
    pub fn is_answered(&self) -> bool {
        !matches!(
            self,
            Call::KillMe { .. } | Call::Request(Request::PrepareShutdown, _)
        )
    }
}
