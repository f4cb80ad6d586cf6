//! A process in PM2's JSON shapes: the only place that knows them.
//!
//! PM2 keeps attributes, runtime state and the user's variables in one object,
//! where a variable called `name` renames the app. musher keeps them apart and
//! presents the merged picture clients read: a variable is shown beside PM2's
//! own keys unless it has the name of one of them; inside `env` it is always
//! shown. Nothing here reads PM2's shapes back: that is `app::description`.

mod keys;

use crate::app::description::STATE_KEYS;
use crate::app::{AppSpec, Interpreter};
use crate::view::ProcessView;
use keys::OWN_KEYS;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

/// Shown as the path of a log that is not written.
const NO_FILE: &str = "/dev/null";

/// Attributes that lists show as they were declared.
const LISTED_ATTRIBUTES: &[&str] = &["username", "uid", "watch", "trace", "cron_restart"];

/// [`OWN_KEYS`] to be looked up: once for each variable of each process.
static OWN: LazyLock<HashSet<&'static str>> = LazyLock::new(|| OWN_KEYS.iter().copied().collect());

/// The largest integer a JavaScript number holds exactly, plus one.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// How much of each process a list tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All of it, as PM2 does.
    Full,
    /// Without `env` and the variables.
    Slim,
}

/// Which parts of a process a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    /// Everything: attributes, state, `env` and its variables beside them.
    Full,
    /// Without `env`, variables beside the rest: the bus.
    NoEnv,
    /// Without any variable: musher's own lists.
    Slim,
}

/// Returns one element of `getMonitorData`:
/// `{pid, name, pm2_env, pm_id, monit: {memory, cpu}}`; pid 0 when nothing runs.
/// musher adds `reason`, and `next_restart_at` (ms since the epoch), beside
/// `monit` where they exist.
pub fn record(view: &ProcessView) -> Value {
    to_value(&Element {
        view,
        parts: Parts::Full,
    })
}

/// Returns the element without `env` and the variables, which are most of its
/// bytes.
pub fn slim(view: &ProcessView) -> Value {
    to_value(&Element {
        view,
        parts: Parts::Slim,
    })
}

/// Returns the text of `getMonitorData`'s reply, `{"args":[[…]]}`. A list of a
/// hundred processes is 400 KB: it is written straight from the views.
pub fn list_reply(views: &[ProcessView], detail: Detail) -> String {
    let parts = match detail {
        Detail::Full => Parts::Full,
        Detail::Slim => Parts::Slim,
    };
    let elements: Vec<Element<'_>> = views.iter().map(|view| Element { view, parts }).collect();
    #[derive(Serialize)]
    struct Body<'a> {
        args: [&'a [Element<'a>]; 1],
    }
    let body = Body { args: [&elements] };
    serde_json::to_string(&body).expect("keys are text and numbers are finite")
}

/// Returns the reply of `prepare`: one element per instance with its
/// `process.pid`.
pub fn prepare_reply(views: &[ProcessView]) -> Value {
    Value::Array(views.iter().map(started).collect())
}

/// Returns the record of a process that was started: `{pid, process: {pid}, pm2_env}`.
pub fn started(view: &ProcessView) -> Value {
    let pid = view.pid.unwrap_or(0);
    json!({ "pid": pid, "process": { "pid": pid }, "pm2_env": pm2_env(view) })
}

/// Returns the record of a process that was ended: `{pid, name, pm2_env, pm_id}`.
pub fn stopped_reply(view: &ProcessView) -> Value {
    json!({
        "pid": view.pid.unwrap_or(0),
        "name": view.spec.name,
        "pm2_env": pm2_env(view),
        "pm_id": view.pm_id.0,
    })
}

/// Returns `pm2_env` as the bus carries it: without `env`.
pub fn bus_process(view: &ProcessView) -> Value {
    to_value(&Picture::of(view, Parts::NoEnv))
}

/// Returns the whole `pm2_env`, keys in PM2's order.
pub fn pm2_env(view: &ProcessView) -> Map<String, Value> {
    let mut value = to_value(&Picture::of(view, Parts::Full));
    value
        .as_object_mut()
        .map(std::mem::take)
        .unwrap_or_default()
}

fn to_value(picture: &impl Serialize) -> Value {
    serde_json::to_value(picture).expect("keys are text and numbers are finite")
}

/// One element of a list.
struct Element<'a> {
    view: &'a ProcessView,
    parts: Parts,
}

impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let view = self.view;
        let monit = json!({ "memory": view.memory_bytes, "cpu": js_number(view.cpu_percent) });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &view.pid.unwrap_or(0))?;
        map.serialize_entry("name", &view.spec.name)?;
        map.serialize_entry("pm2_env", &Picture::of(view, self.parts))?;
        map.serialize_entry("pm_id", &view.pm_id.0)?;
        map.serialize_entry("monit", &monit)?;
        if let Some(reason) = &view.reason {
            map.serialize_entry("reason", reason)?;
        }
        if let Some(due) = view.next_restart_at {
            map.serialize_entry("next_restart_at", &due.0)?;
        }
        map.end()
    }
}

/// `pm2_env`, written key by key; the variables stay where they are.
struct Picture<'a> {
    view: &'a ProcessView,
    parts: Parts,
    /// Attributes, then state.
    keys: Map<String, Value>,
    /// How many of `keys` come before the variables.
    n_attributes: usize,
}

impl Picture<'_> {
    fn of(view: &ProcessView, parts: Parts) -> Picture<'_> {
        let mut keys = Map::new();
        if parts == Parts::Slim {
            put_listed(view, &mut keys);
            return Picture {
                view,
                parts,
                n_attributes: keys.len(),
                keys,
            };
        }
        put_attributes(view, &mut keys);
        keys.insert("vizion_running".into(), json!(false));
        let instance_var = instance_var(&view.spec);
        keys.entry(instance_var).or_insert(json!(view.instance));
        // A stale copy among the attributes must not decide the place either.
        keys.retain(|key, _| !STATE_KEYS.contains(&key.as_str()));
        let n_attributes = keys.len();
        put_state(view, &mut keys);
        Picture {
            view,
            parts,
            keys,
            n_attributes,
        }
    }
}

impl Serialize for Picture<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (key, value)) in self.keys.iter().enumerate() {
            if index == self.n_attributes && self.parts != Parts::Slim {
                for (name, value) in variables(self.view) {
                    let is_own = OWN.contains(name) || self.keys.contains_key(name);
                    if !value.is_object() && !is_own {
                        map.serialize_entry(name, &*value)?;
                    }
                }
            }
            map.serialize_entry(key, value)?;
            if key == "namespace" && self.parts == Parts::Full {
                map.serialize_entry("env", &Env(self.view))?;
            }
        }
        map.end()
    }
}

/// The object `env`: the variables, and the id of the start request.
struct Env<'a>(&'a ProcessView);

impl Serialize for Env<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in variables(self.0).filter(|(name, _)| *name != "unique_id") {
            map.serialize_entry(name, &*value)?;
        }
        map.serialize_entry("unique_id", &self.0.spec.unique_id)?;
        map.end()
    }
}

/// The user's variables as this instance has them: with its increment.
fn variables(view: &ProcessView) -> impl Iterator<Item = (&str, Cow<'_, Value>)> {
    let spec = &*view.spec;
    let increment = spec.increment_var.as_deref().zip(view.increment);
    let declared = spec.env.iter().map(move |(name, value)| match increment {
        Some((variable, number)) if variable == name => (variable, Cow::Owned(json!(number))),
        _ => (name.as_str(), Cow::Borrowed(value)),
    });
    let undeclared = increment.filter(|(variable, _)| !spec.env.contains_key(*variable));
    declared.chain(undeclared.map(|(name, number)| (name, Cow::Owned(json!(number)))))
}

/// The declared attributes, with what musher derived from them in their places.
fn put_attributes(view: &ProcessView, out: &mut Map<String, Value>) {
    let spec = &*view.spec;
    let declared = &*spec.declared;
    out.insert("name".into(), json!(spec.name));
    for (key, value) in declared {
        if key != "env" {
            out.insert(key.clone(), value.clone());
        }
    }
    let interpreter = match &spec.interpreter {
        Interpreter::None => "none",
        Interpreter::Program(program) => program,
    };
    out.insert("name".into(), json!(spec.name));
    out.insert("namespace".into(), json!(spec.namespace));
    out.entry("node_args")
        .or_insert(json!(spec.interpreter_args));
    out.insert("pm_exec_path".into(), json!(spec.script));
    out.insert("pm_cwd".into(), json!(spec.cwd));
    out.entry("exec_interpreter").or_insert(json!(interpreter));
    out.insert("exec_mode".into(), json!(spec.mode.pm2_name()));
    if declared.contains_key("instances") {
        out.insert("instances".into(), json!(spec.n_instances));
    }
    let paths = [
        ("pm_out_log_path", view.out_path()),
        ("pm_err_log_path", view.err_path()),
    ];
    for (key, path) in paths {
        match path {
            Some(path) => out.insert(key.into(), json!(path)),
            None => out.insert(key.into(), json!(NO_FILE)),
        };
    }
    if let Some(path) = view.combined_path() {
        out.insert("pm_log_path".into(), json!(path));
    }
    out.insert("pm_pid_path".into(), json!(view.pid_path()));
    if spec.is_module {
        out.insert("pmx_module".into(), json!(true));
    }
    out.entry("km_link").or_insert(json!(false));
}

/// What musher's own lists show and look processes up by.
fn put_listed(view: &ProcessView, out: &mut Map<String, Value>) {
    let spec = &*view.spec;
    let listed = [
        ("name", json!(spec.name)),
        ("namespace", json!(spec.namespace)),
        ("version", json!(view.version.as_deref().unwrap_or("N/A"))),
        ("exec_mode", json!(spec.mode.pm2_name())),
        ("status", json!(view.status.pm2_name())),
        ("pm_id", json!(view.pm_id.0)),
        ("pm_uptime", json!(view.pm_uptime.0)),
        ("created_at", json!(view.created_at.map(|at| at.0))),
        ("restart_time", json!(view.restart_time)),
        ("unstable_restarts", json!(view.unstable_restarts)),
        ("pm_exec_path", json!(spec.script)),
        ("pm_out_log_path", json!(view.out_path())),
        ("pm_err_log_path", json!(view.err_path())),
        ("pm_log_path", json!(view.combined_path())),
        ("pm_pid_path", json!(view.pid_path())),
    ];
    out.extend(listed.map(|(key, value)| (key.to_owned(), value)));
    for key in LISTED_ATTRIBUTES {
        if let Some(value) = spec.declared.get(*key) {
            out.insert((*key).to_owned(), value.clone());
        }
    }
    if spec.is_module {
        out.insert("pmx_module".into(), json!(true));
    }
    if view.monitored {
        out.insert("_km_monitored".into(), json!(true));
    }
}

fn put_state(view: &ProcessView, out: &mut Map<String, Value>) {
    let version = view.version.as_deref().unwrap_or("N/A");
    let state = [
        ("unique_id", json!(view.spec.unique_id)),
        ("status", json!(view.status.pm2_name())),
        ("pm_uptime", json!(view.pm_uptime.0)),
        ("axm_actions", json!(view.axm.actions)),
        ("axm_monitor", json!(view.axm.monitor)),
        ("axm_options", json!(view.axm.options)),
        ("axm_dynamic", json!({})),
        ("created_at", json!(view.created_at.map(|at| at.0))),
        ("pm_id", json!(view.pm_id.0)),
        ("restart_time", json!(view.restart_time)),
        ("unstable_restarts", json!(view.unstable_restarts)),
        ("version", json!(version)),
    ];
    for (key, value) in state {
        out.insert(key.into(), value);
    }
    let optional = [
        (
            "node_version",
            view.node_version.as_ref().map(|text| json!(text)),
        ),
        ("exit_code", view.last_exit.map(|exit| json!(exit.code()))),
        (
            "prev_restart_delay",
            view.prev_restart_delay.map(|delay| json!(delay.0)),
        ),
        ("_km_monitored", view.monitored.then(|| json!(true))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            out.insert(key.into(), value);
        }
    }
}

fn instance_var(spec: &AppSpec) -> String {
    match spec.instance_var.as_str() {
        "" => "NODE_APP_INSTANCE".to_owned(),
        name => name.to_owned(),
    }
}

/// Returns the number as JavaScript prints it: `0`, not `0.0`.
fn js_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < MAX_EXACT {
        json!(number as i64)
    } else {
        json!(number)
    }
}

#[cfg(test)]
pub(crate) mod tests;
