//! Verbs: what they do, what they print, how they end.

use crate::harness::{Musher, kill};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

fn silent(musher: &Musher, name: &str, more: &[&str]) {
    let script = Musher::app("silent.js");
    let mut line = vec!["start", &script, "--name", name];
    line.extend(more);
    musher.ok(&line);
}

fn ids(musher: &Musher, name: &str) -> Vec<i64> {
    let list = musher.of(name);
    list.iter().filter_map(|p| p["pm_id"].as_i64()).collect()
}

#[test]
fn scale_takes_totals_and_differences() {
    let musher = Musher::new();
    silent(&musher, "app", &["-i", "1"]);
    musher.ok(&["scale", "app", "+2"]);
    assert_eq!(ids(&musher, "app"), [0, 1, 2]);
    musher.ok(&["scale", "app", "-1"]);
    assert_eq!(ids(&musher, "app"), [1, 2], "the lowest ids leave first");
    musher.ok(&["scale", "app", "4"]);
    assert_eq!(ids(&musher, "app"), [1, 2, 3, 4]);
    musher.wait_status("app", 4, "online");
    let mut instances: Vec<i64> = musher
        .of("app")
        .iter()
        .filter_map(|p| p["pm2_env"]["NODE_APP_INSTANCE"].as_i64())
        .collect();
    instances.sort_unstable();
    assert_eq!(instances, [0, 1, 2, 3]);
    for (line, text) in [
        (["scale", "app", "4"], "Nothing to do"),
        (["scale", "nobody", "2"], "Application nobody not found"),
    ] {
        let ran = musher.run(&line);
        assert_eq!(ran.code, 1, "{line:?}");
        assert!(ran.stderr.contains(text), "{line:?}: {}", ran.stderr);
    }
    musher.ok(&["scale", "app", "0"]);
    assert!(musher.list().is_empty());
}

#[test]
fn scale_adds_processes_in_fork_mode() {
    let musher = Musher::new();
    silent(&musher, "app", &["-x", "-i", "2"]);
    musher.ok(&["scale", "app", "3"]);
    let list = musher.wait_status("app", 3, "online");
    assert!(
        list.iter()
            .all(|p| p["pm2_env"]["exec_mode"] == "fork_mode")
    );
}

#[test]
fn reset_sets_counters_to_zero() {
    let musher = Musher::new();
    silent(&musher, "app", &[]);
    musher.ok(&["restart", "app"]);
    musher.ok(&["restart", "app"]);
    assert_eq!(musher.of("app")[0]["pm2_env"]["restart_time"], 2);
    let out = musher.ok(&["reset", "app"]);
    assert!(out.contains("Resetting meta for process id 0"), "{out}");
    assert_eq!(musher.of("app")[0]["pm2_env"]["restart_time"], 0);
    assert_eq!(musher.run(&["reset", "nobody"]).code, 1);
}

#[test]
fn a_signal_is_sent_by_name_and_by_id() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "for (const s of ['SIGUSR2', 'SIGHUP']) process.on(s, () => console.log(`got ${s}`));\n\
         console.log('handlers'); setInterval(() => {}, 1000);\n",
    );
    let script = script.to_str().expect("a path");
    musher.ok(&["start", script, "--name", "app", "-i", "2"]);
    for log in ["app-out-0.log", "app-out-1.log"] {
        musher.wait("handlers", || musher.log_has(log, "handlers"));
    }
    musher.ok(&["sendSignal", "SIGUSR2", "app"]);
    for log in ["app-out-0.log", "app-out-1.log"] {
        musher.wait("its signal", || musher.log_has(log, "got SIGUSR2"));
    }
    musher.ok(&["sendSignal", "SIGHUP", "1"]);
    musher.wait("its signal", || {
        musher.log_has("app-out-1.log", "got SIGHUP")
    });
    assert!(!musher.log("app-out-0.log").contains("SIGHUP"));
    for line in [
        ["sendSignal", "SIGNOPE", "app"],
        ["sendSignal", "SIGHUP", "nobody"],
        ["sendSignal", "SIGHUP", "77"],
    ] {
        assert_eq!(musher.run(&line).code, 1, "{line:?}");
    }
}

#[test]
fn id_pid_and_env_print_what_scripts_read() {
    let musher = Musher::new();
    let script = Musher::app("silent.js");
    let output = musher
        .command(&["start", &script, "--name", "app", "-i", "2"])
        .env("STAGE", "blue")
        .output();
    assert!(output.expect("the binary runs").status.success());
    silent(&musher, "off", &[]);
    musher.ok(&["stop", "off"]);
    assert_eq!(musher.ok(&["id", "app"]), "[ 0, 1 ]\n");
    assert_eq!(musher.ok(&["id", "nobody"]), "[]\n");
    let pids: Vec<String> = musher
        .pids("app")
        .iter()
        .map(|pid| format!("{pid}\n"))
        .collect();
    assert_eq!(musher.ok(&["pid", "app"]), pids.concat());
    assert_eq!(musher.ok(&["pid", "off"]), "0\n");
    assert_eq!(musher.ok(&["pid", "nobody"]), "\n");
    let env = musher.ok(&["env", "1"]);
    assert!(env.lines().any(|line| line == "STAGE: blue"), "{env}");
    assert!(
        env.lines().any(|line| line == "NODE_APP_INSTANCE: 1"),
        "{env}"
    );
    assert!(!env.contains("pm_exec_path"), "{env}");
    assert_eq!(musher.run(&["env", "77"]).code, 1);
}

#[test]
fn a_crash_loop_ends_with_its_reason() {
    let musher = Musher::new();
    let script = Musher::app("crash.js");
    musher.ok(&["start", &script, "--name", "bad", "--", "3"]);
    let list = musher.wait_status("bad", 1, "errored");
    let reason = list[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("16"), "{}", list[0]);
    assert_eq!(list[0]["pm2_env"]["exit_code"], 3);
    for line in [&["describe", "bad"][..], &["ls"]] {
        let shown = musher.ok(line);
        assert!(shown.contains("errored"), "{line:?}: {shown}");
        assert!(shown.contains(reason), "{line:?}: {reason} in {shown}");
    }
}

#[test]
fn a_failed_exec_is_errored_with_its_reason() {
    let musher = Musher::new();
    let script = musher.write("tool", "#!/no/such/interpreter\n");
    let path = script.to_str().expect("a path");
    let chmod = Command::new("chmod").args(["+x", path]).status();
    assert!(chmod.is_ok_and(|status| status.success()));
    let _ = musher.run(&["start", path, "--name", "tool", "--interpreter", "none"]);
    let list = musher.wait_status("tool", 1, "errored");
    assert_eq!(list[0]["pid"], 0);
    let reason = list[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("no such file"), "{}", list[0]);
}

#[test]
fn the_table_is_sorted_as_asked() {
    let musher = Musher::new();
    for name in ["bbb", "ccc", "aaa"] {
        silent(&musher, name, &[]);
    }
    let order = |args: &[&str]| {
        let out = musher.ok(args);
        let mut at: Vec<(usize, &str)> = ["aaa", "bbb", "ccc"]
            .iter()
            .map(|name| {
                (
                    out.find(name).unwrap_or_else(|| panic!("{name} in {out}")),
                    *name,
                )
            })
            .collect();
        at.sort_unstable();
        at.into_iter()
            .map(|(_, name)| name.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(&["ls"]), ["aaa", "bbb", "ccc"]);
    assert_eq!(order(&["ls", "--sort", "name:desc"]), ["ccc", "bbb", "aaa"]);
    assert_eq!(order(&["ls", "--sort", "id"]), ["bbb", "ccc", "aaa"]);
    assert_eq!(order(&["ls", "--sort", "pid:desc"]), ["aaa", "ccc", "bbb"]);
}

#[test]
fn the_mini_list_has_the_keys_scripts_know() {
    let musher = Musher::new();
    silent(&musher, "app", &[]);
    let out = musher.ok(&["ls", "-m"]);
    let keys: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split_once(" : ").map(|(key, _)| key))
        .collect();
    assert_eq!(
        keys,
        [
            "namespace",
            "version",
            "pid",
            "pm2 id",
            "status",
            "mode",
            "restarted",
            "uptime",
            "memory usage",
            "error log",
            "watching",
            "PID file",
        ],
        "{out}"
    );
    assert!(out.starts_with("+--- app\n"), "{out}");
}

#[test]
fn jlist_has_what_dashboards_read() {
    let musher = Musher::new();
    silent(&musher, "app", &["-i", "1"]);
    let process = musher.list().remove(0);
    for key in ["pid", "name", "pm_id", "monit", "pm2_env"] {
        assert!(!process[key].is_null(), "{key}: {process}");
    }
    assert!(process["monit"]["memory"].is_u64() && process["monit"]["cpu"].is_number());
    for key in [
        "name",
        "namespace",
        "status",
        "pm_id",
        "pm_uptime",
        "created_at",
        "restart_time",
        "unstable_restarts",
        "exec_mode",
        "exec_interpreter",
        "pm_exec_path",
        "pm_cwd",
        "node_args",
        "pm_out_log_path",
        "pm_err_log_path",
        "pm_pid_path",
        "env",
        "axm_monitor",
        "axm_actions",
        "axm_options",
        "unique_id",
        "autorestart",
        "watch",
        "username",
        "instances",
        "version",
        "vizion",
        "kill_retry_time",
        "treekill",
        "windowsHide",
    ] {
        assert!(process["pm2_env"].get(key).is_some(), "{key}: {process}");
    }
    let pid = musher.pids("app")[0].to_string();
    let file = process["pm2_env"]["pm_pid_path"].as_str().expect("a path");
    assert_eq!(
        std::fs::read_to_string(file).expect("a pid file").trim(),
        pid
    );
}

#[test]
fn prettylist_is_the_same_value_as_jlist() {
    let musher = Musher::new();
    silent(
        &musher,
        "it's \"a\" `name`",
        &["--", "two\nlines", "\u{1b}[0m"],
    );
    // What the agent says must not come between the two lists.
    musher.wait("its version", || {
        musher.list()[0]["pm2_env"]["node_version"]
            .is_string()
            .then_some(())
    });
    let pretty = musher.ok(&["prettylist"]);
    let check = "const list = new Function('return ' + require('fs').readFileSync(0, 'utf8'))();\n\
        const plain = (k, v) => (k === 'monit' || v === undefined ? null : v);\n\
        console.log(JSON.stringify(list, plain));";
    let mut node = Command::new("node")
        .args(["-e", check])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs");
    let mut stdin = node.stdin.take().expect("a pipe");
    stdin.write_all(pretty.as_bytes()).expect("it reads");
    drop(stdin);
    let output = node.wait_with_output().expect("it ends");
    assert!(output.status.success(), "node cannot read {pretty}");
    let mut value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut list = Value::Array(musher.list());
    for list in [&mut value, &mut list] {
        list[0]["monit"].take();
    }
    assert_eq!(value, list);
}

#[test]
fn logs_shows_one_stream_when_asked() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "console.log('to out'); console.error('to err'); setInterval(() => {}, 1000);",
    );
    musher.ok(&["start", script.to_str().expect("a path"), "--name", "app"]);
    musher.wait("both", || {
        musher
            .log_has("app-out", "out")
            .and(musher.log_has("app-error", "err"))
    });
    for (flag, shown, hidden) in [("--out", "to out", "to err"), ("--err", "to err", "to out")] {
        let out = musher.ok(&["logs", "app", flag, "--nostream"]);
        assert!(
            out.contains(shown) && !out.contains(hidden),
            "{flag}: {out}"
        );
    }
    let ran = musher.run(&["logs", "app", "--nostream", "--raw"]);
    assert!(ran.stdout.contains("to out"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("0|app"), "{}", ran.stdout);
    let one = musher.ok(&["logs", "app", "--nostream", "--lines", "1", "--out"]);
    assert!(one.contains("0|app"), "{one}");
    assert_eq!(musher.run(&["logs", "nobody", "--nostream"]).code, 1);
}

/// Follows logs and returns the first line.
fn first_line(musher: &Musher, args: &[&str]) -> String {
    let mut child = musher
        .command(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("text");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    line
}

#[test]
fn following_speaks_json_and_tells_the_time() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let line = first_line(&musher, &["logs", "tick", "--json"]);
    let record: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(
        (&record["type"], &record["app_name"]),
        (&json!("out"), &json!("tick"))
    );
    assert!(
        record["message"]
            .as_str()
            .expect("text")
            .starts_with("tick "),
        "{line}"
    );
    assert!(
        !record["timestamp"].is_null() && record["process_id"] == 0,
        "{line}"
    );
    let line = first_line(
        &musher,
        &["logs", "tick", "--timestamp", "YYYY", "--lines", "0"],
    );
    let year = line.get(..4).and_then(|year| year.parse::<u32>().ok());
    assert!(year.is_some_and(|year| year > 2000), "{line}");
    assert!(
        line.contains("0|tick") && line.contains("| tick "),
        "{line}"
    );
}

#[test]
fn an_empty_list_is_saved_by_force_only() {
    let musher = Musher::new();
    silent(&musher, "app", &[]);
    musher.ok(&["save"]);
    musher.ok(&["delete", "all"]);
    let saved = || std::fs::read_to_string(musher.home().join("dump.pm2")).expect("a dump");
    let before = saved();
    let out = musher.ok(&["save"]);
    assert!(out.contains("--force"), "{out}");
    assert_eq!(saved(), before);
    musher.ok(&["save", "--force"]);
    assert_eq!(
        serde_json::from_str::<Value>(&saved()).expect("JSON"),
        json!([])
    );
}

#[test]
fn resurrect_leaves_names_alone_that_exist() {
    let musher = Musher::new();
    silent(&musher, "a", &[]);
    silent(&musher, "b", &["-i", "2"]);
    musher.ok(&["save"]);
    musher.ok(&["delete", "b"]);
    let before = musher.pids("a");
    musher.ok(&["resurrect"]);
    musher.wait_status("b", 2, "online");
    assert_eq!(musher.pids("a"), before);
    assert_eq!(musher.list().len(), 3);
    musher.ok(&["resurrect"]);
    assert_eq!(musher.list().len(), 3);
}

#[test]
fn start_or_reload_starts_what_is_missing_and_replaces_the_rest() {
    let musher = Musher::new();
    let script = Musher::app("http.js");
    let port = crate::harness::free_port();
    let app = |name: &str, port: u16| {
        json!({ "name": name, "script": script, "instances": 1, "wait_ready": true,
                "env": { "PORT": port, "HOST": "127.0.0.1" } })
    };
    let one = musher.write("one.json", &json!([app("one", port)]).to_string());
    let both = json!([app("one", port), app("two", crate::harness::free_port())]);
    let both = musher.write("both.json", &both.to_string());
    musher.ok(&["startOrReload", one.to_str().expect("a path")]);
    let before = musher.wait_status("one", 1, "online");
    let load = crate::cluster::Load::on(port);
    let out = musher.ok(&["startOrReload", both.to_str().expect("a path")]);
    let (n_ok, failures) = load.end();
    assert!(
        failures.is_empty(),
        "{} of {n_ok}: {failures:?}",
        failures.len()
    );
    assert!(out.contains("two not running, starting"), "{out}");
    musher.wait_status("two", 1, "online");
    assert_ne!(musher.of("one")[0]["pid"], before[0]["pid"]);
    assert_eq!(ids(&musher, "one"), [0]);
}

#[test]
fn targets_are_ids_names_namespaces_patterns_and_all() {
    let musher = Musher::new();
    silent(&musher, "api-a", &["--namespace", "web"]);
    silent(&musher, "api-b", &["--namespace", "web"]);
    silent(&musher, "job", &[]);
    let restarts = || -> Vec<i64> {
        let list = musher.list();
        list.iter()
            .filter_map(|p| p["pm2_env"]["restart_time"].as_i64())
            .collect()
    };
    for (target, expected) in [
        ("2", [0, 0, 1]),
        ("job", [0, 0, 2]),
        ("web", [1, 1, 2]),
        ("/^api-/", [2, 2, 2]),
        ("all", [3, 3, 3]),
    ] {
        musher.ok(&["restart", target]);
        assert_eq!(restarts(), expected, "{target}");
    }
    musher.ok(&["delete", "web", "job"]);
    assert!(musher.list().is_empty());
    for target in ["all", "/x/"] {
        assert_eq!(musher.run(&["stop", target]).code, 1, "{target}");
    }
}

#[test]
fn update_env_takes_the_callers_environment_and_nothing_else_does() {
    let musher = Musher::new();
    let script = musher.write("app.js", "console.log(JSON.stringify({ event: 'up', stage: process.env.STAGE })); setInterval(() => {}, 1000);");
    let run = |args: &[&str], stage: &str| {
        let output = musher.command(args).env("STAGE", stage).output();
        assert!(
            output.expect("the binary runs").status.success(),
            "{args:?}"
        );
    };
    run(
        &["start", script.to_str().expect("a path"), "--name", "app"],
        "one",
    );
    musher.wait_facts("app", "up", 1);
    run(&["restart", "app"], "two");
    musher.wait_facts("app", "up", 2);
    run(&["restart", "app", "--update-env"], "three");
    let facts = musher.wait_facts("app", "up", 3);
    let stages: Vec<&str> = facts.iter().filter_map(|f| f["stage"].as_str()).collect();
    assert_eq!(stages, ["one", "one", "three"]);
    kill(musher.pids("app")[0], "KILL");
    let facts = musher.wait_facts("app", "up", 4);
    assert_eq!(facts[3]["stage"], "three");
}
