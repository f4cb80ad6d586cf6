use super::*;
use serde_json::json;

/// A machine with these files and programs.
pub(in crate::app) struct Fake {
    pub(in crate::app) files: Vec<(&'static str, Content)>,
    pub(in crate::app) programs: Vec<&'static str>,
    pub(in crate::app) node: Option<(u32, u32)>,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake {
            files: vec![
                ("/srv/app.js", Content::Text),
                ("/srv/my app.js", Content::Text),
                ("/srv/work.py", Content::Text),
                ("/srv/bin/tool", Content::Binary),
                ("/other/app.js", Content::Text),
                ("/srv/venv/bin/python", Content::Binary),
            ],
            programs: vec!["node", "bash", "python3", "npm", "ruby", "php", "perl"],
            node: Some((20, 20)),
        }
    }
}

impl Machine for Fake {
    fn program(&self, name: &str) -> Option<String> {
        self.programs
            .contains(&name)
            .then(|| format!("/usr/bin/{name}"))
    }
    fn node_version(&self) -> Option<(u32, u32)> {
        self.node
    }
    fn file(&self, path: &str) -> Option<Content> {
        let found = self.files.iter().find(|(file, _)| *file == path);
        found.map(|(_, content)| content.clone())
    }
    fn user(&self, name: &str) -> Option<User> {
        let home = "/home/web".to_owned();
        matches!(name, "web" | "33").then_some(User {
            uid: 33,
            gid: 34,
            home,
        })
    }
    fn group(&self, name: &str) -> Option<u32> {
        (name == "staff").then_some(50)
    }
    fn cron_mistake(&self, pattern: &str) -> Option<String> {
        (pattern == "bad").then(|| "not a pattern".to_owned())
    }
}

struct Case {
    machine: Fake,
    inherited: Vec<(String, String)>,
    env_name: Option<&'static str>,
    file_env: Map<String, Value>,
    is_root: bool,
    source: Source,
}

impl Default for Case {
    fn default() -> Case {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Case {
            machine: Fake::default(),
            inherited: vec![pair("PATH", "/usr/bin"), pair("SECRET_KEY", "s")],
            env_name: None,
            file_env: Map::new(),
            is_root: false,
            source: Source::File,
        }
    }
}

impl Case {
    fn run(&self, raw: &Value) -> Result<Resolved, Vec<ConfigError>> {
        let ctx = Context {
            cwd: "/srv",
            home: "/home/me",
            pm2_home: "/home/me/.pm2",
            log_dir: "/l",
            pid_dir: "/p",
            inherited: &self.inherited,
            env_name: self.env_name,
            file_env: &self.file_env,
            deploy_env: None,
            username: "me",
            is_root: self.is_root,
            source: self.source,
            label: "apps[0]",
            machine: &self.machine,
        };
        resolve(raw.as_object().unwrap(), &ctx)
    }
}

fn description(raw: &Value) -> Map<String, Value> {
    Case::default().run(raw).unwrap().description
}

fn messages(raw: &Value) -> Vec<String> {
    let mistakes = Case::default().run(raw).unwrap_err();
    mistakes
        .into_iter()
        .map(|mistake| mistake.message)
        .collect()
}

#[test]
fn a_bare_script_gets_pm2s_defaults_in_pm2s_order() {
    let case = Case {
        source: Source::Script,
        ..Case::default()
    };
    let out = case.run(&json!({"script": "app.js"})).unwrap().description;
    let keys: Vec<&str> = out.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "name",
            "filter_env",
            "namespace",
            "env",
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
            "node_args",
            "pm_exec_path",
            "pm_cwd",
            "exec_interpreter",
            "exec_mode",
            "instances",
            "pm_out_log_path",
            "pm_err_log_path",
            "pm_pid_path",
            "km_link"
        ]
    );
    assert_eq!(out["pm_exec_path"], "/srv/app.js");
    assert_eq!(out["pm_out_log_path"], "/l/app-out.log");
    assert_eq!(out["exec_mode"], "fork_mode");
    assert_eq!(out["env"]["app"], json!({}));
}

#[test]
fn the_name_is_derived_after_the_aliases_of_script() {
    for (raw, name) in [
        (json!({"exec": "app.js"}), "app"),
        (json!({"cmd": "./bin/tool"}), "tool"),
        (json!({"script": "npm", "args": "start"}), "npm"),
        (json!({"script": "node app.js --foo"}), "node app.js --foo"),
        (json!({"script": "app.js", "name": "api"}), "api"),
    ] {
        assert_eq!(description(&raw)["name"], name, "{raw}");
    }
}

#[test]
fn scripts_are_files_then_command_lines_then_programs() {
    for (raw, path, interpreter, args) in [
        (
            json!({"script": "my app.js"}),
            "/srv/my app.js",
            "node",
            Value::Null,
        ),
        (
            json!({"script": "node x"}),
            "/usr/bin/bash",
            "none",
            json!(["-c", "node x"]),
        ),
        (
            json!({"script": "npm", "args": "run x"}),
            "/usr/bin/npm",
            "none",
            json!(["run", "x"]),
        ),
        (
            json!({"script": "work.py"}),
            "/srv/work.py",
            "python3",
            Value::Null,
        ),
        (
            json!({"script": "bin/tool"}),
            "/srv/bin/tool",
            "none",
            Value::Null,
        ),
        (
            json!({"script": "app.js", "cwd": "/other"}),
            "/other/app.js",
            "node",
            Value::Null,
        ),
        (
            json!({"script": "work.py", "interpreter": "./venv/bin/python"}),
            "/srv/work.py",
            "/srv/venv/bin/python",
            Value::Null,
        ),
    ] {
        let out = description(&raw);
        assert_eq!(out["pm_exec_path"], path, "{raw}");
        assert_eq!(out["exec_interpreter"], interpreter, "{raw}");
        assert_eq!(out.get("args").cloned().unwrap_or_default(), args, "{raw}");
    }
}

#[test]
fn mode_follows_instances_interpreter_and_explicit_words() {
    for (raw, mode) in [
        (json!({"script": "app.js"}), "fork_mode"),
        (json!({"script": "app.js", "instances": 1}), "cluster_mode"),
        (
            json!({"script": "app.js", "instances": "max"}),
            "cluster_mode",
        ),
        (json!({"script": "app.js", "instances": -2}), "cluster_mode"),
        (
            json!({"script": "app.js", "instances": 4, "exec_mode": "fork"}),
            "fork_mode",
        ),
        (
            json!({"script": "app.js", "instances": 4, "execute_command": true}),
            "fork_mode",
        ),
        (
            json!({"script": "app.js", "execMode": "cluster"}),
            "cluster_mode",
        ),
        (json!({"script": "work.py", "instances": 2}), "fork_mode"),
        (
            json!({"script": "work.py", "exec_mode": "cluster"}),
            "fork_mode",
        ),
    ] {
        assert_eq!(description(&raw)["exec_mode"], mode, "{raw}");
    }
}

#[test]
fn logs_are_merged_only_for_a_single_fork() {
    for (raw, merged) in [
        (json!({"script": "app.js"}), json!(true)),
        (json!({"script": "app.js", "instances": 1}), Value::Null),
        (
            json!({"script": "app.js", "exec_mode": "cluster"}),
            Value::Null,
        ),
        (
            json!({"script": "app.js", "instances": 2, "merge_logs": true}),
            json!(true),
        ),
        (
            json!({"script": "app.js", "combine_logs": false}),
            json!(false),
        ),
    ] {
        let out = description(&raw);
        assert_eq!(
            out.get("merge_logs").cloned().unwrap_or_default(),
            merged,
            "{raw}"
        );
    }
}

#[test]
fn paths_expand_and_names_are_made_safe() {
    let out = description(&json!({
        "script": "app.js", "name": "a/b c_1", "out_file": "~/o.log", "error_file": "NULL",
        "log": true, "pid": "run/x.pid"
    }));
    assert_eq!(out["pm_out_log_path"], "/home/me/o.log");
    assert_eq!(out["pm_err_log_path"], "NULL");
    assert_eq!(out["pm_log_path"], "/l/a-b-c-1.log");
    assert_eq!(out["pm_pid_path"], "/srv/run/x.pid");
}

#[test]
fn later_layers_of_variables_win() {
    let mut case = Case {
        env_name: Some("production"),
        ..Case::default()
    };
    case.file_env = json!({"A": "file", "B": "file", "C": "file"})
        .as_object()
        .unwrap()
        .clone();
    case.inherited.push(("A".to_owned(), "shell".to_owned()));
    case.inherited.push(("D".to_owned(), "shell".to_owned()));
    let resolved = case
        .run(&json!({
            "script": "app.js", "port": 80,
            "env": {"B": "env", "C": "env", "L": [1], "N": null, "PORT": 3000},
            "env_production": {"C": "production"}
        }))
        .unwrap();
    let env = resolved.description["env"].as_object().unwrap();
    for (key, value) in [
        ("A", json!("file")),
        ("B", json!("env")),
        ("C", json!("production")),
        ("D", json!("shell")),
        ("L", json!("[1]")),
        ("N", json!("null")),
        ("PORT", json!(80)),
        ("PM2_HOME", json!("/home/me/.pm2")),
    ] {
        assert_eq!(env[key], value, "{key}");
    }
    assert!(resolved.env.get("D").is_none());
}

#[test]
fn inherited_variables_can_be_filtered() {
    for (filter, secret, path) in [
        (json!(["SECRET"]), false, true),
        (json!("SECRET_KEY"), false, true),
        (json!("SECRET"), true, true),
        (json!(true), false, true),
        (json!([]), true, true),
    ] {
        let out = description(&json!({"script": "app.js", "filter_env": filter}));
        assert_eq!(out["env"].get("SECRET_KEY").is_some(), secret, "{filter}");
        assert_eq!(out["env"].get("PATH").is_some(), path, "{filter}");
    }
}

#[test]
fn a_managed_caller_does_not_leak_its_own_description() {
    let mut case = Case::default();
    for (key, value) in [
        ("pm_id", "3"),
        ("name", "cli"),
        ("status", "online"),
        ("KEEP", "1"),
    ] {
        case.inherited.push((key.to_owned(), value.to_owned()));
    }
    let out = case.run(&json!({"script": "app.js"})).unwrap().description;
    let env = out["env"].as_object().unwrap();
    assert!(!env.contains_key("pm_id") && !env.contains_key("name") && !env.contains_key("status"));
    assert_eq!(env["KEEP"], "1");
}

#[test]
fn another_user_needs_root_and_brings_its_home() {
    let raw = json!({"script": "app.js", "user": "web"});
    assert_eq!(
        messages(&raw),
        ["To use --uid and --gid please run pm2 as root"]
    );
    let case = Case {
        is_root: true,
        ..Case::default()
    };
    let out = case.run(&raw).unwrap().description;
    assert_eq!((&out["uid"], &out["gid"]), (&json!(33), &json!(34)));
    assert_eq!(out["env"]["HOME"], "/home/web");
    let out = case
        .run(&json!({"script": "app.js", "uid": 33, "gid": "staff"}))
        .unwrap();
    assert_eq!(out.description["gid"], 50);
    let mistakes = case
        .run(&json!({"script": "app.js", "uid": "x", "gid": "y"}))
        .unwrap_err();
    assert_eq!(mistakes[0].message, "User x cannot be found");
    assert_eq!(mistakes[1].message, "Group y cannot be found");
}

#[test]
fn every_mistake_is_told_at_once_with_the_app() {
    let raw = json!({
        "name": "x", "script": "gone.js", "instances": "lots", "autorestart": 1,
        "cron_restart": "bad", "wacth": true
    });
    let mistakes = Case::default().run(&raw).unwrap_err();
    let keys: Vec<&str> = mistakes
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "instances",
            "autorestart",
            "wacth",
            "script",
            "cron_restart"
        ]
    );
    assert!(
        mistakes
            .iter()
            .all(|mistake| mistake.app == "apps[0] \"x\"")
    );
    assert_eq!(mistakes[2].help.as_deref(), Some("did you mean `watch`?"));
    assert_eq!(mistakes[3].message, "Script not found: /srv/gone.js");
}

#[test]
fn messages_are_pm2s() {
    for (raw, message) in [
        (json!({}), "No script path - aborting"),
        (json!({"script": "x.js"}), "Script not found: /srv/x.js"),
        (
            json!({"script": "app.js", "interpreter": "nope"}),
            "Interpreter nope is NOT AVAILABLE in PATH. (type 'which nope' to double check.)",
        ),
    ] {
        assert_eq!(messages(&raw), [message]);
    }
}

#[test]
fn the_name_takes_the_environment_only_when_asked() {
    let case = Case {
        env_name: Some("dev"),
        ..Case::default()
    };
    let raw = json!({"script": "app.js", "append_env_to_name": true, "env_dev": {}});
    assert_eq!(case.run(&raw).unwrap().description["name"], "app-dev");
    let resolved = case.run(&json!({"script": "app.js"})).unwrap();
    assert_eq!(
        resolved.warnings[0].message,
        "Environment [dev] is not defined in process file"
    );
}
