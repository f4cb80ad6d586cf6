//! A killed keeper: the daemon starts another, and nothing is lost by the next
//! death of the daemon either.

use crate::cluster::{Load, started};
use crate::failpoints::living;
use crate::harness::{Musher, is_alive, kill};
use crate::takeover::ticks;
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What the daemon says when another keeper holds everything.
const REPAIRED: &str = "another keeper holds everything again";

/// A program that is no Node app: it ignores SIGPIPE, has no use for its IPC
/// channel, and marks each of its starts.
const DEAF: &str = "#!/usr/bin/env python3\n\
    import os, signal, time\n\
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n\
    open('starts', 'a').write('%d\\n' % os.getpid())\n\
    while True:\n\
    \x20   try: os.write(1, b'alive\\n')\n\
    \x20   except OSError: pass\n\
    \x20   time.sleep(0.02)\n";

impl Musher {
    /// Returns the pids of the living keepers of this home.
    fn keepers(&self) -> Vec<i64> {
        let home = self.home();
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        all.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let words: Vec<&str> = line.split('\0').collect();
            (words.get(1..4)? == ["keeper", "--home", home.to_str()?]).then_some(pid)
        })
        .filter(|pid| is_alive(*pid))
        .collect()
    }

    fn keeper(&self) -> i64 {
        let keepers = self.keepers();
        assert_eq!(keepers.len(), 1, "{keepers:?}\n{}", self.evidence());
        keepers[0]
    }

    /// Returns how often this text is in the daemon's log.
    fn n_said(&self, text: &str) -> usize {
        let log = std::fs::read_to_string(self.home().join("pm2.log")).unwrap_or_default();
        log.matches(text).count()
    }

    /// Kills the keeper with SIGKILL and waits until another holds everything.
    fn kill_keeper(&self) -> i64 {
        let (before, n_repaired) = (self.keeper(), self.n_said(REPAIRED));
        kill(before, "KILL");
        self.wait("another keeper", || {
            (self.n_said(REPAIRED) > n_repaired).then_some(())
        });
        let after = self.keeper();
        assert_ne!(before, after);
        after
    }

    /// Kills daemon and keeper, so that neither can start the other.
    fn kill_both(&self) {
        let (daemon, keeper) = (i64::from(self.daemon_pid()), self.keeper());
        kill(keeper, "STOP");
        kill(daemon, "KILL");
        kill(keeper, "KILL");
        self.wait("both dead", || {
            (!is_alive(daemon) && !is_alive(keeper)).then_some(())
        });
    }
}

#[test]
fn a_killed_keeper_is_replaced_and_nothing_is_lost_by_the_next_death_of_the_daemon() {
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
        let (api, tick) = (musher.pids("api"), musher.pids("tick"));
        let daemon = musher.daemon_pid();
        let load = Load::on(port);
        musher.kill_keeper();
        assert_eq!(musher.daemon_pid(), daemon, "{mode}");
        let (_, failures) = load.end();
        assert!(failures.is_empty(), "{mode}: {failures:?}");
        let load = Load::on(port);
        musher.kill_daemon();
        let n_before = load.n_ok();
        musher.wait("answers after the kill", || {
            (load.n_ok() > n_before + 5).then_some(())
        });
        let (n_ok, failures) = load.end();
        let allowed = if mode == "round-robin" {
            Load::N_CLIENTS
        } else {
            0
        };
        assert!(failures.len() <= allowed, "{mode}: of {n_ok}: {failures:?}");
        assert_eq!(musher.pids("api"), api, "{mode}");
        assert_eq!(musher.pids("tick"), tick, "{mode}");
        let seen = ticks(&musher.log("tick-out.log")).len();
        musher.wait("lines after the kill", || {
            (ticks(&musher.log("tick-out.log")).len() > seen + 5).then_some(())
        });
        let load = Load::on(port);
        musher.ok(&["reload", "api"]);
        let (n_ok, failures) = load.end();
        assert!(failures.is_empty(), "{mode}: of {n_ok}: {failures:?}");
        let reloaded: BTreeSet<i64> = musher.pids("api").into_iter().collect();
        assert!(api.iter().all(|pid| !reloaded.contains(pid)), "{mode}");
        musher.ok(&["stop", "tick"]);
        let numbers = ticks(&musher.log("tick-out.log"));
        let expected: Vec<u64> = (0..numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "{mode}");
    }
}

#[test]
fn ten_killed_keepers_in_a_row_are_replaced_and_the_last_one_holds_everything() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let (before, daemon) = (musher.pids("tick"), musher.daemon_pid());
    for _ in 0..10 {
        musher.kill_keeper();
        assert_eq!(musher.pids("tick"), before);
    }
    assert_eq!(musher.daemon_pid(), daemon);
    assert_eq!(musher.n_said("the keeper is gone"), 10);
    musher.kill_daemon();
    let seen = ticks(&musher.log("tick-out.log")).len();
    musher.wait("lines after the kill", || {
        (ticks(&musher.log("tick-out.log")).len() > seen + 5).then_some(())
    });
    assert_eq!(musher.pids("tick"), before);
    musher.ok(&["stop", "tick"]);
    let numbers = ticks(&musher.log("tick-out.log"));
    let expected: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn an_app_of_a_lost_keeper_and_a_lost_daemon_still_restarts_when_it_ends() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "app"]);
    let first = musher.pids("app")[0];
    musher.kill_keeper();
    musher.kill_daemon();
    assert_eq!(musher.pids("app"), [first]);
    kill(first, "KILL");
    let list = musher.wait("a replacement", || {
        let list = musher.of("app");
        let pid = list.first()?["pid"].as_i64()?;
        (pid > 0 && pid != first && list[0]["pm2_env"]["status"] == "online").then_some(list)
    });
    assert_eq!(list[0]["pm2_env"]["restart_time"], 1);
}

#[test]
fn kill_right_after_the_keeper_died_leaves_nothing_behind() {
    for n_ms in 0..8 {
        let musher = Musher::new();
        musher.ok(&["start", &Musher::app("silent.js"), "--name", "app"]);
        let (app, daemon) = (musher.pids("app")[0], i64::from(musher.daemon_pid()));
        kill(musher.keeper(), "KILL");
        // Not to wait for anything, but to hit every stage of the repair.
        std::thread::park_timeout(Duration::from_millis(n_ms));
        musher.ok(&["kill"]);
        musher.wait("nobody left", || {
            let is_over = !is_alive(app) && !is_alive(daemon) && musher.keepers().is_empty();
            is_over.then_some(())
        });
        assert!(!musher.home().join("rpc.sock").exists());
    }
}

#[test]
fn both_killed_leaves_one_copy_that_is_kept_and_said_to_be_mute() {
    let musher = Musher::new();
    let script = musher.write("deaf.py", DEAF);
    let script = script.to_str().expect("a path");
    musher.ok(&[
        "start",
        script,
        "--name",
        "deaf",
        "--interpreter",
        "python3",
    ]);
    musher.wait("output", || musher.log_has("deaf", "alive"));
    let before = musher.pids("deaf");
    musher.kill_both();
    for _ in 0..2 {
        let list = musher.wait_status("deaf", 1, "online");
        assert_eq!(musher.pids("deaf"), before);
        assert_eq!(list[0]["pm2_env"]["restart_time"], 0);
        assert!(
            musher.ok(&["describe", "deaf"]).contains("not captured"),
            "{list:?}"
        );
        musher.kill_daemon();
    }
    assert_eq!(musher.n_said("lives on, but its output is not captured"), 3);
    let starts = || {
        let text = std::fs::read_to_string(musher.cwd().join("starts")).expect("starts");
        text.lines().count()
    };
    assert_eq!(starts(), 1, "a second copy");
    let seen = musher.log("deaf-out.log").len();
    musher.ok(&["restart", "deaf"]);
    musher.wait_status("deaf", 1, "online");
    musher.wait("output of the restarted app", || {
        (musher.log("deaf-out.log").len() > seen).then_some(())
    });
    assert!(!is_alive(before[0]));
    assert_eq!(starts(), 2);
    assert!(!musher.ok(&["describe", "deaf"]).contains("not captured"));
}

#[test]
fn both_killed_brings_a_cluster_back_once() {
    let (musher, port) = started("even");
    let silent = json!({ "name": "fork", "script": Musher::app("silent.js") });
    let path = musher.write("fork.config.js", &format!("module.exports = {silent};"));
    musher.ok(&["start", path.to_str().expect("a path")]);
    let (workers, fork) = (musher.pids("api"), musher.pids("fork"));
    musher.kill_both();
    musher.wait("workers that hear the end of their channel", || {
        workers.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    musher.wait_status("api", 2, "online");
    let load = Load::on(port);
    musher.wait("answers", || (load.n_ok() > 20).then_some(()));
    let (n_ok, failures) = load.end();
    assert!(
        failures.is_empty(),
        "{} of {n_ok}, the first {:?}; {}",
        failures.len(),
        failures.first(),
        musher.evidence()
    );
    assert_eq!(
        musher.pids("fork"),
        fork,
        "a Node app without a cluster lives on"
    );
    musher.ok(&["reload", "all"]);
    musher.wait_status("fork", 1, "online");
    assert!(!is_alive(fork[0]));
}

#[test]
fn both_killed_keeps_an_app_with_its_children_as_it_was() {
    const FAMILY: &str = "import subprocess, time\n\
        subprocess.Popen(['sleep', '600'])\n\
        subprocess.Popen(['sleep', '600'], start_new_session=True)\n\
        print('up', flush=True)\n\
        time.sleep(600)\n";
    let musher = Musher::new();
    let script = musher.write("family.py", FAMILY);
    let script = script.to_str().expect("a path");
    musher.ok(&[
        "start",
        script,
        "--name",
        "family",
        "--interpreter",
        "python3",
    ]);
    // Whatever found the interpreter is gone by then.
    musher.wait("its children", || musher.log_has("family", "up"));
    let family = living(&musher);
    assert_eq!(family.len(), 3);
    let before = musher.pids("family");
    for _ in 0..2 {
        musher.kill_both();
        musher.wait_status("family", 1, "online");
        assert_eq!(musher.pids("family"), before);
        assert_eq!(living(&musher), family, "nobody more, nobody less");
    }
    musher.ok(&["stop", "family"]);
    assert_eq!(living(&musher), BTreeSet::new());
}

#[test]
fn the_next_keeper_holds_stdin_channels_and_control_sockets_too() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "process.stdin.resume().on('end', () => process.exit(3));\n\
         process.on('message', (packet) => console.log(JSON.stringify({ event: 'got', packet })));\n\
         console.log(JSON.stringify({ event: 'up' }));\n",
    );
    let app = json!({ "name": "app", "script": script });
    musher.start(&format!("module.exports = {app};"));
    musher.wait_facts("app", "up", 1);
    let before = musher.pids("app");
    let sockets = || {
        ["rpc.sock", "pub.sock"].map(|name| {
            let file = std::fs::metadata(musher.home().join(name)).expect("a socket");
            file.ino()
        })
    };
    let inodes = sockets();
    musher.kill_keeper();
    for n in 1..3 {
        musher.kill_daemon();
        let packet = json!({ "id": 0, "type": "process:msg", "topic": "t", "data": n });
        musher
            .rpc("sendDataToProcessId", &json!([packet]))
            .expect("it is sent");
        musher.wait_facts("app", "got", n);
    }
    assert_eq!(musher.pids("app"), before);
    assert_eq!(sockets(), inodes, "the control sockets were bound again");
}

#[test]
fn a_daemon_killed_while_a_keeper_is_on_its_way_never_leaves_two_copies() {
    let musher = Musher::new();
    let script = musher.write("deaf.py", DEAF);
    let script = script.to_str().expect("a path");
    musher.ok(&[
        "start",
        script,
        "--name",
        "deaf",
        "--interpreter",
        "python3",
    ]);
    musher.wait("output", || musher.log_has("deaf", "alive"));
    let before = musher.pids("deaf");
    for n_ms in 0..12 {
        let (keeper, daemon) = (musher.keeper(), i64::from(musher.daemon_pid()));
        kill(keeper, "KILL");
        // Not to wait for anything, but to hit every stage of the repair.
        std::thread::park_timeout(Duration::from_millis(n_ms));
        kill(daemon, "KILL");
        musher.wait("another pair", || {
            let is_served = musher.run(&["ping"]).code == 0;
            (is_served && !is_alive(daemon) && musher.keepers().len() == 1).then_some(())
        });
        musher.wait_status("deaf", 1, "online");
        assert_eq!(musher.pids("deaf"), before, "after {n_ms} ms");
    }
    let starts = std::fs::read_to_string(musher.cwd().join("starts")).expect("starts");
    assert_eq!(starts.lines().count(), 1, "a second copy");
}

#[test]
fn a_keeper_that_cannot_be_started_is_tried_again_and_said_once() {
    const FAILED: &str = "no other keeper can be started";
    let musher = Musher::called("musher-moved");
    let (program, away) = (musher.program(), musher.cwd().join("away"));
    let original = std::fs::canonicalize(&program).expect("the binary");
    std::fs::remove_file(&program).expect("the link");
    std::fs::copy(original, &program).expect("a copy");
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let before = musher.pids("tick");
    std::fs::rename(&program, &away).expect("moved away");
    kill(musher.keeper(), "KILL");
    musher.wait("the failure is said", || {
        (musher.n_said(FAILED) > 0).then_some(())
    });
    // A hundred ticks are a second, in which it is tried several times.
    let seen = ticks(&musher.log("tick-out.log")).len();
    musher.wait("lines without a keeper", || {
        (ticks(&musher.log("tick-out.log")).len() > seen + 100).then_some(())
    });
    std::fs::rename(&away, &program).expect("moved back");
    musher.wait("another keeper", || {
        (musher.n_said(REPAIRED) == 1).then_some(())
    });
    assert_eq!(musher.n_said(FAILED), 1);
    musher.kill_daemon();
    assert_eq!(musher.pids("tick"), before);
    let seen = ticks(&musher.log("tick-out.log")).len();
    musher.wait("lines after the kill", || {
        (ticks(&musher.log("tick-out.log")).len() > seen + 5).then_some(())
    });
}

#[test]
fn a_keeper_that_hangs_is_replaced_as_a_dead_one_is() {
    // Two questions without an answer, some seconds apart, and one pause more.
    const NOTICED: Duration = Duration::from_secs(60);
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let (before, daemon, keeper) = (musher.pids("tick"), musher.daemon_pid(), musher.keeper());
    kill(keeper, "STOP");
    let replaced =
        crate::harness::wait_for(NOTICED, || (musher.n_said(REPAIRED) == 1).then_some(()));
    assert!(replaced.is_some(), "{}", musher.evidence());
    assert_eq!(
        musher.n_said("the keeper does not answer: it was killed"),
        1
    );
    assert!(!is_alive(keeper));
    assert_eq!(musher.daemon_pid(), daemon);
    musher.kill_daemon();
    assert_eq!(musher.pids("tick"), before);
    musher.ok(&["stop", "tick"]);
    let numbers = ticks(&musher.log("tick-out.log"));
    let expected: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
}
