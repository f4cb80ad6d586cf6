//! A process in PM2's JSON shapes: the only place that knows them.
//!
//! PM2 keeps attributes, runtime state and the user's variables in one object,
//! where a variable called `name` renames the app. musher keeps them apart and
//! presents the merged picture clients read: a variable is shown beside PM2's
//! own keys unless it has the name of one of them; inside `env` it is always
//! shown. Nothing here reads PM2's shapes back: that is `app::description`.

use crate::app::{AppSpec, Interpreter};
use crate::view::ProcessView;
use serde_json::{Map, Value, json};

/// Shown as the path of a log that is not written.
const NO_FILE: &str = "/dev/null";

/// The largest integer a JavaScript number holds exactly, plus one.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Keys of `pm2_env` that are PM2's: a variable of such a name stays in `env`.
/// The rows are attributes, then runtime state; each sorted.
const OWN_KEYS: &[&str] = &[
    "append_env_to_name",
    "args",
    "automation",
    "autorestart",
    "autostart",
    "cron_restart",
    "cwd",
    "deep_monitoring",
    "disable_logs",
    "disable_source_map_support",
    "disable_trace",
    "env",
    "error_file",
    "exec_interpreter",
    "exec_mode",
    "execute_command",
    "exp_backoff_restart_delay",
    "filter_env",
    "force",
    "gid",
    "ignore_watch",
    "increment_var",
    "instance_var",
    "instances",
    "interpreter",
    "io",
    "kill_retry_time",
    "kill_timeout",
    "km_link",
    "listen_timeout",
    "log_date_format",
    "log_file",
    "log_type",
    "max_memory_restart",
    "max_restarts",
    "merge_logs",
    "min_uptime",
    "name",
    "namespace",
    "node_args",
    "out_file",
    "pid_file",
    "pm_cwd",
    "pm_err_log_path",
    "pm_exec_path",
    "pm_log_path",
    "pm_out_log_path",
    "pm_pid_path",
    "pmx",
    "pmx_module",
    "post_update",
    "restart_delay",
    "script",
    "shutdown_with_message",
    "source_map_support",
    "stop_exit_codes",
    "time",
    "treekill",
    "uid",
    "username",
    "versioning",
    "vizion",
    "wait_ready",
    "watch",
    "watch_delay",
    "watch_options",
    "windowsHide",
    // Runtime state.
    "_km_monitored",
    "_pm2_version",
    "_tree_pids",
    "axm_actions",
    "axm_dynamic",
    "axm_monitor",
    "axm_options",
    "created_at",
    "exit_code",
    "node_version",
    "pm_id",
    "pm_uptime",
    "prev_restart_delay",
    "restart_time",
    "status",
    "unique_id",
    "unstable_restarts",
    "version",
    "vizion_running",
];

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
pub(crate) mod tests {
    use super::*;
    use crate::app::{Balance, ExecMode, LogSpec, ReadyPolicy, RestartPolicy, StopPolicy};
    use crate::exit::{ExitStatus, Signal};
    use crate::id::{Incarnation, PmId};
    use crate::time::{Millis, Wall};
    use crate::view::{Axm, Status};
    use std::sync::Arc;

    pub(crate) fn object(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            panic!("not an object: {value}");
        };
        map
    }

    pub(crate) fn spec() -> AppSpec {
        AppSpec {
            name: "api".into(),
            namespace: "default".into(),
            script: "/srv/api.js".into(),
            args: vec!["a1".into()],
            cwd: "/srv".into(),
            interpreter: Interpreter::Program("node".into()),
            interpreter_args: vec![],
            mode: ExecMode::Fork,
            n_instances: 1,
            env: Arc::new(object(json!({
                "PORT": 3000, "HOME": "/home/u", "name": "evil", "status": "online?", "nested": {}
            }))),
            instance_var: "NODE_APP_INSTANCE".into(),
            increment_var: None,
            logs: LogSpec {
                out: Some("/l/api-out.log".into()),
                err: None,
                merge: true,
                ..LogSpec::default()
            },
            pid_file: "/p/api.pid".into(),
            restart: RestartPolicy::default(),
            stop: StopPolicy::default(),
            ready: ReadyPolicy::default(),
            run_as: None,
            max_memory_bytes: None,
            cron_restart: None,
            balance: Balance::Even,
            autostart: true,
            is_module: false,
            unique_id: "5c1c".into(),
            declared: Arc::new(object(json!({
                "name": "api", "filter_env": [], "namespace": "default", "args": ["a1"],
                "merge_logs": true, "watch": false, "node_args": [],
                "pm_exec_path": "/srv/api.js", "pm_cwd": "/srv", "exec_interpreter": "node",
                "exec_mode": "fork_mode", "instances": 1, "pm_out_log_path": "/l/api-out.log",
                "pm_err_log_path": "NULL", "pm_pid_path": "/p/api.pid", "km_link": false,
            }))),
        }
    }

    pub(crate) fn view() -> ProcessView {
        ProcessView {
            pm_id: PmId(3),
            spec: Arc::new(spec()),
            instance: 0,
            increment: None,
            status: Status::Online,
            reason: None,
            run: Some(Incarnation(9)),
            pid: Some(4242),
            restart_time: 2,
            unstable_restarts: 1,
            pm_uptime: Wall(1_700_000_000_000),
            created_at: Some(Wall(1_600_000_000_000)),
            last_exit: Some(ExitStatus::Signal(Signal::KILL)),
            prev_restart_delay: None,
            next_restart_at: None,
            version: None,
            node_version: Some("20.1.0".into()),
            axm: Axm::default(),
            memory_bytes: 50_000_000,
            cpu_percent: 0.0,
            monitored: false,
        }
    }

    #[test]
    fn keys_stand_in_pm2s_order() {
        let keys: Vec<String> = pm2_env(&view()).keys().cloned().collect();
        assert_eq!(
            keys.join(" "),
            "name filter_env namespace env args merge_logs watch node_args pm_exec_path pm_cwd \
             exec_interpreter exec_mode instances pm_out_log_path pm_err_log_path pm_pid_path \
             km_link vizion_running NODE_APP_INSTANCE PORT HOME unique_id status pm_uptime \
             axm_actions axm_monitor axm_options axm_dynamic created_at pm_id restart_time \
             unstable_restarts version node_version exit_code"
        );
    }

    #[test]
    fn a_variable_never_takes_the_place_of_pm2s_own_key() {
        let env = pm2_env(&view());
        assert_eq!(env["name"], "api");
        assert_eq!(env["status"], "online");
        assert_eq!(env["env"]["name"], "evil");
        assert_eq!(env["env"]["status"], "online?");
        assert_eq!(env["PORT"], 3000);
        assert!(!env.contains_key("nested"), "objects are not flattened");
    }

    #[test]
    fn values_have_the_types_clients_rely_on() {
        let value = record(&view());
        assert_eq!(value["pid"], 4242);
        assert_eq!(value["monit"].to_string(), r#"{"memory":50000000,"cpu":0}"#);
        let env = &value["pm2_env"];
        assert_eq!(env["NODE_APP_INSTANCE"], 0);
        assert_eq!(env["exit_code"], 0, "a death by signal is code 0 for PM2");
        assert_eq!(env["version"], "N/A");
        assert_eq!(env["axm_actions"], json!([]));
        assert_eq!(env["pm_pid_path"], "/p/api-3.pid");
        assert_eq!(env["pm_err_log_path"], NO_FILE);
        assert_eq!(env["pm_out_log_path"], "/l/api-out.log");
        assert_eq!(env["unique_id"], env["env"]["unique_id"]);
    }

    #[test]
    fn a_stopped_process_has_pid_zero_and_created_at_may_be_null() {
        let view = ProcessView {
            pid: None,
            run: None,
            status: Status::Errored,
            created_at: None,
            prev_restart_delay: Some(Millis(150)),
            monitored: true,
            ..view()
        };
        let value = record(&view);
        assert_eq!(value["pid"], 0);
        assert_eq!(value["pm2_env"]["created_at"], Value::Null);
        assert_eq!(value["pm2_env"]["prev_restart_delay"], 150);
        assert_eq!(value["pm2_env"]["_km_monitored"], true);
        assert_eq!(prepare_reply(&[view])[0]["process"]["pid"], 0);
    }

    #[test]
    fn a_slim_record_has_no_variables_and_tells_why() {
        let view = ProcessView {
            reason: Some("too many unstable restarts".into()),
            next_restart_at: Some(Wall(7)),
            ..view()
        };
        let value = slim(&view);
        for key in ["env", "PORT", "HOME"] {
            assert!(value["pm2_env"].get(key).is_none(), "{key}");
        }
        assert_eq!(value["pm2_env"]["NODE_APP_INSTANCE"], 0);
        assert_eq!(value["reason"], "too many unstable restarts");
        assert_eq!(value["next_restart_at"], 7);
    }

    #[test]
    fn the_bus_carries_variables_but_not_env() {
        let value = bus_process(&view());
        assert!(value.get("env").is_none());
        assert_eq!(value["PORT"], 3000);
    }

    #[test]
    fn the_increment_of_an_instance_is_a_variable() {
        let mut spec = spec();
        spec.increment_var = Some("PORT".into());
        let view = ProcessView {
            spec: Arc::new(spec),
            increment: Some(3007),
            ..view()
        };
        assert_eq!(pm2_env(&view)["PORT"], 3007);
        assert_eq!(pm2_env(&view)["env"]["PORT"], 3007);
    }

    #[test]
    fn counts_in_the_text_are_those_scripts_grep_for() {
        let text = crate::wire::inspect::inspect(&json!([record(&view())]));
        for (needle, n) in [
            ("restart_time", 1),
            ("pm_id: 3", 2),
            ("exec_mode: 'fork_mode'", 1),
            ("NODE_APP_INSTANCE: 0", 1),
            ("PORT: 3000", 2),
            ("name: 'api'", 2),
            ("api.js", 1),
            ("status: 'online'", 1),
        ] {
            assert_eq!(text.matches(needle).count(), n, "{needle} in {text}");
        }
    }
}
