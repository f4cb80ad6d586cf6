//! Process trees: nothing of a run survives its end.

use crate::harness::{Musher, is_alive, kill, parent};
use std::time::{Duration, Instant};

/// Both ways of knowing what belongs to a run.
const WAYS: [&str; 2] = ["on", "off"];

/// A family of `family.py`, found by a word of its command line.
struct Family {
    musher: Musher,
    word: String,
}

impl Family {
    /// Starts one, with or without control groups, and waits until it is
    /// complete. `options` are those of `start`.
    fn start(groups: &str, words: &[&str], options: &[&str]) -> Family {
        let musher = Musher::new();
        let word = musher.home().display().to_string();
        let script = Musher::app("family.py");
        let start = [
            "start",
            &script,
            "--name",
            "family",
            "--interpreter",
            "python3",
        ];
        let args = [&start[..], options, &["--"], words, &[&word]].concat();
        let output = musher
            .command(&args)
            .env("MUSHER_CGROUPS", groups)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        let family = Family { musher, word };
        family
            .musher
            .wait("the family", || family.musher.log_has("family", "complete"));
        family
    }

    /// Returns the pids of its living processes.
    fn living(&self) -> Vec<i64> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = entries.flatten().filter_map(|entry| {
            let pid: i64 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let mut words = line.split('\0');
            let is_one = words.any(|word| word.ends_with("family.py"))
                && words.any(|word| word == self.word);
            (is_one && is_alive(pid)).then_some(pid)
        });
        pids.collect()
    }

    fn has_groups(&self) -> bool {
        let text = self.musher.ok(&["describe", "family"]);
        assert!(text.contains("process tree"), "{text}");
        text.contains("control group /")
    }
}

#[test]
fn what_left_its_parent_and_its_session_does_not_survive_a_stop() {
    for way in WAYS {
        let family = Family::start(way, &["far"], &[]);
        assert_eq!(family.living().len(), 3);
        let expected = if family.has_groups() { 0 } else { 1 };
        assert!(way == "on" || expected == 1, "groups were not wanted");
        family.musher.ok(&["stop", "family"]);
        let left = family.living();
        // The one that cleared its environment is held by a group only.
        assert_eq!(left.len(), expected, "{way}");
        for pid in left {
            kill(pid, "KILL");
        }
    }
}

#[test]
fn a_storm_of_five_hundred_deaf_children_is_over_when_stop_says_so() {
    for way in WAYS {
        let family = Family::start(way, &["storm", "500"], &["--kill-timeout", "100"]);
        family.musher.wait("all of them", || {
            (family.living().len() == 500).then_some(())
        });
        let begin = Instant::now();
        family.musher.ok(&["stop", "family"]);
        let took = begin.elapsed();
        assert_eq!(family.living(), [0; 0], "{way}");
        assert_eq!(
            family.musher.of("family")[0]["pm2_env"]["status"],
            "stopped"
        );
        println!("control groups {way}: 500 processes stopped in {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn a_tree_that_forks_while_it_is_killed_is_killed() {
    for way in WAYS {
        let words = ["chain", "20000"];
        let family = Family::start(way, &words, &["--kill-timeout", "100"]);
        family.musher.ok(&["stop", "family"]);
        assert_eq!(family.living(), [0; 0], "{way}");
    }
}

#[test]
fn what_a_crashed_app_left_is_ended_before_its_replacement_starts() {
    for way in WAYS {
        let port = crate::harness::free_port().to_string();
        let options = ["--kill-timeout", "200"];
        let family = Family::start(way, &["crash", &port], &options);
        let first = family.living();
        family.musher.wait("two restarts", || {
            (family.musher.of("family")[0]["pm2_env"]["restart_time"].as_i64()? >= 2).then_some(())
        });
        assert!(first.iter().all(|pid| !is_alive(*pid)), "{way}");
        assert!(
            family.musher.log_has("family", "refused").is_none(),
            "{way}: the port was held\n{}",
            family.musher.evidence()
        );
        family.musher.ok(&["stop", "family"]);
        assert_eq!(family.living(), [0; 0], "{way}");
    }
}

#[test]
fn a_stopped_process_is_continued_so_that_it_can_obey() {
    let musher = Musher::new();
    let script = Musher::app("tick.js");
    musher.ok(&[
        "start",
        &script,
        "--name",
        "tick",
        "--kill-timeout",
        "15000",
    ]);
    musher.wait("its first words", || musher.log_has("tick", ""));
    let pid = musher.pids("tick")[0];
    kill(pid, "STOP");
    let begin = Instant::now();
    musher.ok(&["stop", "tick"]);
    assert!(!is_alive(pid));
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "SIGKILL ended it"
    );
}

#[test]
fn without_treekill_sigkill_is_for_the_main_process_too() {
    let musher = Musher::new();
    let script = musher.write(
        "app.sh",
        "trap '' INT\nsleep 60 &\necho $! > child.pid\nwhile :; do sleep 1; done\n",
    );
    let app = serde_json::json!({
        "name": "app", "script": script, "treekill": false, "kill_timeout": 100,
    });
    musher.start(&format!("module.exports = {app};"));
    let file = musher.cwd().join("child.pid");
    let child: i64 = musher.wait("a child", || {
        std::fs::read_to_string(&file).ok()?.trim().parse().ok()
    });
    let main = musher.pids("app")[0];
    musher.ok(&["stop", "app"]);
    assert!(!is_alive(main));
    assert!(is_alive(child), "it was not asked for");
    kill(child, "KILL");
}

#[test]
fn what_a_run_left_that_died_without_a_daemon_is_ended_by_the_next() {
    for way in WAYS {
        let family = Family::start(way, &["leave"], &["--kill-timeout", "100"]);
        let musher = &family.musher;
        // A keeper that stands still starts no daemon.
        let main = musher.pids("family")[0];
        let daemon = i64::from(musher.daemon_pid());
        let keeper = parent(daemon);
        kill(keeper, "STOP");
        kill(daemon, "KILL");
        kill(main, "KILL");
        let left: Vec<i64> = family
            .living()
            .into_iter()
            .filter(|pid| *pid != main)
            .collect();
        assert_eq!(left.len(), 1, "{way}");
        kill(keeper, "CONT");
        musher.wait("the end of what was left", || {
            (!is_alive(left[0])).then_some(())
        });
        musher.wait("a replacement", || {
            let pids = musher.pids("family");
            (!pids.is_empty() && !pids.contains(&main)).then_some(())
        });
        assert!(musher.of("family")[0]["pm2_env"]["restart_time"].as_i64() >= Some(1));
    }
}

#[test]
fn a_manager_that_an_app_started_does_not_end_with_that_app() {
    for way in WAYS {
        let outer = Musher::new();
        let inner = Musher::new();
        let script = outer.write(
            "deploy.sh",
            &format!(
                "MUSHER_HOME={home} PM2_HOME={home} {binary} start {app} --name inner\n\
                 echo deployed\nsleep 60\n",
                home = inner.home().display(),
                binary = env!("CARGO_BIN_EXE_musher"),
                app = Musher::app("tick.js"),
            ),
        );
        let args = [
            "start",
            script.to_str().expect("a path"),
            "--name",
            "deploy",
        ];
        let output = outer.command(&args).env("MUSHER_CGROUPS", way).output();
        assert!(output.is_ok_and(|output| output.status.success()));
        outer.wait("a deployment", || outer.log_has("deploy", "deployed"));
        let (daemon, app) = (inner.daemon_pid(), inner.pids("inner"));
        outer.ok(&["stop", "deploy"]);
        assert!(is_alive(i64::from(daemon)) && is_alive(app[0]), "{way}");
        assert_eq!(inner.pids("inner"), app);
    }
}
