//! Memory that runs out: who is killed, and what is said of it.

use crate::harness::Musher;
use std::path::PathBuf;

/// A memory group of version 1 below this test's own, with a small limit.
struct SmallGroup(PathBuf);

impl SmallGroup {
    const LIMIT: &str = "41943040";

    /// Returns `None` where none can be made.
    fn make() -> Option<SmallGroup> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = membership.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.strip_prefix("memory:/")
        })?;
        let name = format!("musher-test-{}", std::process::id());
        let group = PathBuf::from("/sys/fs/cgroup/memory").join(path).join(name);
        std::fs::create_dir(&group).ok()?;
        let made = SmallGroup(group);
        std::fs::write(made.0.join("memory.limit_in_bytes"), Self::LIMIT).ok()?;
        Some(made)
    }
}

impl Drop for SmallGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn an_app_that_was_killed_for_want_of_memory_is_said_to_be() {
    let Some(group) = SmallGroup::make() else {
        eprintln!("no memory group can be made here: nothing is tested");
        return;
    };
    let musher = Musher::new();
    let script = musher.write(
        "hungry.py",
        "import os, sys\n\
         open(sys.argv[1], 'w').write(str(os.getpid()))\n\
         food = [bytearray(b'x' * (1 << 20)) for _ in range(500)]\n",
    );
    let app = serde_json::json!({
        "name": "hungry", "script": script, "autorestart": false,
        "args": [group.0.join("cgroup.procs")],
    });
    musher.start(&format!("module.exports = {app};"));
    let list = musher.wait_status("hungry", 1, "stopped");
    let reason = list[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("SIGKILL, maybe by the kernel"), "{list:?}");
    // Somebody else's kill is not held against a run that began after it.
    musher.ok(&[
        "start",
        &Musher::app("silent.js"),
        "--name",
        "late",
        "--no-autorestart",
    ]);
    crate::harness::kill(musher.pids("late")[0], "KILL");
    let list = musher.wait_status("late", 1, "stopped");
    assert_eq!(list[0]["reason"], "the last run was ended by SIGKILL");
}

#[test]
fn apps_are_likelier_victims_than_their_manager() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("silent.js"), "--name", "app"]);
    let score = |pid: i64| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        text.expect("a score").trim().parse().expect("a number")
    };
    let daemon = i64::from(musher.daemon_pid());
    let keeper = crate::harness::parent(daemon);
    let app = score(musher.pids("app")[0]);
    let own = score(std::process::id().into());
    assert!(score(daemon) < app && score(keeper) < app);
    assert!(app == own || app == own + 10, "{app}, and {own} here");
    // Another daemon does as the first did.
    musher.kill_daemon();
    musher.ok(&["restart", "app"]);
    assert_eq!(score(musher.pids("app")[0]), app);
}
