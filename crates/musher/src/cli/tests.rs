//! Verbs end to end against a daemon that answers with canned JSON.

use super::caller::Caller;
use super::*;
use crate::daemon::PM2_VERSION;
use bytes::BytesMut;
use musher_core::wire::{amp, axon};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

/// What the canned daemon answers to one call: a value, or an error text.
type Answer = fn(&str, &Value) -> Result<Value, String>;

/// What both streams got.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// One command that ran.
struct Ran {
    code: u8,
    out: String,
    err: String,
    calls: Vec<(String, Value)>,
}

impl Ran {
    fn methods(&self) -> Vec<&str> {
        self.calls
            .iter()
            .map(|(method, _)| method.as_str())
            .collect()
    }

    fn argument(&self, method: &str) -> &Value {
        let found = self.calls.iter().find(|(name, _)| name == method);
        &found.unwrap_or_else(|| panic!("{method} was not called")).1
    }
}

struct World {
    home: TempDir,
    style: Style,
    answer: Option<Answer>,
}

fn world(answer: Answer) -> World {
    World {
        home: tempfile::tempdir().unwrap(),
        style: Style::Pm2,
        answer: Some(answer),
    }
}

impl World {
    fn run(&self, line: &str) -> Ran {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let home = self.home.path();
        let paths = Paths::find(self.style, |name| {
            (name == "MUSHER_HOME").then(|| home.as_os_str().to_owned())
        });
        let calls = Arc::new(Mutex::new(Vec::new()));
        if let Some(answer) = self.answer {
            let _ = std::fs::remove_file(&paths.rpc_sock);
            let listener = UnixListener::bind(&paths.rpc_sock).unwrap();
            let calls = calls.clone();
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    serve(stream, answer, &calls);
                }
            });
        }
        let (out, err) = (Sink::default(), Sink::default());
        let mut ctx = Context {
            paths,
            console: Console {
                style: self.style,
                out: Box::new(out.clone()),
                err: Box::new(err.clone()),
                color_out: false,
                color_err: false,
                silent: false,
                data_only: false,
                width: None,
            },
            parsed: Parsed::default(),
            caller: Caller::fake(
                vec![("SHELL_VAR".to_owned(), "1".to_owned())],
                home.display().to_string(),
            ),
            client: None,
        };
        let code = run(&mut ctx, &argv);
        let calls = calls.lock().unwrap().clone();
        Ran {
            code,
            out: out.text(),
            err: err.text(),
            calls,
        }
    }
}

fn serve(mut stream: UnixStream, answer: Answer, calls: &Mutex<Vec<(String, Value)>>) {
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    while let Ok(n) = stream.read(&mut chunk) {
        if n == 0 {
            return;
        }
        buffer.extend_from_slice(&chunk[..n]);
        while let Some(args) = amp::decode(&mut buffer).unwrap() {
            let request = axon::request(&args).unwrap();
            let method = request.body["method"].as_str().unwrap().to_owned();
            let argument = request.body["args"][0].clone();
            let answered = match answer(&method, &argument) {
                // Asked before every command; of interest to few tests.
                Ok(Value::Null) if method == "getVersion" => Ok(json!(PM2_VERSION)),
                answered => {
                    calls.lock().unwrap().push((method, argument));
                    answered
                }
            };
            let body = match answered {
                Ok(value) => json!({"args": [value]}),
                Err(text) => json!({"error": text}),
            };
            let _ = stream.write_all(&axon::reply_frame(&body, &request.id));
        }
    }
}

fn process(id: u32, name: &str, status: &str) -> Value {
    json!({
        "pid": 100 + id, "name": name, "pm_id": id, "monit": {"memory": 1024, "cpu": 0},
        "pm2_env": {
            "name": name, "pm_id": id, "namespace": "default", "status": status,
            "exec_mode": "fork_mode", "pm_exec_path": "/srv/app.js", "restart_time": 0,
            "pm_uptime": 0, "env": {"SECRET": "x"}, "instances": 1,
        },
    })
}

fn three(method: &str, argument: &Value) -> Result<Value, String> {
    match method {
        "getMonitorData" => Ok(json!([
            process(0, "api", "online"),
            process(1, "api", "online"),
            process(2, "web", "stopped"),
        ])),
        "ping" => Ok(json!({"msg": "pong"})),
        "stopProcessId" | "deleteProcessId" | "musherRetire" => match argument.as_u64() {
            Some(id @ 0..=2) => Ok(process(u32::try_from(id).unwrap(), "api", "stopped")),
            _ => Err(format!("{argument} : id unknown")),
        },
        "musherReload" => {
            let ids = argument["ids"].as_array().unwrap().iter();
            let done = |id| json!({"pm_id": id, "name": "api", "outcome": "replaced"});
            Ok(json!({"processes": ids.map(done).collect::<Vec<Value>>()}))
        }
        "restartProcessId" | "reloadProcessId" => {
            let id = argument["id"].as_u64().unwrap();
            Ok(process(u32::try_from(id).unwrap(), "api", "online"))
        }
        "prepare" => Ok(json!([process(3, "new", "online")])),
        _ => Ok(Value::Null),
    }
}

#[test]
fn stop_tells_what_it_does_in_the_words_of_pm2() {
    let ran = world(three).run("stop api");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "[PM2] Applying action stopProcessId on app [api](ids: [ 0, 1 ])",
            "[PM2] [api](0) ✓",
            "[PM2] [api](1) ✓",
        ]
    );
    assert!(lines[3].starts_with('┌'));
    assert!(!ran.out.contains('\u{1b}'));
}

#[test]
fn unknown_targets_end_with_the_text_of_pm2_on_stderr() {
    let world = world(three);
    for (line, expected) in [
        ("stop 77", "[PM2][ERROR] 77 : id unknown\n"),
        (
            "restart nope",
            "[PM2][ERROR] Process or Namespace nope not found\n",
        ),
        ("stop /nope/", "[PM2][WARN] No process found\n"),
        ("describe nope", "[PM2][WARN] nope doesn't exist\n"),
        ("env 77", "[PM2][ERROR] Modules with id 77 not found\n"),
        ("scale nope 2", "[PM2][ERROR] Application nope not found\n"),
        ("scale api 2", "[PM2][ERROR] Nothing to do\n"),
        (
            "logs nope --nostream",
            "[PM2][ERROR] Process or Namespace nope not found\n",
        ),
    ] {
        let ran = world.run(line);
        assert_eq!((ran.code, ran.err.as_str()), (1, expected), "{line}");
    }
    let ran = world.run("stop 77");
    assert!(
        ran.out.contains("on app [77](ids: [ '77' ])"),
        "{}",
        ran.out
    );
}

#[test]
fn the_first_failing_target_keeps_the_rest_from_being_touched() {
    let ran = world(three).run("stop nope web");
    assert_eq!(ran.code, 1);
    assert_eq!(ran.methods(), ["getMonitorData"]);
}

#[test]
fn a_restart_sends_only_what_was_typed() {
    let world = world(three);
    let plain = world.run("restart web");
    assert_eq!(
        plain.argument("restartProcessId"),
        &json!({"id": 2, "env": {"current_conf": {}}})
    );
    assert!(
        plain
            .out
            .starts_with("Use --update-env to update environment variables\n")
    );
    let full = world.run("restart web -a --max-memory-restart 200M --node-args=null -- b1 --x");
    assert_eq!(
        full.argument("restartProcessId"),
        &json!({"id": 2, "env": {
            "SHELL_VAR": "1",
            "current_conf": {"max_memory_restart": 209_715_200, "node_args": null, "args": ["b1", "--x"]},
        }})
    );
    let wrong = world.run("restart web --max-memory-restart potatoes");
    assert_eq!(wrong.code, 1);
    assert!(!wrong.methods().contains(&"restartProcessId"));
}

#[test]
fn a_failed_reload_stops_the_roll_and_says_why() {
    fn broken(method: &str, argument: &Value) -> Result<Value, String> {
        match method {
            "getMonitorData" => {
                let list = (0..5).map(|id| process(id, "api", "online"));
                Ok(Value::Array(list.collect()))
            }
            "musherReload" => Ok(json!({
                "reason": "api:1 exited with code 1",
                "processes": [
                    {"pm_id": 0, "name": "api", "outcome": "rolled back"},
                    {"pm_id": 1, "name": "api", "outcome": "failed"},
                    {"pm_id": 2, "name": "api", "outcome": "untouched"},
                ],
            })),
            _ => three(method, argument),
        }
    }
    let world = world(broken);
    let ran = world.run("reload api");
    assert_eq!(ran.code, 1);
    assert_eq!(ran.argument("musherReload")["ids"], json!([0, 1, 2, 3, 4]));
    assert!(
        ran.err.contains(
            "[PM2][ERROR] api:1 exited with code 1; left as they were: 2; rolled back: 0"
        ),
        "{}",
        ran.err
    );
    // The lock is free again.
    assert_eq!(
        std::fs::read_to_string(world.home.path().join("reload.lock")).unwrap(),
        ""
    );
}

#[test]
fn a_held_reload_lock_refuses_unless_forced_or_old() {
    let world = world(three);
    let lock = world.home.path().join("reload.lock");
    let now = musher_os::clock::now().wall.0;
    std::fs::write(&lock, now.to_string()).unwrap();
    let held = world.run("reload api");
    assert_eq!(held.code, 1);
    assert!(
        held.err
            .contains("Reload already in progress, please try again in"),
        "{}",
        held.err
    );
    assert_eq!(world.run("reload api -f").code, 0);
    std::fs::write(&lock, (now - 31_000).to_string()).unwrap();
    assert_eq!(world.run("reload api").code, 0);
}

#[test]
fn a_reload_goes_on_where_its_lock_cannot_be_written() {
    let world = world(three);
    std::fs::create_dir(world.home.path().join("reload.lock")).unwrap();
    let ran = world.run("reload api");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("going on without the reload lock"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("[api](1) ✓"), "{}", ran.out);
}

#[test]
fn smart_start_restarts_what_is_known() {
    let ran = world(three).run("start api");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out.lines().take(4).collect::<Vec<_>>(),
        [
            "[PM2] Applying action restartProcessId on app [api](ids: [ 0, 1 ])",
            "[PM2] [api](0) ✓",
            "[PM2] [api](1) ✓",
            "[PM2] Process successfully started",
        ]
    );
}

#[test]
fn a_script_is_prepared_with_what_the_line_says() {
    let world = world(three);
    let script = world.home.path().join("new.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let ran = world.run(&format!(
        "start {} --name fresh -k 3000 -- a b",
        script.display()
    ));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = ran.argument("prepare");
    assert_eq!(sent["name"], "fresh");
    assert_eq!(sent["kill_timeout"], 3000);
    assert_eq!(sent["args"], json!(["a", "b"]));
    assert!(
        ran.out
            .contains(" in fork_mode (1 instance)\n[PM2] Done.\n"),
        "{}",
        ran.out
    );
}

#[test]
fn a_config_file_restarts_what_is_known_and_starts_the_rest() {
    let world = world(three);
    let home = world.home.path().display();
    let script = format!("{home}/new.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let file = format!("{home}/apps.json");
    let apps = json!({"apps": [
        {"name": "web", "script": script, "env": {"A": "1"}},
        {"name": "fresh", "script": script},
    ]});
    std::fs::write(&file, apps.to_string()).unwrap();
    let ran = world.run(&format!("start {file}"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = ran.argument("restartProcessId");
    assert_eq!(sent["id"], 2);
    assert_eq!(sent["env"]["current_conf"]["env"]["A"], "1");
    assert!(sent["env"].get("SHELL_VAR").is_none());
    assert_eq!(ran.argument("prepare")["name"], "fresh");
    assert!(
        ran.out
            .contains("[PM2] App [fresh] launched (1 instances)\n"),
        "{}",
        ran.out
    );

    let only = world.run(&format!("start {file} --only fresh"));
    assert!(!only.methods().contains(&"restartProcessId"));
}

#[test]
fn a_file_with_mistakes_starts_nothing_and_tells_all_of_them() {
    let world = world(three);
    let file = world.home.path().join("bad.json");
    let apps = json!([
        {"name": "a", "script": "nowhere.js", "max_memory_restart": "5 potatoes"},
        {"name": "b", "script": "/bin/sh", "instances": {}},
    ]);
    std::fs::write(&file, apps.to_string()).unwrap();
    let ran = world.run(&format!("start {}", file.display()));
    assert_eq!(ran.code, 1);
    for mistake in [
        "max_memory_restart",
        "instances",
        "nowhere.js",
        "nothing was started",
    ] {
        assert!(ran.err.contains(mistake), "{mistake}: {}", ran.err);
    }
    assert!(!ran.methods().contains(&"prepare"));
}

#[test]
fn scale_duplicates_up_and_deletes_the_lowest_ids_down() {
    let world = world(three);
    let up = world.run("scale api +2");
    let calls: Vec<_> = up
        .calls
        .iter()
        .filter(|(name, _)| name == "duplicateProcessId")
        .collect();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|(_, id)| *id == 0));
    let down = world.run("scale api -1");
    assert_eq!(down.argument("musherRetire"), &json!(0));
    assert!(
        down.out
            .starts_with("[PM2] Applying action deleteProcessId on app [0](ids: [ 0 ])"),
        "{}",
        down.out
    );
}

#[test]
fn save_keeps_a_backup_and_leaves_ids_out() {
    let world = world(three);
    assert_eq!(world.run("save").code, 0);
    assert_eq!(world.run("dump").code, 0);
    let dump = std::fs::read_to_string(world.home.path().join("dump.pm2")).unwrap();
    assert!(world.home.path().join("dump.pm2.bak").exists());
    let entries: Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 3);
    assert!(entries[0].get("pm_id").is_none() && entries[0].get("instances").is_none());
    // Everything saved is known by name already.
    let ran = world.run("resurrect");
    assert_eq!(ran.code, 0);
    assert!(!ran.methods().contains(&"prepare"));
}

#[test]
fn ids_pids_ping_and_jlist_print_what_scripts_read() {
    let world = world(three);
    for (line, expected) in [
        ("id api", "[ 0, 1 ]\n"),
        ("id nope", "[]\n"),
        ("pid api", "100\n101\n"),
        ("pid nope", "\n"),
        ("ping", "{ msg: 'pong' }\n"),
    ] {
        let ran = world.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (0, expected), "{line}");
    }
    let list: Value = serde_json::from_str(&world.run("jlist").out).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert!(!world.run("prettylist -s").out.is_empty());
    assert_eq!(world.run("ls --silent").out, "");
}

#[test]
fn no_daemon_is_started_for_help_version_kill_and_mistakes() {
    let world = World {
        home: tempfile::tempdir().unwrap(),
        style: Style::Pm2,
        answer: None,
    };
    for (line, code) in [
        ("", 1),
        ("-h", 0),
        ("--version", 0),
        ("start -h", 0),
        ("strat x", 1),
        ("start --nope", 1),
        ("restart", 1),
        ("save extra", 1),
        ("kill", 0),
    ] {
        let ran = world.run(line);
        assert_eq!(ran.code, code, "{line}: {} {}", ran.out, ran.err);
        assert!(!world.home.path().join("start.lock").exists(), "{line}");
    }
    let typo = world.run("strat x");
    assert!(
        typo.out
            .starts_with("[PM2][ERROR] Command not found\n\nusage: pm2 "),
        "{}",
        typo.out
    );
    assert_eq!(typo.err, "did you mean `start`?\n");
}

#[test]
fn logs_tail_the_files_of_the_target_only() {
    fn with_logs(method: &str, argument: &Value) -> Result<Value, String> {
        let mut answer = three(method, argument)?;
        if method == "getMonitorData" {
            // The daemon's home is not known here: relative paths, as the test
            // runs in one directory for all.
            answer[2]["pm2_env"]["pm_out_log_path"] = json!(log_file());
        }
        Ok(answer)
    }
    fn log_file() -> String {
        let name = format!("musher-cli-test-{}.log", std::process::id());
        std::env::temp_dir().join(name).display().to_string()
    }
    std::fs::write(log_file(), "one\ntwo\nthree\n").unwrap();
    let ran = world(with_logs).run("logs web --nostream --lines 2");
    std::fs::remove_file(log_file()).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let expected = format!(
        "[TAILING] Tailing last 2 lines for [web] process (change the value with --lines option)\n\
         {} last 2 lines:\n2|web      | two\n2|web      | three\n\n",
        log_file()
    );
    assert_eq!(ran.out, expected);
}

#[test]
fn what_is_not_in_this_version_says_so() {
    let world = world(three);
    let refused = world.run("deploy production");
    assert_eq!(refused.code, 1);
    assert_eq!(
        refused.err,
        "[PM2][ERROR] `deploy` is not in this version\n"
    );
    let told = world.run("stop web --attach");
    assert_eq!(told.code, 0);
    assert!(
        told.err.contains("--attach is accepted but has no effect"),
        "{}",
        told.err
    );
}

#[test]
fn kill_deletes_everything_and_waits_for_the_end() {
    fn mortal(method: &str, argument: &Value) -> Result<Value, String> {
        if method == "killMe" {
            // The thread of the connection ends and with it the connection.
            panic!("the daemon ends as it was told");
        }
        three(method, argument)
    }
    let world = world(mortal);
    let ran = world.run("kill");
    let n_deletes = ran
        .methods()
        .iter()
        .filter(|name| **name == "deleteProcessId")
        .count();
    assert_eq!(n_deletes, 3);
    assert_eq!(ran.methods()[0], "notifyKillPM2");
    assert!(
        ran.out.contains("[PM2] [v] All Applications Stopped\n"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.ends_with("[PM2] [v] PM2 Daemon Stopped\n"),
        "{} {}",
        ran.out,
        ran.err
    );
    assert_eq!(ran.code, 0);
}

#[test]
fn a_daemon_of_another_version_is_told_on_stderr_as_pm2_only() {
    fn old(method: &str, argument: &Value) -> Result<Value, String> {
        match method {
            "getVersion" => Ok(json!("5.4.3")),
            _ => three(method, argument),
        }
    }
    let mut world = world(old);
    let ran = world.run("jlist");
    assert!(ran.out.starts_with('['), "{}", ran.out);
    assert!(
        ran.err.contains("In memory PM2 version: 5.4.3\n"),
        "{}",
        ran.err
    );
    world.style = Style::Musher;
    assert_eq!(world.run("jlist").err, "");
}

#[test]
fn options_without_an_effect_are_told_once() {
    let world = world(three);
    for line in [
        "restart web --watch",
        "restart web --watch --watch src",
        "restart web --watch --ignore-watch node_modules",
    ] {
        let ran = world.run(line);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let n_told = ran.err.matches("no effect in this version").count();
        assert_eq!(n_told, 1, "{line}: {}", ran.err);
    }
    assert_eq!(world.run("list --watch").err, "");
    assert_eq!(world.run("stop web").err, "");
}

#[test]
fn completion_knows_every_verb_of_the_help_in_three_shells() {
    let world = World {
        home: tempfile::tempdir().unwrap(),
        style: Style::Musher,
        answer: None,
    };
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.run(&format!("completion {shell}"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        for verb in verbs::VERBS {
            assert!(ran.out.contains(verb.name), "{shell}: {}", verb.name);
        }
        for option in ["--lines", "max-memory-restart"] {
            let long = option.trim_start_matches('-');
            assert!(ran.out.contains(long), "{shell}: {option}");
        }
    }
    let ran = world.run("completion install");
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("musher completion bash"), "{}", ran.err);
}

#[test]
fn blocks_come_in_the_order_of_ids_unless_asked_otherwise() {
    fn two(method: &str, argument: &Value) -> Result<Value, String> {
        match method {
            "getMonitorData" => Ok(json!([
                process(0, "web", "online"),
                process(1, "api", "online"),
            ])),
            _ => three(method, argument),
        }
    }
    let world = world(two);
    for (line, expected) in [
        ("list -m", ["web", "api"]),
        ("list -m --sort name", ["api", "web"]),
    ] {
        let out = world.run(line).out;
        let names: Vec<&str> = out
            .lines()
            .filter_map(|line| line.strip_prefix("+--- "))
            .collect();
        assert_eq!(names, expected, "{line}");
    }
}
