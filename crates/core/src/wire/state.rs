//! musher's own durable record of one process, from which a daemon goes on.
//!
//! A record is versioned: an unknown format is refused, never guessed at. Its
//! types are plain, because core types are not serializable: what is stored
//! changes only when it is changed here. Where it is stored is the caller's.

use crate::exit::{ExitStatus, Signal};
use crate::view::Axm;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The format this code writes and reads.
pub const FORMAT: u32 = 1;

/// Everything a supervisor needs to go on with one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedProcess {
    /// The slot.
    pub pm_id: u32,
    /// The app's attributes, as `prepare` takes them, without `env`.
    pub description: Map<String, Value>,
    /// The user's variables.
    pub env: Map<String, Value>,
    /// NODE_APP_INSTANCE.
    pub instance: u32,
    /// Value of the `increment_var` variable.
    pub increment: Option<i64>,
    /// UUID of the start request.
    pub unique_id: String,
    /// What is wished.
    pub want: SavedWant,
    /// What is, while nothing runs.
    pub idle: SavedIdle,
    /// Why the status is what it is, for people.
    pub reason: Option<String>,
    /// The first launch was announced on the bus.
    pub announced: bool,
    /// Restarts since the first launch.
    pub restart_time: u32,
    /// Unstable runs since the last stable one.
    pub unstable_restarts: u32,
    /// First launch or last explicit restart, ms since the epoch.
    pub created_at: Option<i64>,
    /// When the newest run was spawned, ms since the epoch.
    pub pm_uptime: i64,
    /// Delay of the exponential back-off in force, ms.
    pub prev_restart_delay: Option<u64>,
    /// How the last run ended.
    pub last_exit: Option<SavedExit>,
    /// `monitor` was asked for.
    pub monitored: bool,
    /// Agent data.
    pub axm: SavedAxm,
    /// `version` of the nearest package.json.
    pub version: Option<String>,
    /// Node's version, as the app reported it.
    pub node_version: Option<String>,
    /// The runs alive when this was written; at most two.
    pub runs: Vec<SavedRun>,
    /// Keys of the last run that listened.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The release that serves, or served last.
    #[serde(default)]
    pub revision: Option<SavedRevision>,
    /// The release before.
    #[serde(default)]
    pub previous: Option<SavedRevision>,
    /// What a successor under way was started from.
    #[serde(default)]
    pub successor: Option<SavedApp>,
}

/// An app, as `prepare` takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedApp {
    /// Its attributes, without `env`.
    pub description: Map<String, Value>,
    /// The user's variables.
    pub env: Map<String, Value>,
}

/// One release of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRevision {
    /// Counted from 1.
    pub number: u32,
    /// What it is started from.
    pub app: SavedApp,
    /// Where that really was.
    pub place: Option<SavedPlace>,
}

/// Directory and script with symbolic links resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPlace {
    /// Working directory.
    pub cwd: String,
    /// Script or executable.
    pub script: String,
}

/// The wish for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedWant {
    /// To run.
    Up,
    /// Not to run.
    Down,
    /// Not to be.
    Gone,
}

/// Why nothing runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SavedIdle {
    /// To be started at once.
    Due,
    /// Nobody wants it to; or it runs.
    Stopped,
    /// Given up.
    Errored {
        /// Why, for people.
        reason: String,
    },
    /// A restart is scheduled.
    Waiting {
        /// When, ms since the epoch.
        due: i64,
        /// Why, for people.
        reason: String,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedExit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody knows.
    Unknown,
}

/// Agent data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedAxm {
    /// Actions in order of registration.
    pub actions: Vec<Value>,
    /// Metrics by name.
    pub monitor: Map<String, Value>,
    /// Options by name.
    pub options: Map<String, Value>,
}

/// One life of a process. It is this life only if pid, start time and boot id
/// all agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRun {
    /// Its number.
    pub incarnation: u64,
    /// Its pid.
    pub pid: u32,
    /// When the kernel started it: field 22 of /proc/pid/stat, proc_pid_stat(5),
    /// in clock ticks since boot.
    pub start_time: u64,
    /// The boot that pid and start time belong to: random(4), boot_id.
    pub boot_id: String,
    /// How far it is.
    pub phase: SavedPhase,
    /// What it is to the slot.
    pub role: SavedRole,
    /// When it was spawned, ms of CLOCK_BOOTTIME.
    pub started: u64,
    /// Keys of the sockets it listens on.
    pub listening: Vec<String>,
    /// It has proved itself: ready or listening.
    pub ready: bool,
    /// The agent is in it.
    #[serde(default)]
    pub agent: bool,
    /// Where it really runs.
    #[serde(default)]
    pub place: Option<SavedPlace>,
    /// It finishes what it accepted until then, ms of CLOCK_BOOTTIME.
    #[serde(default)]
    pub draining_until: Option<u64>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedPhase {
    /// Spawned, not ready.
    Launching,
    /// Ready.
    Online,
    /// Being ended.
    Stopping,
}

/// What a run is to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedRole {
    /// The one.
    Current,
    /// To become the one, in a reload.
    Successor,
    /// It was the one, before a reload.
    Predecessor,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not JSON, or a field is missing or of another type.
    #[error("stored process is damaged")]
    Damaged(#[source] serde_json::Error),
    /// Written by a musher this one does not know.
    #[error(
        "stored process has format {found}, this musher reads format {FORMAT}: use a later one"
    )]
    UnknownFormat {
        /// The number in the record.
        found: u64,
    },
    /// No format number: not a record of musher.
    #[error("stored process has no format number")]
    NoFormat,
}

#[derive(Serialize)]
struct Versioned<'a> {
    format: u32,
    #[serde(flatten)]
    process: &'a SavedProcess,
}

impl SavedProcess {
    /// Returns the record as one line of JSON.
    pub fn encode(&self) -> String {
        let record = Versioned {
            format: FORMAT,
            process: self,
        };
        serde_json::to_string(&record).expect("maps have text keys and numbers are finite")
    }

    /// Returns the process of a record.
    ///
    /// # Errors
    ///
    /// [`StateError`]; a record is used whole or not at all.
    pub fn decode(text: &str) -> Result<SavedProcess, StateError> {
        let value: Value = serde_json::from_str(text).map_err(StateError::Damaged)?;
        let found = value["format"].as_u64().ok_or(StateError::NoFormat)?;
        if found != u64::from(FORMAT) {
            return Err(StateError::UnknownFormat { found });
        }
        serde_json::from_value(value).map_err(StateError::Damaged)
    }
}

impl From<ExitStatus> for SavedExit {
    fn from(status: ExitStatus) -> SavedExit {
        match status {
            ExitStatus::Code(code) => SavedExit::Code(code),
            ExitStatus::Signal(signal) => SavedExit::Signal(signal.0),
            ExitStatus::Unknown => SavedExit::Unknown,
        }
    }
}

impl From<SavedExit> for ExitStatus {
    fn from(saved: SavedExit) -> ExitStatus {
        match saved {
            SavedExit::Code(code) => ExitStatus::Code(code),
            SavedExit::Signal(number) => ExitStatus::Signal(Signal(number)),
            SavedExit::Unknown => ExitStatus::Unknown,
        }
    }
}

impl From<Axm> for SavedAxm {
    fn from(axm: Axm) -> SavedAxm {
        SavedAxm {
            actions: axm.actions,
            monitor: axm.monitor,
            options: axm.options,
        }
    }
}

impl From<SavedAxm> for Axm {
    fn from(saved: SavedAxm) -> Axm {
        Axm {
            actions: saved.actions,
            monitor: saved.monitor,
            options: saved.options,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    fn maps() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            ".{0,10}".prop_map(Value::from),
        ];
        prop::collection::vec((".{0,6}", value), 0..4).prop_map(|rows| rows.into_iter().collect())
    }

    fn runs() -> impl Strategy<Value = SavedRun> {
        let phase = prop_oneof![
            Just(SavedPhase::Launching),
            Just(SavedPhase::Online),
            Just(SavedPhase::Stopping),
        ];
        let role = prop_oneof![
            Just(SavedRole::Current),
            Just(SavedRole::Successor),
            Just(SavedRole::Predecessor),
        ];
        let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
        let listening = prop::collection::vec(".{0,9}", 0..3);
        (numbers, ".{0,36}", phase, role, listening, any::<bool>()).prop_map(
            |((incarnation, pid, start_time, started), boot_id, phase, role, listening, ready)| {
                SavedRun {
                    incarnation,
                    pid,
                    start_time,
                    boot_id,
                    phase,
                    role,
                    started,
                    listening,
                    ready,
                    agent: ready,
                    place: ready.then(place),
                    draining_until: ready.then_some(started),
                }
            },
        )
    }

    fn place() -> SavedPlace {
        SavedPlace {
            cwd: "/srv".to_owned(),
            script: "/srv/a.js".to_owned(),
        }
    }

    fn revision(number: u32, app: &SavedApp) -> SavedRevision {
        SavedRevision {
            number,
            app: app.clone(),
            place: Some(place()),
        }
    }

    fn idles() -> impl Strategy<Value = SavedIdle> {
        prop_oneof![
            Just(SavedIdle::Stopped),
            Just(SavedIdle::Due),
            ".*".prop_map(|reason| SavedIdle::Errored { reason }),
            (any::<i64>(), ".*").prop_map(|(due, reason)| SavedIdle::Waiting { due, reason }),
        ]
    }

    fn processes() -> impl Strategy<Value = SavedProcess> {
        let exit = prop_oneof![
            any::<i32>().prop_map(SavedExit::Code),
            any::<i32>().prop_map(SavedExit::Signal),
            Just(SavedExit::Unknown),
        ];
        let counts = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
        let times = (
            option::of(any::<i64>()),
            any::<i64>(),
            option::of(any::<u64>()),
        );
        let texts = (".{0,36}", option::of(".*"), option::of(".*"));
        let axm = (
            prop::collection::vec(any::<u8>().prop_map(Value::from), 0..3),
            maps(),
            maps(),
        );
        let want = prop_oneof![
            Just(SavedWant::Up),
            Just(SavedWant::Down),
            Just(SavedWant::Gone),
        ];
        let wish = (
            want,
            idles(),
            option::of(exit),
            any::<bool>(),
            option::of(any::<i64>()),
        );
        let app = (maps(), maps()).prop_map(|(description, env)| SavedApp { description, env });
        let runs = prop::collection::vec(runs(), 0..3);
        (counts, times, texts, axm, wish, app, runs).prop_map(
            |(counts, times, texts, axm, wish, app, runs)| SavedProcess {
                pm_id: counts.0,
                keys: texts.1.iter().cloned().collect(),
                revision: wish.3.then(|| revision(counts.1, &app)),
                previous: wish.3.then(|| revision(counts.2, &app)),
                successor: Some(app.clone()).filter(|_| wish.3),
                description: app.description,
                env: app.env,
                instance: counts.1,
                increment: wish.4,
                unique_id: texts.0,
                want: wish.0,
                idle: wish.1,
                reason: texts.1.clone(),
                announced: wish.3,
                restart_time: counts.2,
                unstable_restarts: counts.3,
                created_at: times.0,
                pm_uptime: times.1,
                prev_restart_delay: times.2,
                last_exit: wish.2,
                monitored: wish.3,
                axm: SavedAxm {
                    actions: axm.0,
                    monitor: axm.1,
                    options: axm.2,
                },
                version: texts.1,
                node_version: texts.2,
                runs,
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was(process in processes()) {
            prop_assert_eq!(SavedProcess::decode(&process.encode()).unwrap(), process);
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            prop_assert!(SavedProcess::decode(&text).is_err());
        }
    }

    #[test]
    fn exits_and_agent_data_convert_both_ways() {
        for status in [
            ExitStatus::Code(3),
            ExitStatus::Signal(Signal::KILL),
            ExitStatus::Unknown,
        ] {
            assert_eq!(ExitStatus::from(SavedExit::from(status)), status);
        }
        let axm = Axm {
            actions: vec![Value::from(1)],
            ..Axm::default()
        };
        assert_eq!(Axm::from(SavedAxm::from(axm.clone())), axm);
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let error = SavedProcess::decode(r#"{"format":2}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "stored process has format 2, this musher reads format 1: use a later one"
        );
        for (text, expected) in [
            ("{}", "stored process has no format number"),
            ("", "stored process is damaged"),
            (r#"{"format":1}"#, "stored process is damaged"),
        ] {
            let error = SavedProcess::decode(text).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
