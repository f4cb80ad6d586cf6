//! What every test of the supervisor needs: its settings and a plain app.

use musher_core::app::description::Defaults;
use musher_core::app::probe::Probes;
use musher_core::app::{
    AppSpec, Balance, ExecMode, Interpreter, LogSpec, ReadyPolicy, ReloadPolicy, RestartPolicy,
    StopPolicy,
};
use musher_core::exit::Signal;
use musher_core::supervisor::Settings;
use musher_core::time::Millis;
use serde_json::Map;
use std::sync::Arc;

/// Returns a fork-mode app with PM2's defaults.
pub(crate) fn spec(name: &str) -> AppSpec {
    AppSpec {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        script: format!("/srv/{name}.js"),
        args: Vec::new(),
        cwd: "/srv".to_owned(),
        interpreter: Interpreter::Program("node".to_owned()),
        interpreter_args: Vec::new(),
        mode: ExecMode::Fork,
        n_instances: 1,
        env: Arc::new(Map::new()),
        instance_var: "NODE_APP_INSTANCE".to_owned(),
        increment_var: None,
        logs: LogSpec::default(),
        pid_file: format!("/home/pids/{name}.pid"),
        restart: RestartPolicy::default(),
        stop: StopPolicy::default(),
        ready: ReadyPolicy::default(),
        run_as: None,
        max_memory_bytes: None,
        cron_restart: None,
        balance: Balance::default(),
        sticky: None,
        probes: Probes::default(),
        reload: ReloadPolicy::default(),
        listen: Vec::new(),
        agent: true,
        release: None,
        autostart: true,
        is_module: false,
        unique_id: String::new(),
        declared: Arc::new(Map::new()),
    }
}

/// Returns the settings of a supervisor with PM2's defaults.
pub(crate) fn settings(max_processes: u32) -> Settings {
    Settings {
        max_processes,
        defaults: Defaults {
            kill_signal: Signal::INT,
            kill_timeout: Millis(1600),
            listen_timeout: Millis(3000),
            kill_with_message: false,
            cpu_count: 2,
            unique_id: String::new(),
        },
        agent: None,
    }
}
