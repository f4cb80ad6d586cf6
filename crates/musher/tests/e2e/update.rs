//! `musher update`: another executable serves, and no app notices; one that
//! cannot is undone.

use crate::cluster::{Load, started};
use crate::harness::{Musher, is_alive, kill};
use crate::takeover::ticks;
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Updates of the test under load.
const N_UPDATES: usize = 5;

/// Threads that ask for the list, one command after the other.
const N_ASKERS: usize = 2;

const OWN: &str = env!("CARGO_BIN_EXE_musher");

impl Musher {
    /// Returns a copy of the binary: another executable, of the same version.
    fn copy(&self, name: &str) -> PathBuf {
        let path = self.cwd().join(name);
        std::fs::copy(OWN, &path).expect("a copy");
        path
    }

    /// Writes an executable file.
    fn program_of(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.cwd().join(name);
        std::fs::write(&path, bytes).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    }

    /// Writes a script that passes the check as musher does, and then is `body`.
    fn impostor(&self, name: &str, body: &str) -> PathBuf {
        let text =
            format!("#!/bin/sh\nif [ \"$2\" = --check ]; then exec '{OWN}' \"$@\"; fi\n{body}\n");
        self.program_of(name, text.as_bytes())
    }

    fn report(&self) -> Value {
        self.rpc("getReport", &json!([{}])).expect("a report")
    }

    fn serving(&self) -> String {
        self.report()["executable"]
            .as_str()
            .expect("a path")
            .to_owned()
    }

    fn update(&self, executable: &Path) -> crate::harness::Ran {
        self.run(&["update", executable.to_str().expect("a path")])
    }

    fn updated(&self, executable: &Path) -> String {
        self.ok(&["update", executable.to_str().expect("a path")])
    }

    fn tick(&self) -> Vec<i64> {
        self.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
        self.pids("tick")
    }

    /// Waits for further lines of the ticking app, then stops it: none of its
    /// lines may be missing or doubled.
    fn end_tick(&self) {
        let seen = ticks(&self.log("tick-out.log")).len();
        self.wait("lines after the update", || {
            (ticks(&self.log("tick-out.log")).len() > seen + 5).then_some(())
        });
        self.ok(&["stop", "tick"]);
        let numbers = ticks(&self.log("tick-out.log"));
        let expected: Vec<u64> = (0..numbers.len() as u64).collect();
        assert_eq!(numbers, expected);
    }
}

/// Asks for the list until it is told to end; returns what went wrong.
struct Askers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Askers {
    fn of(musher: &Musher) -> Askers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..N_ASKERS).map(|_| {
            let (mut command, stop) = (musher.command(&["jlist"]), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut n, mut failures) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let output = command.output().expect("it runs");
                    n += 1;
                    if !output.status.success() {
                        failures.push(String::from_utf8_lossy(&output.stderr).into_owned());
                    }
                }
                (n, failures)
            })
        });
        let threads = threads.collect();
        Askers { stop, threads }
    }

    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut n, mut failures) = (0, Vec::new());
        for thread in self.threads {
            let (asked, failed) = thread.join().expect("a thread");
            n += asked;
            failures.extend(failed);
        }
        (n, failures)
    }
}

/// `musher logs`, writing into a file.
struct Follower {
    child: Child,
    path: PathBuf,
}

impl Follower {
    fn of(musher: &Musher, app: &str) -> Follower {
        let path = musher.cwd().join("followed");
        let file = File::create(&path).expect("a file");
        let child = musher
            .command(&["logs", app, "--lines", "0", "--raw"])
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        Follower { child, path }
    }

    fn n_lines(&self) -> usize {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter(|line| line.contains("tick ")).count()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn five_updates_cut_no_connection_no_line_no_list_and_no_follower() {
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        let tick = musher.tick();
        let api = musher.pids("api");
        let copies = [musher.copy("one"), musher.copy("two")];
        let follower = Follower::of(&musher, "tick");
        musher.wait("a follower", || (follower.n_lines() > 0).then_some(()));
        let (load, askers) = (Load::on(port), Askers::of(&musher));
        for round in 0..N_UPDATES {
            let copy = &copies[round % 2];
            let said = musher.updated(copy);
            assert!(said.contains("3 of 3 processes kept their pids"), "{said}");
            assert_eq!(musher.serving(), copy.display().to_string(), "{mode}");
            let seen = follower.n_lines();
            musher.wait("followed lines", || {
                (follower.n_lines() > seen).then_some(())
            });
        }
        let (n_asked, refused) = askers.end();
        assert!(
            refused.is_empty(),
            "{mode}: {} of {n_asked}: {refused:?}",
            refused.len()
        );
        let (n_ok, failures) = load.end();
        assert!(failures.is_empty(), "{mode}: of {n_ok}: {failures:?}");
        assert_eq!(
            (musher.pids("api"), musher.pids("tick")),
            (api, tick),
            "{mode}"
        );
        let restarts = |name: &str| musher.of(name)[0]["pm2_env"]["restart_time"].clone();
        assert_eq!((restarts("api"), restarts("tick")), (json!(0), json!(0)));
        musher.end_tick();
        musher.ok(&["reload", "api"]);
    }
}

#[test]
fn a_crash_after_an_update_keeps_the_new_executable() {
    let musher = Musher::new();
    let pids = musher.tick();
    let copy = musher.copy("next");
    musher.updated(&copy);
    for _ in 0..2 {
        musher.kill_daemon();
        assert_eq!(musher.serving(), copy.display().to_string());
    }
    assert_eq!(musher.pids("tick"), pids);
    assert_eq!(musher.report()["update_failed"], Value::Null);
    musher.end_tick();
}

#[test]
fn an_executable_that_ends_at_once_is_undone_and_said() {
    let musher = Musher::new();
    let pids = musher.tick();
    let before = musher.serving();
    for (name, body, why) in [
        ("ends", "exit 3", "it ended before it was ready: exit 3"),
        ("dies", "kill -9 $$", "SIGKILL"),
        (
            "lacks",
            "exec /nonexistent/musher",
            "it ended before it was ready",
        ),
    ] {
        let ran = musher.update(&musher.impostor(name, body));
        assert_eq!(ran.code, 1, "{name}: {}", ran.stdout);
        assert!(
            ran.stderr.contains("was undone") && ran.stderr.contains(why),
            "{}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains("1 of 1 processes kept their pids"),
            "{}",
            ran.stderr
        );
        assert_eq!(musher.serving(), before, "{name}");
    }
    assert_eq!(musher.pids("tick"), pids);
    // What failed is forgotten with the next update that does not.
    musher.updated(&musher.copy("next"));
    assert_eq!(musher.report()["update_failed"], Value::Null);
    musher.end_tick();
}

#[test]
fn an_executable_that_is_never_ready_is_undone_in_time() {
    let musher = Musher::new();
    let pids = musher.tick();
    let before = musher.serving();
    let ran = musher.update(&musher.impostor("sleeps", "exec sleep 60"));
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(
        ran.stderr.contains("it was not ready within 10 s"),
        "{}",
        ran.stderr
    );
    assert_eq!(musher.serving(), before);
    assert_eq!(musher.pids("tick"), pids);
    musher.end_tick();
}

#[test]
fn what_cannot_take_over_is_refused_before_anything_happens() {
    let musher = Musher::new();
    let pids = musher.tick();
    let daemon = musher.daemon_pid();
    let plain = musher.write("plain", "no program");
    let mut foreign = std::fs::read(OWN).expect("the binary")[..4096].to_vec();
    // e_machine of elf(5): 0xf7 is the kernel's BPF.
    foreign[18..20].copy_from_slice(&[0xf7, 0]);
    for (path, why) in [
        (
            musher.cwd().join("absent"),
            "no such file or directory (ENOENT)",
        ),
        (musher.cwd(), "permission denied (EACCES)"),
        (plain, "permission denied (EACCES)"),
        (musher.program_of("text", b"no program\n"), "(ENOEXEC)"),
        (musher.program_of("foreign", &foreign), "(ENOEXEC)"),
        (
            PathBuf::from("/bin/true"),
            "it is no musher, or an older one",
        ),
        (PathBuf::from("/bin/false"), "it ended: exit 1"),
    ] {
        let ran = musher.update(&path);
        let path = path.display();
        assert_eq!(ran.code, 1, "{path}");
        assert!(ran.stderr.contains(why), "{path}: {}", ran.stderr);
        assert!(ran.stderr.contains(&path.to_string()), "{}", ran.stderr);
    }
    // The same for a state that a newer version wrote.
    let state = rusqlite::Connection::open(musher.home().join("state.db")).expect("the state");
    state
        .pragma_update(None, "user_version", 99)
        .expect("a pragma");
    let ran = musher.update(Path::new(OWN));
    assert_eq!(ran.code, 1);
    let newer = "has format 99, this musher knows";
    assert!(ran.stderr.contains(newer), "{}", ran.stderr);
    state
        .pragma_update(None, "user_version", 1)
        .expect("a pragma");
    state
        .execute(
            "UPDATE process SET record = json_set(record, '$.format', 99)",
            [],
        )
        .expect("an update");
    let ran = musher.update(Path::new(OWN));
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("the record of process 0"),
        "{}",
        ran.stderr
    );
    state
        .execute(
            "UPDATE process SET record = json_set(record, '$.format', 1)",
            [],
        )
        .expect("an update");
    assert_eq!(musher.daemon_pid(), daemon);
    assert_eq!(musher.pids("tick"), pids);
    musher.updated(Path::new(OWN));
    musher.end_tick();
}

#[test]
fn a_file_that_was_replaced_or_removed_still_serves() {
    let musher = Musher::called("musher-packaged");
    let program = musher.program();
    std::fs::remove_file(&program).expect("the link");
    std::fs::copy(OWN, &program).expect("a copy");
    let pids = musher.tick();
    // As a package does: a file aside, renamed over the one that is executed.
    let broken = musher.impostor("broken", "exit 4");
    std::fs::rename(&broken, &program).expect("renamed");
    let path = program.to_str().expect("a path");
    let mut command = Command::new(OWN);
    command
        .args(["update", path])
        .env("MUSHER_HOME", musher.home());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("was undone"), "{said}");
    assert_eq!(
        musher.serving(),
        format!("{path} (deleted)"),
        "the one before"
    );
    std::fs::remove_file(&program).expect("removed");
    for _ in 0..2 {
        let daemon = i64::from(musher.daemon_pid());
        kill(daemon, "KILL");
        musher.wait("another daemon", || {
            let socket = std::os::unix::net::UnixStream::connect(musher.home().join("rpc.sock"));
            let is_next = i64::from(musher.daemon_pid()) != daemon;
            (socket.is_ok() && is_next).then_some(())
        });
        assert_eq!(musher.serving(), format!("{path} (deleted)"));
    }
    std::fs::copy(OWN, &program).expect("a copy");
    musher.updated(&program);
    assert_eq!(musher.serving(), path);
    assert_eq!(musher.pids("tick"), pids);
    musher.end_tick();
}

#[test]
fn another_version_is_told_by_either_side_and_update_ends_it() {
    const NEXT: &str = "9.9.9";
    let musher = Musher::new();
    let mut bytes = std::fs::read(OWN).expect("the binary");
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(ours.len(), NEXT.len(), "the version is replaced in place");
    let mark = format!("musher-version={ours}");
    let places: Vec<usize> = bytes
        .windows(mark.len())
        .enumerate()
        .filter_map(|(at, window)| (window == mark.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        let version = at + mark.len() - NEXT.len();
        bytes[version..version + NEXT.len()].copy_from_slice(NEXT.as_bytes());
    }
    let next = musher.program_of("next", &bytes);
    let pids = musher.tick();
    let by_next = |args: &[&str]| {
        let output = Command::new(&next)
            .args(args)
            .env_clear()
            .env("MUSHER_HOME", musher.home())
            .output()
            .expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(musher.run(&["jlist"]).stderr, "");
    let (code, list, told) = by_next(&["jlist"]);
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&list).is_ok(), "{list}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let said = format!("the daemon is musher {ours}, this command {NEXT}: `musher update`");
    assert!(told.contains(&said), "{told}");
    let (code, said, _) = by_next(&["update"]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains(&format!("Updated from {ours} to {NEXT}")),
        "{said}"
    );
    assert_eq!(by_next(&["jlist"]).2, "");
    let old = musher.run(&["jlist"]);
    let said = format!("the daemon is musher {NEXT}, this command {ours}");
    assert!(
        old.code == 0 && old.stderr.contains(&said),
        "{}",
        old.stderr
    );
    assert_eq!(musher.pids("tick"), pids);
    musher.updated(Path::new(OWN));
    musher.end_tick();
    let unknown = musher.rpc("ofAnotherVersion", &json!([{}]));
    assert_eq!(
        unknown,
        Err(json!("method \"ofAnotherVersion\" does not exist"))
    );
}

#[test]
fn without_a_daemon_there_is_nothing_to_update() {
    let musher = Musher::new();
    let ran = musher.run(&["update"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("no daemon runs in"), "{}", ran.stderr);
    assert!(!musher.home().join("rpc.sock").exists());
}

#[test]
fn an_update_waits_for_the_commands_of_others() {
    let musher = Musher::new();
    let script = musher.write(
        "slow.js",
        "setTimeout(() => process.send('ready'), 1500); setInterval(() => {}, 1000);\n",
    );
    musher.ok(&["ping"]);
    let app =
        json!({ "name": "slow", "script": script, "wait_ready": true, "listen_timeout": 9000 });
    let config = musher.write("slow.config.js", &format!("module.exports = {app};"));
    let starting = musher
        .command(&["start", config.to_str().expect("a path")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    musher.wait("a process that is launching", || {
        let list = musher.of("slow");
        let process = list.first()?;
        let is_launching = process["pm2_env"]["status"] == "launching";
        (is_launching && process["pid"].as_i64() > Some(0)).then_some(())
    });
    let said = musher.updated(Path::new(OWN));
    assert!(said.contains("1 of 1 processes kept their pids"), "{said}");
    let output = starting.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    musher.wait_status("slow", 1, "online");
}

#[test]
fn pm2_update_is_the_same() {
    let musher = Musher::called("pm2");
    let pids = musher.tick();
    let said = musher.ok(&["update"]);
    assert!(said.starts_with("[PM2] Updated from"), "{said}");
    assert_eq!(musher.pids("tick"), pids);
}

#[test]
fn a_keeper_too_old_for_this_daemon_is_replaced() {
    // Version 1: it gives nothing, says END, and reads on.
    const OLD: &str = "import socket, subprocess, sys\n\
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
        fd = theirs.fileno()\n\
        argv = [sys.argv[3], 'daemon', '--home', sys.argv[2], '--keeper-fd', str(fd)]\n\
        subprocess.Popen(argv, pass_fds=[fd])\n\
        theirs.close()\n\
        ours.send(b'\\x43\\x01')\n\
        while ours.recv(300): pass\n";
    let musher = Musher::new();
    musher.write("keeper", OLD);
    std::fs::create_dir(musher.home()).expect("a home");
    let mut old = Command::new("python3")
        .args(["keeper", "--home"])
        .arg(musher.home())
        .arg(OWN)
        .current_dir(musher.cwd())
        .stderr(File::create(musher.home().join("pm2.log")).expect("a log"))
        .spawn()
        .expect("python3");
    let pid = i64::from(old.id());
    let status = musher.wait("its end", || old.try_wait().expect("a child"));
    assert!(!status.success() && !is_alive(pid));
    musher.wait("another keeper", || {
        let log = std::fs::read_to_string(musher.home().join("pm2.log")).ok()?;
        log.contains("another keeper holds everything again")
            .then_some(())
    });
    let pids = musher.tick();
    musher.updated(Path::new(OWN));
    assert_eq!(musher.pids("tick"), pids);
}
