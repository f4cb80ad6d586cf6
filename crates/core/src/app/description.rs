//! The description (PM2's bag of attributes) to [`AppSpec`] and back.
//!
//! A description comes from any client, from a dump, or from a store, so
//! nothing about it is trusted: any JSON gives a spec or a list of mistakes.
//! Variables that PM2 copies to the top level are told apart from attributes
//! here and stay in `env` only.

use super::attributes::{self, ConfigError};
use super::value;
use super::{
    AppSpec, Balance, ExecMode, Interpreter, LogSpec, ReadyPolicy, RestartPolicy, RunAs, StopPolicy,
};
use crate::exit::Signal;
use crate::supervisor::request::Changes;
use crate::time::Millis;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a description leaves to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// First signal of a stop; `PM2_KILL_SIGNAL`.
    pub kill_signal: Signal,
    /// `PM2_KILL_TIMEOUT`.
    pub kill_timeout: Millis,
    /// How long to wait for readiness.
    pub listen_timeout: Millis,
    /// `PM2_KILL_USE_MESSAGE`.
    pub kill_with_message: bool,
    /// What `instances: 0` means.
    pub cpu_count: u32,
    /// For a description that brings none.
    pub unique_id: String,
}

/// Keys before the attributes nobody orders, as PM2 shows them.
const LEADING: &[&str] = &[
    "name",
    "filter_env",
    "namespace",
    "args",
    "merge_logs",
    "vizion",
    "autostart",
    "autorestart",
    "watch",
    "instance_var",
    "pmx",
    "automation",
    "treekill",
    "username",
    "windowsHide",
    "kill_retry_time",
];
/// Keys after them.
const TRAILING: &[&str] = &[
    "node_args",
    "pm_exec_path",
    "pm_cwd",
    "exec_interpreter",
    "exec_mode",
    "instances",
    "pm_out_log_path",
    "pm_err_log_path",
    "pm_log_path",
    "pm_pid_path",
    "km_link",
];
/// Facts about a run or a slot, and keys that have a field of their own.
const RUNTIME: &[&str] = &[
    "env",
    "script",
    "cwd",
    "status",
    "pm_uptime",
    "axm_actions",
    "axm_monitor",
    "axm_options",
    "axm_dynamic",
    "created_at",
    "pm_id",
    "restart_time",
    "unstable_restarts",
    "version",
    "node_version",
    "exit_code",
    "prev_restart_delay",
    "unique_id",
    "vizion_running",
    "versioning",
    "_pm2_version",
    "_km_monitored",
    "NODE_APP_INSTANCE",
    "current_conf",
    "updateEnv",
    "pid",
    "monit",
    "process",
];
/// Attributes a restart never changes.
const FIXED: &[&str] = &[
    "exec_mode",
    "instances",
    "script",
    "cwd",
    "pm_exec_path",
    "pm_cwd",
    "out_file",
    "error_file",
    "log_file",
    "pid_file",
    "pm_out_log_path",
    "pm_err_log_path",
    "pm_log_path",
    "pm_pid_path",
    "env",
    "unique_id",
];

/// Returns the app a description declares.
///
/// # Errors
/// Every attribute that has no valid reading.
pub fn spec(
    description: &Map<String, Value>,
    defaults: &Defaults,
) -> Result<AppSpec, Vec<ConfigError>> {
    let mut reader = Reader {
        from: description,
        mistakes: Vec::new(),
    };
    let script = reader.absolute(&["pm_exec_path", "script"]);
    let cwd = match reader.first(&["pm_cwd", "cwd"]) {
        Some(_) => reader.absolute(&["pm_cwd", "cwd"]),
        None => parent(&script).to_owned(),
    };
    let name = reader
        .text("name")
        .unwrap_or_else(|| super::interpreter::base_name(&script).to_owned());
    if name.is_empty() {
        reader.mistake("name", "an app needs a name");
    }
    let mut spec = AppSpec {
        name,
        namespace: reader
            .text("namespace")
            .unwrap_or_else(|| "default".to_owned()),
        interpreter: match reader.text("exec_interpreter") {
            None => Interpreter::Program("node".to_owned()),
            Some(word) if word == "none" => Interpreter::None,
            Some(word) => Interpreter::Program(word),
        },
        args: reader.words("args"),
        interpreter_args: reader.words("node_args"),
        mode: reader.mode(),
        n_instances: reader.instances(defaults.cpu_count),
        env: Arc::new(reader.env()),
        instance_var: reader
            .text("instance_var")
            .unwrap_or_else(|| "NODE_APP_INSTANCE".to_owned()),
        increment_var: reader.text("increment_var"),
        logs: reader.logs(),
        pid_file: reader.text("pm_pid_path").unwrap_or_default(),
        restart: reader.restart(),
        stop: reader.stop(defaults),
        ready: ReadyPolicy {
            wait_ready: reader.switch("wait_ready", false),
            listen_timeout: reader
                .span("listen_timeout")
                .unwrap_or(defaults.listen_timeout),
        },
        run_as: reader.run_as(),
        max_memory_bytes: reader
            .read("max_memory_restart", "a size like 300M", value::bytes)
            .filter(|bytes| *bytes > 0),
        cron_restart: reader
            .text("cron_restart")
            .filter(|cron| cron.trim() != "0"),
        balance: reader.balance(),
        autostart: reader.switch("autostart", true),
        is_module: reader.switch("pmx_module", false),
        unique_id: reader
            .text("unique_id")
            .unwrap_or_else(|| defaults.unique_id.clone()),
        declared: Arc::default(),
        script,
        cwd,
    };
    if !reader.mistakes.is_empty() {
        for mistake in &mut reader.mistakes {
            mistake.app.clone_from(&spec.name);
        }
        return Err(reader.mistakes);
    }
    spec.declared = Arc::new(declared(description, &spec));
    Ok(spec)
}

/// Returns `spec` after a restart's changes.
///
/// Null and the text `null` delete an attribute. `name` renames. Mode,
/// number of instances, script, directory and log paths stay. Variables are
/// never removed: a non-empty `env` among the attributes is laid over the
/// saved variables and the loose ones of the caller's shell are left out,
/// which is what a child of PM2 sees; without it the loose ones are laid over.
///
/// # Errors
/// Every change that does not make a valid app.
pub fn apply(
    spec: &AppSpec,
    changes: &Changes,
    defaults: &Defaults,
) -> Result<AppSpec, Vec<ConfigError>> {
    let mut description = to_description(spec);
    for (key, value) in &changes.attributes {
        let key = attributes::find(key).map_or(key.as_str(), |row| row.name);
        if FIXED.contains(&key) || RUNTIME.contains(&key) {
            continue;
        }
        if value.is_null() || value == "null" {
            // An app without a name cannot be addressed.
            if key != "name" {
                description.shift_remove(key);
            }
        } else {
            description.insert(key.to_owned(), value.clone());
        }
    }
    let block = changes.attributes.get("env").and_then(Value::as_object);
    let over = block
        .filter(|block| !block.is_empty())
        .unwrap_or(&changes.env);
    let mut env = Map::clone(&spec.env);
    for (key, value) in over {
        if key != "current_conf"
            && key != "updateEnv"
            && let Some(value) = variable(value)
        {
            env.insert(key.clone(), value);
        }
    }
    description.insert("env".to_owned(), Value::Object(env));
    self::spec(&description, defaults)
}

/// Returns the description of a spec, in PM2's key order, for `prepare` and dumps.
pub fn to_description(spec: &AppSpec) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in spec.declared.iter() {
        out.insert(key.clone(), value.clone());
        if key == "namespace" {
            out.insert("env".to_owned(), Value::Object(Map::clone(&spec.env)));
        }
    }
    out.insert("unique_id".to_owned(), spec.unique_id.as_str().into());
    out
}

fn declared(description: &Map<String, Value>, spec: &AppSpec) -> Map<String, Value> {
    let fixed = |key: &str| -> Option<Value> {
        Some(match key {
            "name" => spec.name.as_str().into(),
            "namespace" => spec.namespace.as_str().into(),
            "node_args" => spec.interpreter_args.clone().into(),
            "pm_exec_path" => spec.script.as_str().into(),
            "pm_cwd" => spec.cwd.as_str().into(),
            "exec_interpreter" => match &spec.interpreter {
                Interpreter::None => "none".into(),
                Interpreter::Program(program) => program.as_str().into(),
            },
            "exec_mode" => spec.mode.pm2_name().into(),
            "instances" => {
                description
                    .get("instances")
                    .filter(|value| !value.is_null())?;
                spec.n_instances.into()
            }
            "args" => {
                description.get("args").filter(|value| !value.is_null())?;
                spec.args.clone().into()
            }
            _ => description
                .get(key)
                .filter(|value| !value.is_null())?
                .clone(),
        })
    };
    let mut out = Map::new();
    let mut put = |key: &str| {
        if let Some(value) = fixed(key) {
            out.insert(key.to_owned(), value);
        }
    };
    LEADING.iter().copied().for_each(&mut put);
    let given = description.get("env").and_then(Value::as_object);
    for key in description.keys() {
        let ordered = LEADING.contains(&key.as_str()) || TRAILING.contains(&key.as_str());
        let known = attributes::find(key).is_some_and(|row| row.name == key);
        let variable = given.is_some_and(|env| env.contains_key(key)) || *key == spec.instance_var;
        if !ordered && !RUNTIME.contains(&key.as_str()) && (known || !variable) {
            put(key);
        }
    }
    TRAILING.iter().copied().for_each(&mut put);
    out
}

/// Returns a value as it can be a variable; `None` for null and objects.
fn variable(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Array(_) => Some(value.to_string().into()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// Takes attributes out of a description and collects what is wrong with them.
struct Reader<'a> {
    from: &'a Map<String, Value>,
    mistakes: Vec<ConfigError>,
}

impl Reader<'_> {
    fn mistake(&mut self, key: &str, message: impl Into<String>) {
        self.mistakes.push(ConfigError::error(key, message));
    }

    fn first<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        let set = |key: &&&str| self.from.get(**key).is_some_and(|value| !value.is_null());
        keys.iter().find(set).copied()
    }

    fn read<T>(
        &mut self,
        key: &str,
        expected: &str,
        reading: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.from.get(key).filter(|value| !value.is_null())?;
        let read = reading(value);
        if read.is_none() {
            self.mistake(
                key,
                format!("`{key}` must be {expected}, not {}", brief(value)),
            );
        }
        read
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let text = self
            .read(key, "a text", value::text)
            .filter(|text| !text.is_empty())?;
        if text.contains('\0') {
            self.mistake(key, format!("`{key}` contains a NUL byte"));
        }
        Some(text)
    }

    fn absolute(&mut self, keys: &[&str]) -> String {
        let Some(key) = self.first(keys) else {
            self.mistake(keys[0], "No script path - aborting");
            return String::new();
        };
        let path = self.text(key).unwrap_or_default();
        if !path.starts_with('/') {
            self.mistake(
                key,
                format!("`{key}` must be an absolute path, not {path:?}"),
            );
        }
        path
    }

    fn switch(&mut self, key: &str, default: bool) -> bool {
        self.read(key, "true or false", value::switch)
            .unwrap_or(default)
    }

    fn span(&mut self, key: &str) -> Option<Millis> {
        self.read(key, "milliseconds", value::duration).map(Millis)
    }

    fn number(&mut self, key: &str) -> Option<u32> {
        self.read(key, "a whole number, 0 or more", |value| {
            u32::try_from(value::integer(value)?).ok()
        })
    }

    fn words(&mut self, key: &str) -> Vec<String> {
        let words = self
            .read(key, "a list of words", value::words)
            .unwrap_or_default();
        if words.iter().any(|word| word.contains('\0')) {
            self.mistake(key, format!("`{key}` contains a NUL byte"));
        }
        words
    }

    fn mode(&mut self) -> ExecMode {
        let mode = self.read("exec_mode", "fork or cluster", |value| {
            match value.as_str()? {
                "fork" | "fork_mode" => Some(ExecMode::Fork),
                "cluster" | "cluster_mode" => Some(ExecMode::Cluster),
                _ => None,
            }
        });
        mode.unwrap_or(ExecMode::Fork)
    }

    /// PM2's rule: 0 and `max` are one per CPU, negative counts from there,
    /// and the result is at least one.
    fn instances(&mut self, cpu_count: u32) -> u32 {
        let count = self.read("instances", "a number or \"max\"", |value| {
            if value == "max" {
                Some(0)
            } else {
                value::integer(value)
            }
        });
        match count {
            None => 1,
            Some(count) if count > 0 => u32::try_from(count).unwrap_or(u32::MAX),
            Some(count) => {
                let left = i64::from(cpu_count).saturating_add(count);
                u32::try_from(left).unwrap_or(1).max(1)
            }
        }
    }

    fn env(&mut self) -> Map<String, Value> {
        let Some(env) = self.from.get("env").and_then(Value::as_object) else {
            return Map::new();
        };
        let mut out = Map::new();
        for (key, value) in env {
            // execve(2) has no room for these.
            if key.is_empty() || key.contains(['=', '\0']) {
                continue;
            }
            match variable(value) {
                Some(Value::String(text)) if text.contains('\0') => {
                    self.mistake("env", format!("variable {key} contains a NUL byte"));
                }
                Some(value) => {
                    out.insert(key.clone(), value);
                }
                None => {}
            }
        }
        out
    }

    fn logs(&mut self) -> LogSpec {
        let real = |path: &String| path != "/dev/null" && path != "NULL";
        LogSpec {
            out: self.text("pm_out_log_path").filter(real),
            err: self.text("pm_err_log_path").filter(real),
            combined: self.text("pm_log_path").filter(real),
            merge: self.switch("merge_logs", false),
            disabled: self.switch("disable_logs", false),
            json: self.text("log_type").is_some_and(|kind| kind == "json"),
            date_format: self.text("log_date_format"),
        }
    }

    fn restart(&mut self) -> RestartPolicy {
        let default = RestartPolicy::default();
        RestartPolicy {
            autorestart: self.switch("autorestart", default.autorestart),
            min_uptime: self.span("min_uptime").unwrap_or(default.min_uptime),
            max_restarts: self.number("max_restarts").unwrap_or(default.max_restarts),
            restart_delay: self.span("restart_delay").filter(|span| span.0 > 0),
            exp_backoff: self
                .span("exp_backoff_restart_delay")
                .filter(|span| span.0 > 0),
            stop_exit_codes: self
                .read("stop_exit_codes", "a list of exit codes", exit_codes)
                .unwrap_or_default(),
        }
    }

    fn stop(&mut self, defaults: &Defaults) -> StopPolicy {
        StopPolicy {
            signal: self
                .read("kill_signal", "a signal like SIGTERM", |value| {
                    Signal::parse(&value::text(value)?)
                })
                .unwrap_or(defaults.kill_signal),
            with_message: self.switch("shutdown_with_message", defaults.kill_with_message),
            kill_timeout: self.span("kill_timeout").unwrap_or(defaults.kill_timeout),
            treekill: self.switch("treekill", true),
        }
    }

    fn run_as(&mut self) -> Option<RunAs> {
        let uid = self.number("uid");
        let gid = self.number("gid");
        match (uid, gid) {
            (Some(uid), gid) => Some(RunAs {
                uid,
                gid: gid.unwrap_or(uid),
            }),
            (None, Some(_)) => {
                self.mistake("gid", "`gid` needs `uid`");
                None
            }
            (None, None) => None,
        }
    }

    fn balance(&mut self) -> Balance {
        self.read("balance", "even, shared or round-robin", |value| {
            Balance::parse(value.as_str()?)
        })
        .unwrap_or_default()
    }
}

fn exit_codes(value: &Value) -> Option<Vec<i32>> {
    let items = match value.as_array() {
        Some(items) => items.as_slice(),
        None => std::slice::from_ref(value),
    };
    items
        .iter()
        .map(|item| i32::try_from(value::integer(item)?).ok())
        .collect()
}

/// Returns a value as short text for a message.
fn brief(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
#[path = "description/tests.rs"]
mod tests;
