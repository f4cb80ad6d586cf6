//! The daemon itself: started once, survived by its apps, private.

use crate::harness::{Musher, is_alive, kill};
use std::os::unix::fs::PermissionsExt;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path)
        .expect("it exists")
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn fifty_first_commands_start_exactly_one_daemon() {
    let musher = Musher::new();
    let commands: Vec<_> = (0..50)
        .map(|_| {
            let mut command = musher.command(&["jlist"]);
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().expect("the binary runs")
        })
        .collect();
    for command in commands {
        let output = command.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[]");
    }
    let home = musher.home();
    let daemons = daemons_of(&home);
    assert_eq!(daemons.len(), 2, "one keeper and one daemon: {daemons:?}");
}

/// Returns the command lines of every process that names this home.
fn daemons_of(home: &std::path::Path) -> Vec<String> {
    let home = home.to_str().expect("a path");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(home) && (line.contains(" daemon ") || line.contains(" keeper ")) {
            found.push(line);
        }
    }
    found
}

#[test]
fn home_and_sockets_are_private() {
    let musher = Musher::new();
    musher.ok(&["ping"]);
    assert_eq!(mode(&musher.home()), 0o700);
    assert_eq!(mode(&musher.home().join("rpc.sock")), 0o600);
    assert_eq!(mode(&musher.home().join("pub.sock")), 0o600);
    for file in ["state.db", "state.db-wal", "pm2.log", "pm2.pid"] {
        assert_eq!(mode(&musher.home().join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_keeps_nobody_out() {
    let musher = Musher::new();
    std::fs::create_dir_all(musher.home().join("pm2.pid")).expect("in the place of the file");
    musher.ok(&["ping"]);
}

#[test]
fn a_killed_daemon_comes_back_with_the_same_workers() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "fork"]);
    let script = Musher::app("silent.js");
    musher.ok(&["start", &script, "--name", "cluster", "-i", "2"]);
    musher.wait_status("cluster", 2, "online");
    kill(musher.pids("fork")[0], "KILL");
    musher.wait("a counted restart", || {
        (musher.of("fork")[0]["pm2_env"]["restart_time"] == 1).then_some(())
    });
    musher.wait_status("fork", 1, "online");
    let before = (musher.pids("fork"), musher.pids("cluster"));
    for _ in 0..5 {
        let daemon = i64::from(musher.daemon_pid());
        kill(daemon, "KILL");
        musher.wait("another daemon", || {
            (i64::from(musher.daemon_pid()) != daemon && musher.run(&["ping"]).code == 0)
                .then_some(())
        });
        assert_eq!(
            (musher.pids("fork"), musher.pids("cluster")),
            before,
            "{}",
            musher.evidence()
        );
        assert_eq!(musher.of("fork")[0]["pm2_env"]["restart_time"], 1);
    }
    // Its workers are still supervised: a death is seen and answered.
    kill(before.1[0], "KILL");
    musher.wait("a replacement", || {
        let pids = musher.pids("cluster");
        (pids.len() == 2 && !pids.contains(&before.1[0])).then_some(())
    });
    musher.ok(&["stop", "all"]);
    assert!(!is_alive(before.0[0]) && !is_alive(before.1[1]));
}

#[test]
fn kill_ends_apps_daemon_and_keeper() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let app = musher.pids("tick")[0];
    musher.ok(&["kill"]);
    assert!(!is_alive(app));
    musher.wait("daemon and keeper are gone", || {
        daemons_of(&musher.home()).is_empty().then_some(())
    });
    assert!(!musher.home().join("rpc.sock").exists());
}

#[test]
fn save_and_resurrect_bring_the_list_back() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "a"]);
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "b", "-i", "2"]);
    musher.ok(&["stop", "a"]);
    musher.ok(&["save"]);
    musher.ok(&["kill"]);
    musher.ok(&["resurrect"]);
    musher.wait_status("b", 2, "online");
    musher.wait_status("a", 1, "stopped");
}

#[test]
fn a_corrupted_dump_falls_back_to_the_generation_before() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "a"]);
    musher.ok(&["save"]);
    musher.ok(&["save"]);
    musher.ok(&["kill"]);
    std::fs::write(musher.home().join("dump.pm2"), "[{\"name\": ").expect("a damaged dump");
    musher.ok(&["resurrect"]);
    musher.wait_status("a", 1, "online");
}
