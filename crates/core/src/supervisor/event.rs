//! Everything that can happen.

use super::request::Request;
use crate::app::Place;
use crate::app::probe::ProbeKind;
use crate::exit::ExitStatus;
use crate::id::{Incarnation, RequestId};
use serde_json::{Map, Value};

/// Something that happened outside the supervisor.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client asked for something.
    Request(RequestId, Request),
    /// The client of a request is gone; its answer is no longer wanted.
    Abandoned(RequestId),
    /// A run was executed: exec(2) succeeded.
    Spawned {
        /// Which run.
        run: Incarnation,
        /// Its process id.
        pid: u32,
        /// `version` of the nearest package.json.
        version: Option<String>,
        /// Where directory and script really are.
        place: Option<Place>,
    },
    /// A run could not be started; no process is left of it.
    SpawnFailed {
        /// Which run.
        run: Incarnation,
        /// The failed step and the system's reason, for people.
        reason: String,
        /// Whether trying again can help.
        kind: SpawnFailure,
    },
    /// The main process of a run ended by itself, and what it left behind is
    /// being ended: `Exited` follows. Not said where there is nothing to wait
    /// for and nothing to tell.
    Died {
        /// Which run.
        run: Incarnation,
        /// What is known of the memory it wanted.
        oom: Option<Oom>,
    },
    /// The main process of a run ended.
    Exited {
        /// Which run.
        run: Incarnation,
        /// How.
        status: ExitStatus,
    },
    /// Nothing is left of the tree a stop signalled: every descendant is gone.
    /// Follows every [`super::Action::Kill`] exactly once.
    TreeGone {
        /// Which run.
        run: Incarnation,
    },
    /// The app said something over its IPC channel.
    Message {
        /// Which run.
        run: Incarnation,
        /// What it said.
        message: AppMessage,
    },
    /// One question of a probe was answered, or was not in time. Follows every
    /// [`super::Action::Probe`] exactly once, unless the run was forgotten.
    Probed {
        /// Which run.
        run: Incarnation,
        /// Which probe.
        kind: ProbeKind,
        /// Well, or what was wrong, for people.
        outcome: Result<(), String>,
    },
    /// Fresh figures of running processes.
    Sampled(Vec<Sample>),
    /// Time has come: [`super::Supervisor::next_deadline`] was reached.
    Deadline,
    /// The daemon itself is told to end (SIGTERM, SIGINT, SIGQUIT).
    Shutdown,
}

/// How sure it is that the kernel killed a process for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Oom {
    /// Its control group counts the kill.
    Certain,
    /// It ended by SIGKILL, and the kernel killed somebody during its life.
    Maybe,
}

/// Whether a start that failed may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpawnFailure {
    /// Nothing changes by waiting: no such file, no permission, no such directory.
    Permanent,
    /// The machine is short of something: processes, memory, descriptors.
    Transient,
}

/// What a worker or forked app said, as far as supervision cares.
#[derive(Clone, Debug, PartialEq)]
pub enum AppMessage {
    /// Node's cluster handshake: the worker is up.
    Online,
    /// Node's cluster handshake: a server listens under this key.
    Listening {
        /// The key of the listening socket.
        key: String,
    },
    /// A serving worker's app closed the server of this key.
    Closed {
        /// The key it was told to listen under.
        key: String,
    },
    /// The string `"ready"`.
    Ready,
    /// The worker will leave by itself (`cluster.worker.disconnect()`).
    Disconnecting,
    /// The agent is in the process and can drain it.
    AgentUp,
    /// The agent finished a drain: no server listens, no request is under way,
    /// no connection is left that it may touch.
    Drained(Drained),
    /// `{node_version}`.
    NodeVersion(String),
    /// `axm:monitor`: metrics to merge.
    Monitor(Map<String, Value>),
    /// `axm:action`: one action to register.
    Action(Value),
    /// `axm:option:configuration`: options to merge.
    Options(Map<String, Value>),
}

/// What became of the connections of a drained worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Idle ones handed to another worker, unread bytes and all.
    pub n_moved: u32,
    /// Ones that ended after their last answer.
    pub n_finished: u32,
    /// Ones closed although their client might have gone on: upgraded ones
    /// closed by policy.
    pub n_closed: u32,
    /// Ones still there.
    pub n_left: u32,
}

/// Figures of one running process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Which run.
    pub run: Incarnation,
    /// Resident memory of the main process, bytes.
    pub memory_bytes: u64,
    /// Percent of one core since the previous sample.
    pub cpu_percent: f64,
}
