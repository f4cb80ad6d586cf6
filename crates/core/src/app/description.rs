//! The description (PM2's bag of attributes) to [`AppSpec`] and back.
//!
//! A description comes from any client, from a dump, or from a store, so
//! nothing about it is trusted: any JSON gives a spec or a list of mistakes.
//! Variables that PM2 copies to the top level are told apart from attributes
//! here and stay in `env` only.

mod object;
pub(in crate::app) mod objects;
mod probes;
mod reader;

use super::attributes::{self, ConfigError};
use super::value;
use super::{AppSpec, Interpreter, Place};
use crate::app::Changes;
use crate::exit::Signal;
use crate::time::Millis;
use reader::Reader;
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
/// Facts about a run or a slot: never attributes, wherever they come from.
pub const STATE_KEYS: &[&str] = &[
    "unique_id",
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
    "_km_monitored",
];
/// Further keys that are no attributes: they have a field of their own, or
/// belong to a reply.
const NO_ATTRIBUTES: &[&str] = &[
    "env",
    "script",
    "vizion_running",
    "versioning",
    "_pm2_version",
    "NODE_APP_INSTANCE",
    "current_conf",
    "updateEnv",
    "pid",
    "monit",
    "process",
];
fn is_no_attribute(key: &str) -> bool {
    STATE_KEYS.contains(&key) || NO_ATTRIBUTES.contains(&key)
}

/// musher's own key for a release gone back to: `{cwd, script}`. Only musher
/// writes it, and every change of the app takes it away.
pub const RELEASE: &str = "musher_release";

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
    let name = name(&mut reader, &script);
    let mode = reader.mode();
    let objects = objects::read(description, mode);
    reader.mistakes.extend(objects.mistakes);
    let mut spec = AppSpec {
        name,
        namespace: reader.text_or("namespace", "default"),
        interpreter: reader.interpreter(),
        args: reader.words("args"),
        interpreter_args: reader.words("node_args"),
        mode,
        n_instances: reader.instances(defaults.cpu_count),
        env: Arc::new(reader.env()),
        instance_var: reader.text_or("instance_var", "NODE_APP_INSTANCE"),
        increment_var: reader.text("increment_var"),
        logs: reader.logs(),
        pid_file: reader.text("pm_pid_path").unwrap_or_default(),
        restart: reader.restart(),
        stop: reader.stop(defaults),
        ready: reader.ready(defaults),
        run_as: reader.run_as(),
        max_memory_bytes: reader
            .read("max_memory_restart", "a size like 300M", value::bytes)
            .filter(|bytes| *bytes > 0),
        cron_restart: reader
            .text("cron_restart")
            .filter(|cron| cron.trim() != "0"),
        balance: reader.balance(),
        sticky: reader.sticky(),
        probes: objects.probes,
        reload: objects.reload,
        listen: objects.listen,
        agent: reader.switch("agent", true),
        release: release(description),
        autostart: reader.switch("autostart", true),
        is_module: reader.switch("pmx_module", false),
        unique_id: reader.text_or("unique_id", &defaults.unique_id),
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

fn name(reader: &mut Reader<'_>, script: &str) -> String {
    let name = reader
        .text("name")
        .unwrap_or_else(|| super::interpreter::base_name(script).to_owned());
    if name.is_empty() {
        reader.mistake("name", "an app needs a name");
    }
    name
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
    description.shift_remove(RELEASE);
    for (key, value) in &changes.attributes {
        let key = attributes::find(key).map_or(key.as_str(), |row| row.name);
        if FIXED.contains(&key) || is_no_attribute(key) {
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

/// Returns what is wrong with `sticky`, by itself or beside `balance`.
pub(in crate::app) fn sticky_mistakes(description: &Map<String, Value>) -> Vec<ConfigError> {
    let mut reader = Reader {
        from: description,
        mistakes: Vec::new(),
    };
    reader.balance();
    reader.sticky();
    // `balance` itself is checked by the table of attributes.
    reader.mistakes.retain(|mistake| mistake.key == "sticky");
    reader.mistakes
}

fn release(description: &Map<String, Value>) -> Option<Place> {
    let text = |key: &str| Some(description.get(RELEASE)?.get(key)?.as_str()?.to_owned());
    Some(Place {
        cwd: text("cwd")?,
        script: text("script")?,
    })
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
        if !ordered && !is_no_attribute(key) && (known || !variable) {
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

#[cfg(test)]
#[path = "description/tests.rs"]
mod tests;
