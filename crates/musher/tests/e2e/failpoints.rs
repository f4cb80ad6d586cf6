//! A daemon that dies at every step of every command: afterwards each process is
//! in its old or its new state, and nothing runs twice or is left over.

use crate::harness::{Musher, free_port, is_alive, kill, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for the state a daemon comes to: what a successor had said when
/// its daemon died is not known, and it then has half a minute to say it again.
const SETTLING: Duration = Duration::from_secs(60);

/// Every place, as `failpoint::hit` names it. The dump is written by the client,
/// which then dies in the daemon's place.
const PLACES: &[&str] = &[
    "spawn-forked",
    "spawn-parked",
    "store-before",
    "store-after",
    "pid-file-before",
    "pid-file-after",
    "replace-before",
    "replace-after",
    "answer-before",
    "answer-after",
];

/// Places of a daemon that takes over: the one before is killed.
const TAKEOVER: &[&str] = &["takeover-restored", "takeover-adopted", "takeover-ready"];

/// Returns which visits of a place are the last: a command for both apps forks
/// for the one first and then for the other.
fn visits(place: &str) -> std::ops::RangeInclusive<u32> {
    match place.starts_with("spawn") {
        true => 1..=2,
        false => 1..=1,
    }
}

/// An app of one process and one of two workers, and a command for both.
struct World {
    musher: Musher,
    port: u16,
    /// Places that were come to.
    n_hit: usize,
}

/// The pids of each app; stopped processes have none.
type Pids = BTreeMap<String, Vec<(u64, u64)>>;

impl World {
    fn new() -> World {
        let mut musher = Musher::new();
        let file = musher.cwd().join("failpoint");
        musher.set("MUSHER_FAILPOINT", file.to_str().expect("a path"));
        let port = free_port();
        let server = "require('http').createServer((q, r) => r.end('x')).listen(process.env.PORT);";
        musher.write("server.js", server);
        musher.write("silent.js", "setInterval(() => {}, 1000);");
        let world = World {
            musher,
            port,
            n_hit: 0,
        };
        world.restore();
        world
    }

    fn file(&self) -> PathBuf {
        self.musher.cwd().join("failpoint")
    }

    fn config(&self) -> String {
        let env = json!({ "PORT": self.port });
        let apps = json!([
            { "name": "fork", "script": "./silent.js", "kill_timeout": 3000 },
            { "name": "api", "script": "./server.js", "instances": 2, "env": env,
              // What a drain had come to is not known to the next daemon, which
              // waits until it is over.
              "reload": { "drain": 1000 } },
        ]);
        let path = self
            .musher
            .write("apps.config.js", &format!("module.exports = {apps};"));
        path.to_str().expect("a path").to_owned()
    }

    /// Brings both apps to where every round begins.
    fn restore(&self) {
        let n = |name: &str| self.musher.of(name).len();
        if n("fork") != 1 || n("api") == 0 {
            let _ = self.musher.run(&["delete", "all"]);
            self.musher.ok(&["start", &self.config()]);
        }
        if n("api") != 2 {
            self.musher.ok(&["scale", "api", "2"]);
        }
        for name in ["fork", "api"] {
            let is_online = |p: &Value| p["pm2_env"]["status"] == "online";
            if !self.musher.of(name).iter().all(is_online) {
                self.musher.ok(&["restart", name]);
            }
        }
        self.settled();
    }

    /// Waits until what is listed is what lives, and returns it.
    fn settled(&self) -> Vec<Value> {
        let settled = wait_for(SETTLING, || {
            let list = self.musher.list();
            let is_settled = |p: &Value| {
                let status = &p["pm2_env"]["status"];
                status == "online" || status == "stopped"
            };
            let listed: BTreeSet<i64> = list
                .iter()
                .filter_map(|p| p["pid"].as_i64())
                .filter(|pid| *pid > 0)
                .collect();
            (list.iter().all(is_settled) && listed == living(&self.musher)).then_some(list)
        });
        settled.unwrap_or_else(|| {
            panic!(
                "what is listed is not what lives\n{}",
                self.musher.evidence()
            )
        })
    }

    fn pids(list: &[Value]) -> Pids {
        let mut pids = Pids::new();
        for process in list {
            let name = process["name"].as_str().expect("a name").to_owned();
            let number = |key: &str| process[key].as_u64().expect("a number");
            pids.entry(name)
                .or_default()
                .push((number("pm_id"), number("pid")));
        }
        pids
    }

    /// Runs a command that dies on the way, at each place in turn; `check` is
    /// given the state before and the one it came to.
    fn each_place(&mut self, args: &[&str], mut check: impl FnMut(&str, &Pids, &Pids, &[Value])) {
        for place in PLACES {
            for count in visits(place) {
                let before = World::pids(&self.settled());
                std::fs::write(self.file(), format!("{place}:{count}")).expect("armed");
                let ran = self.musher.run(args);
                let is_hit = !self.file().exists();
                let _ = std::fs::remove_file(self.file());
                let label = format!("{args:?} at {place}:{count}");
                assert!(is_hit || ran.code == 0, "{label}: {}", ran.stderr);
                self.n_hit += usize::from(is_hit);
                self.judge(&label, &before, &mut check);
                if !is_hit {
                    break;
                }
            }
        }
        for place in TAKEOVER {
            let before = World::pids(&self.settled());
            let _ = self.musher.run(args);
            std::fs::write(self.file(), format!("{place}:1")).expect("armed");
            kill(i64::from(self.musher.daemon_pid()), "KILL");
            let label = format!("{args:?} at {place}");
            self.musher
                .wait(&label, || (!self.file().exists()).then_some(()));
            self.n_hit += 1;
            self.judge(&label, &before, &mut check);
        }
    }

    fn judge(
        &self,
        label: &str,
        before: &Pids,
        check: &mut impl FnMut(&str, &Pids, &Pids, &[Value]),
    ) {
        let list = self.settled();
        let after = World::pids(&list);
        check(label, before, &after, &list);
        for process in &list {
            let pid = process["pid"].as_u64().unwrap_or(0);
            let status = &process["pm2_env"]["status"];
            assert_eq!(*status == "online", pid > 0, "{label}: {process}");
        }
        self.restore();
    }
}

/// Returns the living programs of a home, by what they bear, whoever knows of
/// them.
pub(crate) fn living(musher: &Musher) -> BTreeSet<i64> {
    let home = format!("MUSHER_HOME={}\0", musher.home().display());
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| {
        let environ = std::fs::read(entry.path().join("environ")).ok()?;
        let environ = String::from_utf8_lossy(&environ);
        let is_run = environ.contains(&home) && environ.contains("\0MUSHER_RUN=");
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (is_run && is_alive(pid)).then_some(pid)
    })
    .collect()
}

/// Every process is the one before or has another pid, and all run.
fn all_run(label: &str, before: &Pids, after: &Pids, list: &[Value]) {
    let ids = |pids: &Pids| -> BTreeMap<String, Vec<u64>> {
        let ids = pids.iter();
        ids.map(|(name, pids)| (name.clone(), pids.iter().map(|(id, _)| *id).collect()))
            .collect()
    };
    assert_eq!(ids(before), ids(after), "{label}");
    assert!(
        list.iter().all(|p| p["pm2_env"]["status"] == "online"),
        "{label}: {list:?}"
    );
}

#[test]
fn start_is_done_or_not_wherever_the_daemon_dies() {
    let mut world = World::new();
    let config = world.config();
    let _ = world.musher.run(&["delete", "all"]);
    // From nothing each time: what is restored is deleted again.
    for place in PLACES {
        std::fs::write(world.file(), format!("{place}:1")).expect("armed");
        world.musher.run(&["start", &config]);
        world.n_hit += usize::from(!world.file().exists());
        let _ = std::fs::remove_file(world.file());
        let list = world.settled();
        for (name, n_wanted) in [("fork", 1), ("api", 2)] {
            let of = |p: &&Value| p["name"] == name;
            let n = list.iter().filter(of).count();
            assert!(n == 0 || n == n_wanted, "start at {place}: {n} of {name}");
        }
        assert!(
            list.iter().all(|p| p["pm2_env"]["status"] == "online"),
            "{place}: {list:?}"
        );
        world.musher.run(&["delete", "all"]);
        world.musher.wait("nothing lives", || {
            living(&world.musher).is_empty().then_some(())
        });
    }
    assert!(world.n_hit >= 7, "{}", world.n_hit);
}

#[test]
fn stop_is_done_or_not_wherever_the_daemon_dies() {
    let mut world = World::new();
    world.each_place(&["stop", "all"], |label, before, after, _| {
        for (name, pids) in before {
            for ((id, pid), (id_after, pid_after)) in pids.iter().zip(&after[name]) {
                assert_eq!(id, id_after, "{label}");
                // Stopped, or untouched: it was not started again.
                assert!(
                    *pid_after == 0 || pid_after == pid,
                    "{label}: {before:?} {after:?}"
                );
            }
        }
    });
    assert!(world.n_hit >= 7, "{}", world.n_hit);
}

#[test]
fn restart_is_done_or_not_wherever_the_daemon_dies() {
    let mut world = World::new();
    world.each_place(&["restart", "all"], all_run);
    assert!(world.n_hit >= 12, "{}", world.n_hit);
}

#[test]
fn reload_is_done_or_not_wherever_the_daemon_dies() {
    let mut world = World::new();
    world.each_place(&["reload", "api"], all_run);
    assert!(world.n_hit >= 12, "{}", world.n_hit);
}

#[test]
fn scale_is_done_or_not_wherever_the_daemon_dies() {
    let mut world = World::new();
    for (target, n_after) in [("4", 2..=4), ("1", 1..=2)] {
        world.each_place(&["scale", "api", target], |label, before, after, list| {
            let n = after["api"].len();
            assert!(n_after.contains(&n), "{label}: {n}");
            assert!(
                list.iter().all(|p| p["pm2_env"]["status"] == "online"),
                "{label}"
            );
            // Who stays is untouched.
            let stayed = |(id, _): &&(u64, u64)| before["api"].iter().any(|(old, _)| old == id);
            let kept = after["api"].iter().filter(stayed);
            assert!(
                kept.clone().all(|pid| before["api"].contains(pid)),
                "{label}"
            );
            assert_eq!(before["fork"], after["fork"], "{label}");
        });
    }
    assert!(world.n_hit >= 16, "{}", world.n_hit);
}

#[test]
fn delete_is_done_or_not_wherever_the_daemon_dies() {
    let mut world = World::new();
    world.each_place(&["delete", "all"], |label, before, after, _| {
        for pid in after.values().flatten() {
            // Kept as it was, or gone.
            assert!(
                before.values().flatten().any(|old| old == pid),
                "{label}: {after:?}"
            );
        }
    });
    assert!(world.n_hit >= 7, "{}", world.n_hit);
}

#[test]
fn save_leaves_the_old_list_or_the_new_one() {
    let mut world = World::new();
    let names = |world: &World| -> Vec<String> {
        let text = std::fs::read_to_string(world.musher.home().join("dump.pm2")).expect("a dump");
        let list: Value = serde_json::from_str(&text).expect("a list");
        let list = list.as_array().expect("a list").clone();
        list.iter()
            .map(|p| p["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let full = ["fork", "api", "api"].map(str::to_owned).to_vec();
    let script = world.musher.cwd().join("silent.js");
    for place in PLACES {
        world.musher.ok(&["save"]);
        assert_eq!(names(&world), full, "{place}");
        world
            .musher
            .ok(&["start", script.to_str().expect("a path"), "--name", "more"]);
        std::fs::write(world.file(), format!("{place}:1")).expect("armed");
        world.musher.run(&["save"]);
        world.n_hit += usize::from(!world.file().exists());
        let _ = std::fs::remove_file(world.file());
        let more = [full.clone(), vec!["more".to_owned()]].concat();
        let found = names(&world);
        assert!(found == full || found == more, "{place}: {found:?}");
        world.musher.ok(&["delete", "more"]);
    }
    assert!(world.n_hit >= 2, "{}", world.n_hit);
}

#[test]
fn a_program_forked_and_not_written_down_never_becomes_a_second_copy() {
    // It hears neither the end of its channel nor of its output.
    const DEAF: &str = "import os, time\n\
        open('starts', 'a').write('%d\\n' % os.getpid())\n\
        time.sleep(600)\n";
    for place in ["spawn-forked", "spawn-parked", "store-before"] {
        let mut musher = Musher::new();
        let file = musher.cwd().join("failpoint");
        musher.set("MUSHER_FAILPOINT", file.to_str().expect("a path"));
        let script = musher.write("deaf.py", DEAF);
        let script = script.to_str().expect("a path");
        musher.ok(&["ping"]);
        std::fs::write(&file, format!("{place}:1")).expect("armed");
        let start = [
            "start",
            script,
            "--name",
            "deaf",
            "--interpreter",
            "python3",
        ];
        musher.run(&start);
        assert!(!file.exists(), "{place} was not come to");
        // By the time this one has written its line, a stranger has executed; and
        // it has the stranger's number, which is ended with it if it ends.
        if musher.of("deaf").is_empty() {
            musher.ok(&start);
        }
        musher.wait("what is listed is what lives", || {
            let list = musher.list();
            let listed: BTreeSet<i64> = list.iter().filter_map(|p| p["pid"].as_i64()).collect();
            let is_all = listed.len() == 1 && listed == living(&musher);
            let starts = std::fs::read_to_string(musher.cwd().join("starts")).ok()?;
            let mut started = starts.lines().filter_map(|line| line.parse().ok());
            let is_known = started
                .clone()
                .all(|pid| !is_alive(pid) || listed.contains(&pid));
            let has_written = started.any(|pid| listed.contains(&pid));
            (is_all && is_known && has_written).then_some(())
        });
    }
}
