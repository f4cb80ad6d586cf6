//! PM2's shapes, key by key.

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
        sticky: None,
        probes: crate::app::probe::Probes::default(),
        reload: crate::app::ReloadPolicy::default(),
        listen: Vec::new(),
        agent: true,
        release: None,
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
    for key in [
        "name",
        "namespace",
        "status",
        "exec_mode",
        "pm_exec_path",
        "pm_pid_path",
    ] {
        assert!(value["pm2_env"][key].is_string(), "{key}");
    }
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
