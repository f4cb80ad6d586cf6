//! An application, resolved and valid: what a process is started from.
//!
//! There are two forms of the same thing. The *description* is PM2's bag of
//! attributes under canonical names, as clients send it, `jlist` shows it and
//! the dump stores it. [`AppSpec`] is the typed form every decision is taken
//! on. [`description`] turns one into the other and is the only place that
//! does. Nothing here touches the file system: paths are already absolute.

pub mod agent;
pub mod attributes;
pub mod description;
pub mod env;
pub mod interpreter;
pub mod listen;
pub mod probe;
pub mod resolve;
pub mod value;

use crate::exit::Signal;
use crate::time::Millis;
use listen::ListenSpec;
use probe::Probes;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The user's variables of an app: name to string, number or boolean, in
/// declaration order. Equal blocks are shared.
pub type Env = Arc<Map<String, Value>>;

/// An application, resolved and valid.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// Name; several processes may share it.
    pub name: String,
    /// PM2's namespace; `default` unless said otherwise.
    pub namespace: String,
    /// Absolute path of the script or executable; PM2's `pm_exec_path`.
    pub script: String,
    /// Arguments after the script.
    pub args: Vec<String>,
    /// Absolute working directory; PM2's `pm_cwd`.
    pub cwd: String,
    /// What runs the script.
    pub interpreter: Interpreter,
    /// Arguments between interpreter and script; PM2's `node_args`.
    pub interpreter_args: Vec<String>,
    /// Fork or cluster.
    pub mode: ExecMode,
    /// How many processes a start makes; already at least 1.
    pub n_instances: u32,
    /// The user's variables, nothing of musher's own.
    pub env: Env,
    /// Name of the variable that carries the instance number.
    pub instance_var: String,
    /// Name of the variable that is increased by one per instance.
    pub increment_var: Option<String>,
    /// Where output goes.
    pub logs: LogSpec,
    /// Path of the pid file before the id is put into it.
    pub pid_file: String,
    /// When an ended process is started again.
    pub restart: RestartPolicy,
    /// How a process is asked to end.
    pub stop: StopPolicy,
    /// When a process counts as online.
    pub ready: ReadyPolicy,
    /// User and group to run as; `None` keeps the daemon's.
    pub run_as: Option<RunAs>,
    /// Reload when the main process uses more resident memory than this, bytes.
    pub max_memory_bytes: Option<u64>,
    /// Cron expression that restarts the process.
    pub cron_restart: Option<String>,
    /// How connections are spread over workers.
    pub balance: Balance,
    /// What ties a client to one worker.
    pub sticky: Option<Sticky>,
    /// Questions that tell whether a run is well.
    pub probes: Probes,
    /// How a run is replaced.
    pub reload: ReloadPolicy,
    /// Sockets musher binds and holds for the app; fork mode only.
    pub listen: Vec<ListenSpec>,
    /// Whether the agent is preloaded into Node.
    pub agent: bool,
    /// Where to run instead of `cwd` and `script`: a release gone back to.
    pub release: Option<Place>,
    /// False only registers the app as stopped.
    pub autostart: bool,
    /// True for a PM2 module: left out of `all` and of dumps.
    pub is_module: bool,
    /// UUID shared by all instances of one start request.
    pub unique_id: String,
    /// Every attribute as PM2 shows it, without `env` and without runtime
    /// fields, in PM2's key order.
    pub declared: Arc<Map<String, Value>>,
}

/// What runs a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// The script is executed itself.
    None,
    /// This program, by name in PATH or by path.
    Program(String),
}

/// PM2's two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecMode {
    /// Any program, alone.
    Fork,
    /// A Node cluster worker sharing its listening sockets.
    Cluster,
}

/// How connections are spread over the workers of a cluster app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// One held SO_REUSEPORT socket per slot; the kernel spreads.
    #[default]
    Even,
    /// One held socket, one queue; whoever is free accepts.
    Shared,
    /// musher accepts and hands connections over in strict rotation.
    RoundRobin,
}

/// What ties a client to one worker of a cluster app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sticky {
    /// Its network: an IPv4 address, or the first half of an IPv6 address.
    Ip,
    /// The session id in the query of its request, as Socket.IO has it.
    Sid,
    /// The value of the cookie of this name.
    Cookie(Arc<str>),
}

/// Where the output of an app goes. Paths are without the process id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSpec {
    /// File for stdout; `None` for `/dev/null` and `NULL`.
    pub out: Option<String>,
    /// File for stderr; `None` for `/dev/null` and `NULL`.
    pub err: Option<String>,
    /// Combined file in addition to the two.
    pub combined: Option<String>,
    /// True when all instances share the files, so no id is put into the paths.
    pub merge: bool,
    /// Neither files nor events.
    pub disabled: bool,
    /// One JSON record per line.
    pub json: bool,
    /// day.js format of the line prefix.
    pub date_format: Option<String>,
}

/// When an ended process is started again; PM2's crash-loop rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// False never restarts.
    pub autorestart: bool,
    /// A run shorter than this counts as unstable. Default 1000 ms.
    pub min_uptime: Millis,
    /// This many unstable runs give up. Default 16; 0 gives up at the first exit.
    pub max_restarts: u32,
    /// Fixed delay before an automatic restart.
    pub restart_delay: Option<Millis>,
    /// First delay of the exponential back-off.
    pub exp_backoff: Option<Millis>,
    /// Exit codes after which no restart happens.
    pub stop_exit_codes: Vec<i32>,
}

/// How a process is asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPolicy {
    /// The first rung of the ladder; PM2's default is SIGINT.
    pub signal: Signal,
    /// Send the IPC message `"shutdown"` instead of the signal.
    pub with_message: bool,
    /// Patience before SIGKILL, and again before giving up. Default 1600 ms.
    pub kill_timeout: Millis,
    /// Signal the whole descendant tree, not only the main process.
    pub treekill: bool,
}

/// When a process counts as online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyPolicy {
    /// Wait for the IPC message `"ready"`.
    pub wait_ready: bool,
    /// How long to wait for it. Default 3000 ms.
    pub listen_timeout: Millis,
}

/// Where a release really is: symbolic links resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Working directory.
    pub cwd: String,
    /// Script or executable.
    pub script: String,
}

/// How a run is replaced by another: the attribute `reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadPolicy {
    /// Processes of an app replaced at the same time. Default 1.
    pub parallel: u32,
    /// How long a successor has to go on after it proved itself before it
    /// takes over. Default 0.
    pub min_ready: Millis,
    /// What a failure does to the processes replaced before it.
    pub on_failure: OnFailure,
    /// How long a predecessor may finish what it has accepted before it is
    /// asked to end. Default 30 s; 0 asks at once.
    pub drain: Millis,
    /// What happens to WebSockets and other upgraded connections of a
    /// predecessor. Default: they are left alone until `drain` is over.
    pub websockets: Upgraded,
}

/// What a failed reload does to processes that were already replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// They stay as they are.
    #[default]
    Abort,
    /// They go back to what they were.
    Rollback,
}

/// What happens to upgraded connections of a worker that drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Upgraded {
    /// They go on until the drain's end.
    #[default]
    Wait,
    /// They are closed with code 1012 (RFC 6455, 7.4), spread over this time,
    /// so that clients do not come back all at once.
    Close {
        /// Over how long.
        over: Millis,
    },
}

/// User and group of a process, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What a restart or reload changes before the new run is started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Variables to merge into the app's env.
    pub env: Map<String, Value>,
    /// PM2's `current_conf`: attributes to merge under canonical names; null
    /// deletes; a non-empty `env` object inside replaces the app's env.
    pub attributes: Map<String, Value>,
}

impl ExecMode {
    /// Returns PM2's word: `fork_mode` or `cluster_mode`.
    pub const fn pm2_name(self) -> &'static str {
        match self {
            ExecMode::Fork => "fork_mode",
            ExecMode::Cluster => "cluster_mode",
        }
    }
}

impl Balance {
    /// Returns the word of the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Balance::Even => "even",
            Balance::Shared => "shared",
            Balance::RoundRobin => "round-robin",
        }
    }

    /// Returns the mode of a word of the config file; `rr` is short for `round-robin`.
    pub fn parse(word: &str) -> Option<Balance> {
        match word {
            "even" => Some(Balance::Even),
            "shared" => Some(Balance::Shared),
            "round-robin" | "rr" => Some(Balance::RoundRobin),
            _ => None,
        }
    }
}

impl Sticky {
    /// The cookie that is looked for unless another is named: the one of
    /// express-session.
    pub const DEFAULT_COOKIE: &'static str = "connect.sid";

    /// Returns what the config file's value says: a word, or
    /// `{mode: 'cookie', name: '…'}`.
    pub fn parse(value: &Value) -> Option<Sticky> {
        let (mode, name) = match value {
            Value::String(mode) => (mode.as_str(), None),
            Value::Object(fields) => {
                let is_known = |key: &String| key == "mode" || key == "name";
                if !fields.keys().all(is_known) {
                    return None;
                }
                (fields.get("mode")?.as_str()?, fields.get("name"))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
        };
        match (mode, name) {
            ("ip", None) => Some(Sticky::Ip),
            ("sid", None) => Some(Sticky::Sid),
            ("cookie", None) => Some(Sticky::Cookie(Sticky::DEFAULT_COOKIE.into())),
            ("cookie", Some(Value::String(name))) if !name.is_empty() => {
                Some(Sticky::Cookie(name.as_str().into()))
            }
            _ => None,
        }
    }

    /// Returns the word of the config file.
    pub const fn name(&self) -> &'static str {
        match self {
            Sticky::Ip => "ip",
            Sticky::Sid => "sid",
            Sticky::Cookie(_) => "cookie",
        }
    }
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            autorestart: true,
            min_uptime: Millis(1000),
            max_restarts: 16,
            restart_delay: None,
            exp_backoff: None,
            stop_exit_codes: Vec::new(),
        }
    }
}

impl Default for ReloadPolicy {
    fn default() -> ReloadPolicy {
        ReloadPolicy {
            parallel: 1,
            min_ready: Millis(0),
            on_failure: OnFailure::Abort,
            drain: Millis(30_000),
            websockets: Upgraded::Wait,
        }
    }
}

impl Default for StopPolicy {
    fn default() -> StopPolicy {
        StopPolicy {
            signal: Signal::INT,
            with_message: false,
            kill_timeout: Millis(1600),
            treekill: true,
        }
    }
}

impl Default for ReadyPolicy {
    fn default() -> ReadyPolicy {
        ReadyPolicy {
            wait_ready: false,
            listen_timeout: Millis(3000),
        }
    }
}
