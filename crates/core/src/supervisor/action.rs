//! Everything the daemon may be told to do.
//!
//! An action is so precise that carrying it out needs no choice.

use super::record::Record;
use super::request::{Reply, RequestError};
use crate::app::listen::ListenSpec;
use crate::app::probe::{Probe, ProbeKind};
use crate::app::{Balance, RunAs, Sticky, Upgraded};
use crate::exit::Signal;
use crate::id::{Incarnation, PmId, RequestId};
use crate::time::Millis;
use crate::view::ProcessView;

/// One thing to do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a run. Answered by `Spawned` or `SpawnFailed`.
    Spawn {
        /// Which run.
        run: Incarnation,
        /// For which slot.
        pm_id: PmId,
        /// Everything exec needs.
        plan: Box<SpawnPlan>,
    },
    /// Send a signal to the main process of a run.
    Signal {
        /// Which run.
        run: Incarnation,
        /// What.
        signal: Signal,
    },
    /// Begin or harden the end of a run: signal it and watch until nothing of
    /// it is left, then say `TreeGone`. A second `Kill` of the same run
    /// signals whatever is still there and does not add a second `TreeGone`.
    Kill {
        /// Which run.
        run: Incarnation,
        /// What to send; `None` only watches (the app was asked by message).
        signal: Option<Signal>,
        /// All descendants, or the main process only.
        tree: bool,
    },
    /// Send the IPC message `"shutdown"`.
    AskToShutDown {
        /// Which run.
        run: Incarnation,
    },
    /// The worker gets no further connections and is about to be ended: others
    /// serve its slot. What it closes from here on, it was told to.
    Detach {
        /// Which run.
        run: Incarnation,
    },
    /// The worker is to finish what it accepted and to accept nothing more; its
    /// agent does it and says [`super::AppMessage::Drained`]. Only for a run
    /// whose agent said that it is there.
    Drain {
        /// Which run.
        run: Incarnation,
        /// When it may cut what is left: milliseconds from here.
        limit: Millis,
        /// What happens to upgraded connections.
        websockets: Upgraded,
    },
    /// Whether a worker gets connections; it is not ended by this.
    TakeTraffic {
        /// Which run.
        run: Incarnation,
        /// Whether.
        on: bool,
    },
    /// Ask one question of a probe; answered by `Probed` within its timeout.
    Probe {
        /// Which run.
        run: Incarnation,
        /// Which probe.
        kind: ProbeKind,
        /// What to ask.
        probe: Box<Probe>,
    },
    /// The run is over and nothing may come from it any more: release its
    /// descriptors once they are drained.
    Forget {
        /// Which run.
        run: Incarnation,
    },
    /// The set of slots an app uses changed: the listening sockets of every
    /// other slot are served by these; without any, all are closed.
    Slots {
        /// Name and namespace of the app.
        app: AppKey,
        /// Slots that have a process or are going to have one, ascending.
        live: Vec<u32>,
    },
    /// Publish a process event on the bus.
    Emit {
        /// The event's word on PM2's bus.
        event: ProcessEvent,
        /// Asked for by a person (`manually`).
        manually: bool,
        /// The process as it was at that moment.
        process: Box<ProcessView>,
    },
    /// A line for the daemon's log, and `log:PM2` on the bus.
    Log(String),
    /// Keep this in the history.
    Record(Record),
    /// Store this process: something that must survive the daemon changed.
    Persist(PmId),
    /// The slot is gone: forget it in the store too.
    Erase(PmId),
    /// Answer a request.
    Reply(RequestId, Result<Reply, RequestError>),
    /// All processes are gone after `Shutdown`: end the daemon.
    Exit,
}

/// An app's identity towards its listening sockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppKey {
    /// PM2's namespace.
    pub namespace: String,
    /// App name.
    pub name: String,
}

/// PM2's words for `process:event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEvent {
    /// A run became ready.
    Online,
    /// A run ended, and again when a stop is complete.
    Exit,
    /// First launch of a slot.
    Start,
    /// Given up.
    RestartOverlimit,
    /// A person restarted it.
    Restart,
    /// A person reloaded it.
    Reload,
    /// A person stopped it.
    Stop,
    /// A person deleted it.
    Delete,
}

/// Everything exec needs, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct SpawnPlan {
    /// App the run belongs to; its listening sockets.
    pub app: AppKey,
    /// Instance number: the slot of listening sockets.
    pub slot: u32,
    /// How connections are spread over the app's workers.
    pub balance: Balance,
    /// What ties a client to one of them.
    pub sticky: Option<Sticky>,
    /// Program by path, or by name to be looked up in the PATH of `env`.
    pub program: String,
    /// Arguments after the program name.
    pub args: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// User and group; `None` keeps the daemon's.
    pub run_as: Option<RunAs>,
    /// The IPC channel.
    pub channel: Channel,
    /// Sockets it is given, which musher binds and holds, in this order.
    pub listen: Vec<ListenSpec>,
    /// Where its output goes.
    pub output: Output,
    /// Path of the pid file.
    pub pid_path: String,
    /// The script, for finding package.json.
    pub script: String,
}

/// The IPC channel of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A plain child: NODE_CHANNEL_FD only.
    Fork,
    /// A cluster worker: NODE_UNIQUE_ID too.
    Worker,
}

/// Where the output of one run goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// File for stdout.
    pub out: Option<String>,
    /// File for stderr.
    pub err: Option<String>,
    /// Combined file.
    pub combined: Option<String>,
    /// Neither files nor events.
    pub disabled: bool,
    /// One JSON record per line.
    pub json: bool,
    /// day.js format of the line prefix.
    pub date_format: Option<String>,
}

impl ProcessEvent {
    /// Returns PM2's word.
    pub const fn pm2_name(self) -> &'static str {
        match self {
            ProcessEvent::Online => "online",
            ProcessEvent::Exit => "exit",
            ProcessEvent::Start => "start",
            ProcessEvent::RestartOverlimit => "restart overlimit",
            ProcessEvent::Restart => "restart",
            ProcessEvent::Reload => "reload",
            ProcessEvent::Stop => "stop",
            ProcessEvent::Delete => "delete",
        }
    }
}

impl std::fmt::Display for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
