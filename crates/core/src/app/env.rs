//! The environment of a child: what the app declares and what its run is.
//!
//! PM2 gives a child every scalar of its description as a variable, and
//! nothing else: nothing is inherited from the daemon. Lists and objects are
//! left out.

use super::{AppSpec, Interpreter, interpreter, value};
use serde_json::{Map, Value};

/// What is known about one run of a slot when it is spawned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// The slot.
    pub pm_id: u32,
    /// Instance number within the name, from 0.
    pub instance: u32,
    /// Value of the `increment_var` variable.
    pub increment: Option<i64>,
    /// Restarts since the first launch.
    pub restart_time: u32,
    /// Unstable runs since the last stable one.
    pub unstable_restarts: u32,
    /// When this run is spawned, ms since the epoch.
    pub pm_uptime: i64,
    /// First launch or last explicit restart, ms since the epoch.
    pub created_at: i64,
    /// Exit code of the previous run.
    pub exit_code: Option<i32>,
    /// `version` of the nearest package.json, from the previous run.
    pub version: Option<String>,
    /// Node's version, from the previous run.
    pub node_version: Option<String>,
    /// Delay of the exponential back-off in force, ms.
    pub prev_restart_delay: Option<u64>,
    /// Log file of stdout with the id in it.
    pub out_path: Option<String>,
    /// Log file of stderr with the id in it.
    pub err_path: Option<String>,
    /// Combined log file with the id in it.
    pub combined_path: Option<String>,
    /// Pid file with the id in it.
    pub pid_path: String,
}

/// Returns the whole environment of a child, each name once.
///
/// Later over earlier: scalar attributes, facts the app may shadow, the
/// user's variables, then what identifies the run.
pub fn child_env(spec: &AppSpec, facts: &RunFacts) -> Vec<(String, String)> {
    let mut env = Map::new();
    for (key, value) in spec.declared.iter() {
        put(&mut env, key, value::text(value));
    }
    put(&mut env, "version", facts.version.clone());
    put(&mut env, "node_version", facts.node_version.clone());
    put(&mut env, "exit_code", facts.exit_code);
    put(&mut env, "prev_restart_delay", facts.prev_restart_delay);
    put(&mut env, "vizion_running", Some(false));
    if let Interpreter::Program(program) = &spec.interpreter
        && interpreter::is_python(program)
    {
        put(&mut env, "PYTHONUNBUFFERED", Some(1));
    }
    for (key, value) in spec.env.iter() {
        put(&mut env, key, value::text(value));
    }
    put(&mut env, "PWD", Some(spec.cwd.as_str()));
    put(&mut env, "pm_out_log_path", facts.out_path.clone());
    put(&mut env, "pm_err_log_path", facts.err_path.clone());
    put(&mut env, "pm_log_path", facts.combined_path.clone());
    put(&mut env, "pm_pid_path", Some(facts.pid_path.clone()));
    put(&mut env, "pm_id", Some(facts.pm_id));
    put(&mut env, &spec.instance_var, Some(facts.instance));
    if let Some(name) = &spec.increment_var {
        put(&mut env, name, facts.increment);
    }
    put(&mut env, "unique_id", Some(spec.unique_id.as_str()));
    put(&mut env, "status", Some("launching"));
    put(&mut env, "pm_uptime", Some(facts.pm_uptime));
    put(&mut env, "created_at", Some(facts.created_at));
    put(&mut env, "restart_time", Some(facts.restart_time));
    put(&mut env, "unstable_restarts", Some(facts.unstable_restarts));
    env.into_iter()
        .filter_map(|(key, value)| Some((key, value::text(&value)?)))
        .collect()
}

fn put(env: &mut Map<String, Value>, key: &str, value: Option<impl ToString>) {
    if let Some(value) = value
        // execve(2) has no room for these names.
        && !key.is_empty()
        && !key.contains(['=', '\0'])
    {
        env.insert(key.to_owned(), value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::description::{Defaults, spec};
    use crate::exit::Signal;
    use crate::time::Millis;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn run(description: &Value, facts: &RunFacts) -> BTreeMap<String, String> {
        let defaults = Defaults {
            kill_signal: Signal::INT,
            kill_timeout: Millis(1600),
            listen_timeout: Millis(3000),
            kill_with_message: false,
            cpu_count: 2,
            unique_id: "u".to_owned(),
        };
        let spec = spec(description.as_object().unwrap(), &defaults).unwrap();
        let env = child_env(&spec, facts);
        let n_entries = env.len();
        let map: BTreeMap<_, _> = env.into_iter().collect();
        assert_eq!(map.len(), n_entries, "each name once");
        map
    }

    #[test]
    fn a_child_sees_scalars_its_variables_and_its_run() {
        let env = run(
            &json!({
                "name": "api", "env": {"NODE_ENV": "production", "PORT": 3000, "name": "mine",
                "pm_id": "9", "version": "custom"}, "args": ["a"], "autorestart": true,
                "io": {"a": 1}, "increment_var": "PORT", "pm_exec_path": "/srv/app.py",
                "exec_interpreter": "python3", "pm_pid_path": "/p/api.pid"
            }),
            &RunFacts {
                pm_id: 3,
                instance: 1,
                increment: Some(3001),
                restart_time: 2,
                pid_path: "/p/api-3.pid".to_owned(),
                ..RunFacts::default()
            },
        );
        for (key, value) in [
            ("name", "mine"),
            ("NODE_ENV", "production"),
            ("PORT", "3001"),
            ("pm_id", "3"),
            ("NODE_APP_INSTANCE", "1"),
            ("restart_time", "2"),
            ("status", "launching"),
            ("exec_mode", "fork_mode"),
            ("autorestart", "true"),
            ("unique_id", "u"),
            ("version", "custom"),
            ("PWD", "/srv"),
            ("PYTHONUNBUFFERED", "1"),
            ("pm_pid_path", "/p/api-3.pid"),
        ] {
            assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
        }
        for key in ["args", "env", "io", "node_args", "exit_code"] {
            assert!(!env.contains_key(key), "{key}");
        }
    }

    #[test]
    fn the_instance_variable_can_be_renamed() {
        let env = run(
            &json!({"pm_exec_path": "/a", "instance_var": "INSTANCE"}),
            &RunFacts::default(),
        );
        assert_eq!(env["INSTANCE"], "0");
        assert!(!env.contains_key("NODE_APP_INSTANCE"));
    }
}
