//! A daemon killed at any moment: the next one goes on where it stopped.

use crate::cluster::{Load, started};
use crate::harness::{Musher, free_port, get, is_alive, kill};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Returns the numbers of `tick` lines.
pub(crate) fn ticks(log: &str) -> Vec<u64> {
    let numbers = log.lines().map(|line| {
        let number = line.strip_prefix("tick ").and_then(|n| n.parse().ok());
        number.unwrap_or_else(|| panic!("a broken line: {line:?}"))
    });
    numbers.collect()
}

#[test]
fn ten_kills_lose_no_line_and_double_none() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    for _ in 0..10 {
        musher.kill_daemon();
        let seen = ticks(&musher.log("tick-out.log")).len();
        musher.wait("lines after the kill", || {
            (ticks(&musher.log("tick-out.log")).len() > seen + 5).then_some(())
        });
    }
    musher.ok(&["stop", "tick"]);
    let numbers = ticks(&musher.log("tick-out.log"));
    let expected: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    assert_eq!(musher.of("tick")[0]["pm2_env"]["restart_time"], 0);
}

#[test]
fn a_cluster_answers_through_the_kills() {
    const KILLS: usize = 4;
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        let before = musher.pids("api");
        let load = Load::on(port);
        for _ in 0..KILLS {
            musher.kill_daemon();
            let n_before = load.n_ok();
            musher.wait("answers after the kill", || {
                (load.n_ok() > n_before + 5).then_some(())
            });
        }
        let (n_ok, failures) = load.end();
        // In round-robin a connection is the daemon's from its acceptance until
        // a worker has it: then a kill may cost what each client has in flight.
        let allowed = if mode == "round-robin" {
            KILLS * Load::N_CLIENTS
        } else {
            0
        };
        assert!(
            failures.len() <= allowed,
            "{mode}: {} of {n_ok}: {failures:?}",
            failures.len()
        );
        assert_eq!(musher.pids("api"), before, "{mode}");
    }
}

#[test]
fn reload_stop_and_restart_work_after_a_takeover() {
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        let first: BTreeSet<i64> = musher.pids("api").into_iter().collect();
        musher.kill_daemon();
        let load = Load::on(port);
        musher.ok(&["reload", "api"]);
        let (n_ok, failures) = load.end();
        assert!(
            failures.is_empty(),
            "{mode}: {} of {n_ok}: {failures:?}",
            failures.len()
        );
        let second: BTreeSet<i64> = musher.pids("api").into_iter().collect();
        assert_eq!(second.len(), 2, "{mode}");
        assert!(first.is_disjoint(&second), "{mode}");
        musher.kill_daemon();
        musher.ok(&["stop", "api"]);
        musher.wait_status("api", 2, "stopped");
        assert!(second.iter().all(|pid| !is_alive(*pid)), "{mode}");
        musher.wait(&format!("{mode}: nobody listens"), || get(port, "/").err());
        musher.kill_daemon();
        musher.ok(&["restart", "api"]);
        musher.wait_status("api", 2, "online");
        assert!(get(port, "/").is_ok(), "{mode}");
    }
}

#[test]
fn messages_still_reach_workers_after_a_takeover() {
    let musher = Musher::new();
    let env = json!({ "APP_CASE": "http", "APP_PORT": free_port() });
    let app =
        json!({ "name": "app", "script": Musher::app("features.cjs"), "instances": 2, "env": env });
    musher.start(&format!("module.exports = {app};"));
    musher.wait_facts("app", "listening", 2);
    musher.kill_daemon();
    let packet = json!({ "id": 0, "type": "process:msg", "topic": "t", "data": 7 });
    musher
        .rpc("sendDataToProcessId", &json!([packet]))
        .expect("it is sent");
    let got = musher.wait_facts("app", "got", 1);
    assert_eq!(got[0]["message"]["data"], 7);
}

#[test]
fn a_delayed_restart_pending_at_the_kill_still_happens_once() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "const fs = require('fs'); fs.appendFileSync('starts', 'x');\n\
         if (fs.readFileSync('starts').length === 1) process.exit(1);\n\
         setInterval(() => {}, 1000);\n",
    );
    let app = json!({ "name": "app", "script": script, "restart_delay": 1500 });
    musher.start(&format!("module.exports = {app};"));
    musher.wait_status("app", 1, "waiting restart");
    musher.kill_daemon();
    musher.wait_status("app", 1, "waiting restart");
    let list = musher.wait_status("app", 1, "online");
    assert_eq!(list[0]["pm2_env"]["restart_time"], 1);
    musher.wait("the second start", || {
        let starts = std::fs::read_to_string(musher.cwd().join("starts")).ok()?;
        (starts.len() == 2).then_some(())
    });
}

#[test]
fn stopped_stays_stopped_and_errored_stays_errored() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "off"]);
    musher.ok(&["stop", "off"]);
    musher.ok(&["start", &Musher::app("crash.js"), "--name", "bad"]);
    musher.wait_status("bad", 1, "errored");
    for _ in 0..3 {
        musher.kill_daemon();
        assert_eq!(musher.of("off")[0]["pm2_env"]["status"], "stopped");
        assert_eq!(musher.of("bad")[0]["pm2_env"]["status"], "errored");
        assert_eq!(musher.of("bad")[0]["pm2_env"]["restart_time"], 15);
        assert!(musher.pids("off").is_empty() && musher.pids("bad").is_empty());
    }
    musher.ok(&["restart", "off"]);
    musher.wait_status("off", 1, "online");
}

#[test]
fn an_app_that_ends_while_no_daemon_lives_is_restarted_and_counted_once() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let before = musher.pids("tick")[0];
    let daemon = i64::from(musher.daemon_pid());
    kill(daemon, "KILL");
    kill(before, "KILL");
    musher.wait("a replacement", || {
        let list = musher.of("tick");
        let pid = list.first()?["pid"].as_i64()?;
        (pid > 0 && pid != before && list[0]["pm2_env"]["status"] == "online").then_some(())
    });
    assert_eq!(musher.of("tick")[0]["pm2_env"]["restart_time"], 1);
}

#[test]
fn what_start_said_survives_a_kill_right_after() {
    let musher = Musher::new();
    for i in 0..5 {
        let name = format!("app{i}");
        musher.ok(&[
            "start",
            &Musher::app("silent.js"),
            "--name",
            &name,
            "-i",
            "2",
        ]);
        kill(i64::from(musher.daemon_pid()), "KILL");
    }
    musher.wait("the last takeover", || {
        (musher.run(&["ping"]).code == 0).then_some(())
    });
    for i in 0..5 {
        let list = musher.wait_status(&format!("app{i}"), 2, "online");
        assert!(
            list.iter().all(|p| p["pm2_env"]["restart_time"] == 0),
            "{list:?}"
        );
    }
    let pids: BTreeSet<i64> = (0..5)
        .flat_map(|i| musher.pids(&format!("app{i}")))
        .collect();
    assert_eq!(pids.len(), 10);
    assert_eq!(children_named(&musher, "silent.js"), 10, "no second copies");
}

/// Counts the living processes of this home whose command line has `word`.
fn children_named(musher: &Musher, word: &str) -> usize {
    let home = format!("PM2_HOME={}\0", musher.home().display());
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter(|entry| {
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let is_app = read("environ").contains(&home) && read("cmdline").contains(word);
        is_app && !read("cmdline").contains("pm2_home")
    })
    .count()
}

#[test]
fn another_user_is_hung_up_on() {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout == b"0\n");
    if !is_root {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "app"]);
    let before = musher.pids("app");
    // The modes of the files would keep the stranger out before the daemon does.
    let home = musher.home();
    for (path, mode) in [
        (home.parent().expect("a parent").to_owned(), 0o755),
        (home.clone(), 0o755),
        (home.join("rpc.sock"), 0o666),
        (home.join("pub.sock"), 0o666),
    ] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let client = "const body = 'j:' + JSON.stringify({ type: 'call', method: process.argv[2], args: [0] });\n\
        const arg = (s) => { const b = Buffer.alloc(4); b.writeUInt32BE(s.length); return Buffer.concat([b, Buffer.from(s)]); };\n\
        const socket = require('net').connect(process.argv[1]);\n\
        socket.on('connect', () => socket.write(Buffer.concat([Buffer.from([0x12]), arg(body), arg('s:1')])));\n\
        socket.on('data', () => { console.log('answered'); process.exit(); });\n\
        socket.on('error', (e) => console.log('error', e.code));\n\
        socket.on('close', () => { console.log('closed'); process.exit(); });\n";
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    for (user, socket, method, expected) in [
        (&[][..], "rpc.sock", "ping", "answered"),
        (&as_nobody, "rpc.sock", "ping", "closed"),
        (&as_nobody, "rpc.sock", "stopProcessId", "closed"),
        (&as_nobody, "pub.sock", "ping", "closed"),
    ] {
        let output = Command::new("setpriv")
            .args(user)
            .args(["node", "-e", client])
            .arg(home.join(socket))
            .arg(method)
            .output()
            .expect("setpriv runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.trim().ends_with(expected),
            "{socket} {method}: {output:?}"
        );
    }
    assert_eq!(musher.pids("app"), before);
}

#[test]
fn a_damaged_state_is_set_aside_and_the_saved_list_takes_its_place() {
    for is_running in [false, true] {
        let musher = Musher::new();
        musher.ok(&["start", &Musher::app("silent.js"), "--name", "app"]);
        musher.ok(&["save"]);
        let pid = musher.pids("app")[0];
        let state = musher.home().join("state.db");
        if !is_running {
            musher.ok(&["kill"]);
        }
        for ending in ["", "-wal", "-shm"] {
            let path = state.with_file_name(format!("state.db{ending}"));
            if path.exists() {
                std::fs::write(&path, vec![0x5a; 8192]).expect("damage");
            }
        }
        if is_running {
            musher.kill_daemon();
        } else {
            std::fs::write(&state, vec![0x5a; 8192]).expect("damage");
            musher.ok(&["ping"]);
        }
        let log = std::fs::read_to_string(musher.home().join("pm2.log")).expect("a log");
        assert!(
            log.contains("damaged") && log.contains("starting what was saved"),
            "{log}"
        );
        let aside = std::fs::read_dir(musher.home())
            .expect("the home")
            .flatten();
        let aside = aside.filter(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with("state.db.") || name.contains("damaged") || name.contains("corrupt")
        });
        assert!(aside.count() >= 1, "the damaged file is kept");
        musher.wait("no process without a supervisor", || {
            (!is_alive(pid)).then_some(())
        });
        musher.wait_status("app", 1, "online");
    }
}

#[test]
fn a_damaged_record_costs_no_app_that_was_saved() {
    let musher = Musher::new();
    for name in ["one", "two"] {
        musher.ok(&["start", &Musher::app("silent.js"), "--name", name]);
    }
    musher.ok(&["save"]);
    let one = musher.pids("one");
    let state = musher.home().join("state.db");
    let sql = "UPDATE process SET record = '{' WHERE pm_id = 1";
    let code =
        "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as d: d.execute(sys.argv[2])\n";
    let damage = Command::new("python3")
        .args(["-c", code])
        .arg(&state)
        .arg(sql)
        .status();
    assert!(damage.is_ok_and(|status| status.success()));
    musher.kill_daemon();
    musher.wait_status("two", 1, "online");
    assert_eq!(musher.pids("one"), one, "the record of the other was whole");
}

#[test]
fn kill_ends_apps_that_ignore_signals() {
    let musher = Musher::new();
    let script = Musher::app("stubborn.js");
    musher.ok(&[
        "start",
        &script,
        "--name",
        "mule",
        "-i",
        "3",
        "--kill-timeout",
        "300",
    ]);
    musher.wait_status("mule", 3, "online");
    let pids = musher.pids("mule");
    musher.ok(&["kill"]);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    assert!(!musher.home().join("rpc.sock").exists());
}

#[test]
fn the_word_of_a_daemon_that_ends_by_signal_is_kept() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "app"]);
    let app = musher.pids("app")[0];
    kill(i64::from(musher.daemon_pid()), "TERM");
    musher.wait("the daemon ends with its apps", || {
        (!is_alive(app) && !musher.home().join("rpc.sock").exists()).then_some(())
    });
    musher.ok(&["resurrect"]);
    musher.wait_status("app", 1, "online");
}
