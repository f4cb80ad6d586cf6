//! Fork mode, attribute by attribute: who runs, where, with what.

use crate::harness::{Musher, is_alive};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A script that prints one JSON fact about itself and lives on.
const REPORT: &str = "console.log(JSON.stringify({ event: 'up', argv: process.argv.slice(2), \
    execArgv: process.execArgv, cwd: process.cwd(), env: process.env, ipc: !!process.send, \
    uid: process.getuid(), gid: process.getgid(), groups: process.getgroups() }));\n\
    setInterval(() => {}, 1000);\n";

/// Starts one app from a config and returns its first fact.
fn reported(musher: &Musher, app: &Value) -> Value {
    musher.start(&format!("module.exports = {{ apps: [{app}] }};"));
    musher.wait_facts("app", "up", 1).remove(0)
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().expect("an array");
    list.iter().filter_map(Value::as_str).collect()
}

#[test]
fn args_keep_their_spaces_and_quotes() {
    let hard = [
        "two words",
        "it's",
        "a \"quoted\" word",
        "$HOME",
        "",
        "--name",
        "h\u{e9}",
    ];
    let musher = Musher::new();
    let script = musher.write("app.js", REPORT);
    let fact = reported(
        &musher,
        &json!({ "name": "app", "script": script, "args": hard }),
    );
    assert_eq!(strings(&fact["argv"]), hard);

    let musher = Musher::new();
    let script = musher.write("app.js", REPORT);
    let mut line = vec!["start", text(&script), "--name", "app", "--"];
    line.extend(hard);
    musher.ok(&line);
    assert_eq!(strings(&musher.wait_facts("app", "up", 1)[0]["argv"]), hard);

    let musher = Musher::new();
    let script = musher.write("app.js", REPORT);
    let split =
        json!({ "name": "app", "script": script, "args": "-p 80 \"two words\" 'one word'" });
    let fact = reported(&musher, &split);
    assert_eq!(
        strings(&fact["argv"]),
        ["-p", "80", "two words", "one word"]
    );
}

#[test]
fn cwd_is_the_apps_and_relative_paths_start_there() {
    let musher = Musher::new();
    musher.write("deep/er/app.js", REPORT);
    let cwd = musher.cwd().join("deep");
    let app = json!({ "name": "app", "cwd": cwd, "script": "er/app.js" });
    let fact = reported(&musher, &app);
    assert_eq!(fact["cwd"], text(&cwd.canonicalize().expect("it exists")));
    assert_eq!(fact["env"]["PWD"], text(&cwd));
}

#[test]
fn the_environment_is_the_callers_and_nothing_of_the_daemons() {
    let musher = Musher::new();
    let script = musher.write("app.js", REPORT);
    let first = musher.command(&["ping"]).env("OF_THE_DAEMON", "1").output();
    assert!(first.expect("the binary runs").status.success());
    let app = json!({ "name": "app", "script": script,
        "env": { "PORT": 8080, "FLAG": true, "DEEP": { "a": [1] }, "TEXT": "caf\u{e9} =x" } });
    let config = musher.write("ecosystem.config.js", &format!("module.exports = {app};"));
    let output = musher
        .command(&["start", text(&config)])
        .env("OF_THE_CALLER", "2")
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    let env = musher.wait_facts("app", "up", 1).remove(0)["env"].take();
    assert_eq!(env["OF_THE_CALLER"], "2");
    assert_eq!(env["OF_THE_DAEMON"], Value::Null);
    assert_eq!(env["PORT"], "8080");
    assert_eq!(env["FLAG"], "true");
    assert_eq!(env["DEEP"], "{\"a\":[1]}");
    assert_eq!(env["TEXT"], "caf\u{e9} =x");
    assert_eq!(env["pm_id"], "0");
    assert_eq!(env["NODE_APP_INSTANCE"], "0");
    let inner = env.as_object().expect("an object");
    let leaked: Vec<&String> = inner
        .keys()
        .filter(|k| k.starts_with("MUSHER_KEEPER"))
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[test]
fn arguments_for_the_interpreter_stand_before_the_script() {
    let arg = "--max-old-space-size=64";
    for (key, value) in [
        ("node_args", json!([arg])),
        ("interpreter_args", json!(arg)),
        ("nodeArgs", json!(arg)),
    ] {
        let musher = Musher::new();
        let script = musher.write("app.js", REPORT);
        let mut app = json!({ "name": "app", "script": script, "args": "--after" });
        app[key] = value;
        let fact = reported(&musher, &app);
        assert!(strings(&fact["execArgv"]).contains(&arg), "{key}: {fact}");
        assert_eq!(strings(&fact["argv"]), ["--after"], "{key}");
    }
}

#[test]
fn an_executable_without_extension_runs_by_its_shebang() {
    let musher = Musher::new();
    let script = musher.write(
        "tool",
        "#!/bin/sh\necho \"ran by shebang $1\"\nexec sleep 1000\n",
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    musher.ok(&[
        "start",
        text(&script),
        "--name",
        "plain",
        "--interpreter",
        "none",
        "--",
        "one",
    ]);
    musher.wait("its output", || {
        musher.log_has("plain", "ran by shebang one")
    });
    let process = &musher.of("plain")[0]["pm2_env"];
    assert_eq!(process["exec_interpreter"], "none");
    assert_eq!(process["exec_mode"], "fork_mode");
}

#[test]
fn python_shows_its_output_at_once() {
    let musher = Musher::new();
    let script = musher.write(
        "app.py",
        "import time\nprint('unbuffered')\ntime.sleep(1000)\n",
    );
    musher.ok(&["start", text(&script), "--name", "py"]);
    musher.wait("a line of a live process", || {
        musher.log_has("py", "unbuffered")
    });
    assert_eq!(musher.of("py")[0]["pm2_env"]["restart_time"], 0);
}

#[test]
fn a_text_with_spaces_is_a_shell_command() {
    let musher = Musher::new();
    musher.ok(&[
        "start",
        "echo \"a  b\" | tr a-z A-Z; sleep 1000",
        "--name",
        "shell",
    ]);
    musher.wait("the pipe's output", || musher.log_has("shell", "A  B"));
    let pid = musher.pids("shell")[0];
    musher.ok(&["stop", "shell"]);
    assert!(!is_alive(pid));
}

#[test]
fn a_forked_node_app_says_ready_and_gets_the_shutdown_message() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "const up = Date.now(); setTimeout(() => process.send('ready'), 400);\n\
         process.on('message', (m) => { console.log(`message ${m}`); process.exit(0); });\n",
    );
    let app = json!({ "name": "app", "script": script, "exec_mode": "fork", "wait_ready": true,
                      "listen_timeout": 10000, "shutdown_with_message": true });
    let begin = std::time::Instant::now();
    musher.start(&format!("module.exports = {app};"));
    let took = begin.elapsed().as_millis();
    assert!((400..10_000).contains(&took), "ready after {took} ms");
    musher.wait_status("app", 1, "online");
    musher.ok(&["stop", "app"]);
    musher.wait("the message", || musher.log_has("app", "message shutdown"));
}

#[test]
fn without_treekill_only_the_main_process_is_signalled() {
    for treekill in [false, true] {
        let musher = Musher::new();
        let script = musher.write("app.sh", "sleep 1000 &\necho $! > child.pid\nwait\n");
        let app = json!({ "name": "app", "script": script, "treekill": treekill });
        musher.start(&format!("module.exports = {app};"));
        let file = musher.cwd().join("child.pid");
        let child: i64 = musher.wait("a child", || {
            std::fs::read_to_string(&file).ok()?.trim().parse().ok()
        });
        let main = musher.pids("app")[0];
        musher.ok(&["stop", "app"]);
        assert!(!is_alive(main), "treekill {treekill}");
        assert_eq!(is_alive(child), !treekill, "treekill {treekill}");
        if is_alive(child) {
            crate::harness::kill(child, "KILL");
        }
    }
}

/// Returns uid and gid of `nobody`; `None` when this user cannot change users.
fn nobody() -> Option<(u64, u64)> {
    let uid = std::fs::metadata("/proc/self").ok()?.uid();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("nobody:"))?;
    let mut fields = line.split(':').skip(2);
    let ids = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (uid == 0).then_some(ids)
}

#[test]
fn an_app_runs_as_the_user_it_names_and_owns_what_it_writes() {
    let Some((uid, gid)) = nobody() else {
        eprintln!("skipped: only root changes users");
        return;
    };
    let home = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let file = home.path().join("mine");
    let script = home.path().join("app.js");
    let write = format!("require('fs').writeFileSync({file:?}, 'x');\n{REPORT}");
    std::fs::write(&script, write).expect("a script");
    for (mode, uid_of) in [("fork", json!("nobody")), ("cluster", json!(uid))] {
        let _ = std::fs::remove_file(&file);
        let musher = Musher::new();
        let app = json!({ "name": "app", "script": script, "cwd": home.path(),
                          "uid": uid_of, "exec_mode": mode });
        let fact = reported(&musher, &app);
        assert_eq!(
            (fact["uid"].as_u64(), fact["gid"].as_u64()),
            (Some(uid), Some(gid)),
            "{mode}"
        );
        let groups: Vec<u64> = fact["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        assert!(
            !groups.contains(&0),
            "{mode} keeps root's groups: {groups:?}"
        );
        let owner = std::fs::metadata(&file).expect("the file it wrote");
        assert_eq!(
            (u64::from(owner.uid()), u64::from(owner.gid())),
            (uid, gid),
            "{mode}"
        );
        assert_ne!(
            fact["env"]["HOME"],
            text(musher.home().parent().expect("a parent")),
            "{mode}"
        );
    }
}

#[test]
fn an_unknown_user_is_told_and_nothing_starts() {
    let musher = Musher::new();
    let script = musher.write("app.js", REPORT);
    let ran = musher.run(&["start", text(&script), "--uid", "no-such-user"]);
    assert_eq!(ran.code, 1);
    if nobody().is_some() {
        assert!(
            ran.stderr.contains("User no-such-user cannot be found"),
            "{}",
            ran.stderr
        );
    }
    assert!(musher.list().is_empty());
}
