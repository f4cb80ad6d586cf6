//! A process in PM2's JSON shapes: the only place that knows them.
//!
//! PM2 keeps attributes, runtime state and the user's variables in one object,
//! where a variable called `name` renames the app. musher keeps them apart and
//! presents the merged picture clients read: a variable is shown beside PM2's
//! own keys unless it has the name of one of them; inside `env` it is always
//! shown. Nothing here reads PM2's shapes back: that is `app::description`.

mod keys;

use crate::app::{AppSpec, Interpreter};
use crate::view::ProcessView;
use keys::OWN_KEYS;
use serde_json::{Map, Value, json};

/// Shown as the path of a log that is not written.
const NO_FILE: &str = "/dev/null";

/// The largest integer a JavaScript number holds exactly, plus one.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

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
    explained(view, pm2_env(view))
}

/// Returns the element without `env` and the variables, which are most of its
/// bytes.
pub fn slim(view: &ProcessView) -> Value {
    explained(view, build(view, Parts::Slim))
}

fn explained(view: &ProcessView, pm2_env: Map<String, Value>) -> Value {
    let mut value = monitored(view, pm2_env);
    if let Value::Object(fields) = &mut value {
        if let Some(reason) = &view.reason {
            fields.insert("reason".into(), json!(reason));
        }
        if let Some(due) = view.next_restart_at {
            fields.insert("next_restart_at".into(), json!(due.0));
        }
    }
    value
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
    Value::Object(build(view, Parts::NoEnv))
}

/// Returns the whole `pm2_env`, keys in PM2's order.
pub fn pm2_env(view: &ProcessView) -> Map<String, Value> {
    build(view, Parts::Full)
}

fn monitored(view: &ProcessView, pm2_env: Map<String, Value>) -> Value {
    json!({
        "pid": view.pid.unwrap_or(0),
        "name": view.spec.name,
        "pm2_env": pm2_env,
        "pm_id": view.pm_id.0,
        "monit": { "memory": view.memory_bytes, "cpu": js_number(view.cpu_percent) },
    })
}

fn build(view: &ProcessView, parts: Parts) -> Map<String, Value> {
    let env = match parts {
        Parts::Full | Parts::NoEnv => user_env(view),
        Parts::Slim => Map::new(),
    };
    let mut out = Map::new();
    put_attributes(view, &mut out);
    if parts == Parts::Full {
        out = with_env_after_namespace(out, &env);
    }
    out.insert("vizion_running".into(), json!(false));
    let instance_var = instance_var(&view.spec);
    out.entry(instance_var).or_insert(json!(view.instance));
    for (name, value) in &env {
        if !value.is_object() && !out.contains_key(name) && !OWN_KEYS.contains(&name.as_str()) {
            out.insert(name.clone(), value.clone());
        }
    }
    put_state(view, &mut out);
    out
}

/// The user's variables as PM2 shows them: with this instance's increment and
/// the id of the start request.
fn user_env(view: &ProcessView) -> Map<String, Value> {
    let mut env = Map::clone(&view.spec.env);
    if let (Some(name), Some(value)) = (&view.spec.increment_var, view.increment) {
        env.insert(name.clone(), json!(value));
    }
    env.insert("unique_id".into(), json!(view.spec.unique_id));
    env
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

fn with_env_after_namespace(
    attributes: Map<String, Value>,
    env: &Map<String, Value>,
) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in attributes {
        let is_namespace = key == "namespace";
        out.insert(key, value);
        if is_namespace {
            out.insert("env".into(), Value::Object(env.clone()));
        }
    }
    out
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
        // A stale copy among the attributes must not decide the place either.
        out.shift_remove(key);
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
        out.shift_remove(key);
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
