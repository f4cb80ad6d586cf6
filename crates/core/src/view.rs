//! The plain picture of supervised state that lists, the wire and the TUI draw.
//!
//! A view is a copy: drawing never borrows the supervisor.

use crate::app::AppSpec;
use crate::exit::ExitStatus;
use crate::id::{Incarnation, PmId};
use crate::time::{Millis, Wall};
use serde_json::{Map, Value};
use std::sync::Arc;

/// PM2's word for wish and fact together; derived, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Spawned, not ready yet.
    Launching,
    /// Running.
    Online,
    /// Being ended.
    Stopping,
    /// Not running, and nobody wants it to.
    Stopped,
    /// Ended; a delayed restart is scheduled.
    WaitingRestart,
    /// Given up: too many unstable runs, a failed exec, or unkillable.
    Errored,
}

/// What an app told PM2's agent protocol about itself (`axm:*` messages).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axm {
    /// Actions that can be triggered, in order of registration.
    pub actions: Vec<Value>,
    /// Metrics by name.
    pub monitor: Map<String, Value>,
    /// Options by name.
    pub options: Map<String, Value>,
}

/// One process slot at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessView {
    /// The slot.
    pub pm_id: PmId,
    /// What it runs.
    pub spec: Arc<AppSpec>,
    /// NODE_APP_INSTANCE: smallest free number within the name, from 0.
    pub instance: u32,
    /// Value of the `increment_var` variable of this instance.
    pub increment: Option<i64>,
    /// PM2's status word.
    pub status: Status,
    /// Why the status is what it is, in one sentence, where there is a reason.
    pub reason: Option<String>,
    /// The life that runs, if one does.
    pub run: Option<Incarnation>,
    /// Pid of that life; `None` when nothing runs.
    pub pid: Option<u32>,
    /// Restarts since the first launch, as PM2 counts them.
    pub restart_time: u32,
    /// Unstable runs since the last stable one.
    pub unstable_restarts: u32,
    /// When the newest run was spawned.
    pub pm_uptime: Wall,
    /// First launch or last explicit restart; `None` after giving up.
    pub created_at: Option<Wall>,
    /// How the last run ended, once one did.
    pub last_exit: Option<ExitStatus>,
    /// Delay of the exponential back-off in force.
    pub prev_restart_delay: Option<Millis>,
    /// When the next automatic restart is due.
    pub next_restart_at: Option<Wall>,
    /// `version` of the nearest package.json; `None` shows as `N/A`.
    pub version: Option<String>,
    /// Node's version, as the app reported it.
    pub node_version: Option<String>,
    /// Agent data.
    pub axm: Axm,
    /// Resident memory of the main process, bytes; 0 unless online.
    pub memory_bytes: u64,
    /// Percent of one core since the previous sample, one decimal; 0 unless online.
    pub cpu_percent: f64,
    /// `monitor` / `unmonitor` was asked for.
    pub monitored: bool,
}

impl Status {
    /// Returns PM2's spelling; `waiting restart` has a space.
    pub const fn pm2_name(self) -> &'static str {
        match self {
            Status::Launching => "launching",
            Status::Online => "online",
            Status::Stopping => "stopping",
            Status::Stopped => "stopped",
            Status::WaitingRestart => "waiting restart",
            Status::Errored => "errored",
        }
    }
}

impl ProcessView {
    /// Returns the log paths of this process: the id is put in unless logs are merged.
    pub fn out_path(&self) -> Option<String> {
        self.log_path(self.spec.logs.out.as_deref())
    }

    /// Returns the path of its error log.
    pub fn err_path(&self) -> Option<String> {
        self.log_path(self.spec.logs.err.as_deref())
    }

    /// Returns the path of its combined log.
    pub fn combined_path(&self) -> Option<String> {
        self.log_path(self.spec.logs.combined.as_deref())
    }

    /// Returns the path of its pid file.
    pub fn pid_path(&self) -> String {
        with_id(&self.spec.pid_file, self.pm_id, ".pid")
    }

    fn log_path(&self, path: Option<&str>) -> Option<String> {
        let path = path?;
        if self.spec.logs.merge {
            return Some(path.to_owned());
        }
        Some(with_id(path, self.pm_id, ".log"))
    }
}

/// Puts `-<id>` before `extension`; a path with another ending stays as it is.
///
/// PM2 replaces a trailing `-<digits>` instead, so its `my-app-1` gets
/// `my-app-0.pid`; musher appends to the stem.
pub fn with_id(path: &str, id: PmId, extension: &str) -> String {
    match path.strip_suffix(extension) {
        Some(stem) => format!("{stem}-{id}{extension}"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_goes_before_the_extension_and_never_replaces_part_of_the_name() {
        assert_eq!(with_id("/p/api.pid", PmId(3), ".pid"), "/p/api-3.pid");
        assert_eq!(
            with_id("/p/my-app-1.pid", PmId(0), ".pid"),
            "/p/my-app-1-0.pid"
        );
        assert_eq!(with_id("/p/api.txt", PmId(3), ".log"), "/p/api.txt");
    }
}
