//! Fork mode: any program, its tree, its restarts.

use crate::harness::{Musher, is_alive, kill};

fn path(text: &std::path::Path) -> &str {
    text.to_str().expect("a path")
}

#[test]
fn interpreters_are_found_by_extension_shebang_and_name() {
    let musher = Musher::new();
    let python = musher.write(
        "app.py",
        "import time\nprint('py', flush=True)\ntime.sleep(1000)\n",
    );
    let shell = musher.write("app.sh", "echo sh; sleep 1000\n");
    musher.ok(&["start", path(&python), "--name", "py"]);
    musher.ok(&["start", path(&shell), "--name", "shell"]);
    musher.ok(&["start", "sleep", "--name", "binary", "--", "1000"]);
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "node"]);
    for name in ["py", "shell", "binary", "node"] {
        musher.wait_status(name, 1, "online");
    }
    let of = |name: &str| musher.of(name)[0]["pm2_env"]["exec_interpreter"].clone();
    assert_eq!(of("shell"), "bash");
    assert_eq!(of("binary"), "none");
    assert_eq!(of("node"), "node");
}

#[test]
fn stop_ends_the_whole_tree_before_it_says_so() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("family.sh"), "--name", "family"]);
    let pid_file = musher.cwd().join("grandchild.pid");
    let grandchild = musher.wait("a grandchild", || {
        std::fs::read_to_string(&pid_file)
            .ok()?
            .trim()
            .parse::<i64>()
            .ok()
    });
    let main = musher.pids("family")[0];
    assert!(is_alive(grandchild));
    musher.ok(&["stop", "family"]);
    assert!(!is_alive(main) && !is_alive(grandchild));
    assert_eq!(musher.of("family")[0]["pm2_env"]["status"], "stopped");
}

#[test]
fn a_process_that_ignores_signals_is_killed_after_kill_timeout() {
    let musher = Musher::new();
    let script = Musher::app("stubborn.js");
    musher.ok(&["start", &script, "--name", "mule", "--kill-timeout", "300"]);
    musher.wait("its handlers are set", || {
        musher.log_has("mule", "stubborn")
    });
    let pid = musher.pids("mule")[0];
    musher.ok(&["stop", "mule"]);
    assert!(!is_alive(pid));
    let log = std::fs::read_to_string(musher.home().join("pm2.log")).expect("the daemon's log");
    assert!(log.contains("still alive after 300ms"), "{log}");
}

#[test]
fn a_crash_loop_ends_errored_after_sixteen_unstable_runs() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("crash.js"), "--name", "bad"]);
    let list = musher.wait_status("bad", 1, "errored");
    assert_eq!(list[0]["pm2_env"]["restart_time"], 15);
    assert_eq!(list[0]["pid"], 0);
}

#[test]
fn a_stop_exit_code_is_not_restarted() {
    let musher = Musher::new();
    let script = Musher::app("crash.js");
    musher.ok(&[
        "start",
        &script,
        "--name",
        "done",
        "--stop-exit-codes",
        "7",
        "--",
        "7",
    ]);
    let list = musher.wait_status("done", 1, "stopped");
    assert_eq!(list[0]["pm2_env"]["restart_time"], 0);
    assert_eq!(list[0]["pm2_env"]["exit_code"], 7);
}

#[test]
fn a_killed_process_is_restarted_and_counted() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    musher.wait_status("tick", 1, "online");
    let before = musher.pids("tick")[0];
    kill(before, "KILL");
    let after = musher.wait("a replacement", || {
        musher
            .pids("tick")
            .first()
            .copied()
            .filter(|pid| *pid != before)
    });
    assert!(is_alive(after));
    assert_eq!(musher.of("tick")[0]["pm2_env"]["restart_time"], 1);
}

#[test]
fn more_memory_than_allowed_is_restarted() {
    let musher = Musher::new();
    let mut command = musher.command(&[
        "start",
        &Musher::app("bloat.js"),
        "--name",
        "fat",
        "--max-memory-restart",
        "50M",
    ]);
    let output = command
        .env("PM2_WORKER_INTERVAL", "200")
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    musher.wait("a restart by memory", || {
        (musher.of("fat")[0]["pm2_env"]["restart_time"].as_i64()? > 0).then_some(())
    });
}

#[test]
fn cron_restarts_a_worker() {
    let musher = Musher::new();
    let script = Musher::app("tick.js");
    musher.ok(&[
        "start",
        &script,
        "--name",
        "cron",
        "--cron-restart",
        "* * * * * *",
    ]);
    let first = musher.pids("cron");
    musher.wait("a restart by cron", || {
        let pids = musher.pids("cron");
        (!pids.is_empty() && pids != first).then_some(())
    });
}
