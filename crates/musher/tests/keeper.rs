//! The keeper as a real process, with a script in the daemon's place.
//!
//! The script hands its end of the keeper's socket to the test, so the test
//! speaks as the daemon through the real client, and can kill the script.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::{KeeperClient, KeeperMessage, Restored};
use musher_core::exit::{ExitStatus, Signal};
use musher_os::{fd, kill, reap};

// The daemon's side, as the daemon compiles it.
#[path = "../src/keeper/client.rs"]
#[allow(dead_code, reason = "a test needs a part of it")]
mod client;
#[path = "../src/keeper/protocol.rs"]
#[allow(dead_code, reason = "the keeper's half is in the process under test")]
mod protocol;

const DEADLINE: Duration = Duration::from_secs(20);
const SIGCONT: Signal = Signal(18);
const SIGSTOP: Signal = Signal(19);

const DAEMON: &str = r#"#!/usr/bin/env python3
import os, signal, socket, sys, time
def option(name): return sys.argv[sys.argv.index(name) + 1]
assert sys.argv[1] == 'daemon', sys.argv
s = socket.socket(socket.AF_UNIX)
s.connect(option('--home') + '/test.sock')
signal.signal(signal.SIGTERM, lambda *_: s.send(b'TERM'))
keeper = int(option('--keeper-fd'))
socket.send_fds(s, [b'%d\n' % os.getpid()], [keeper])
os.close(keeper)
alive, held = os.pipe()
while True:
    words = s.recv(100).decode().split()
    if not words: os._exit(0)
    if words[0] == 'exit': os._exit(int(words[1]))
    if words[0] == 'workers':
        for _ in range(int(words[1])):
            pid = os.fork()
            if pid == 0:
                os.close(held)
                os.read(alive, 1)  # the end of the pipe is the daemon's
                os._exit(int(words[2]))
        s.send(b'%d\n' % pid)
"#;

/// A home, a keeper in it, and where its daemons report.
struct Bench {
    home: tempfile::TempDir,
    daemons: UnixListener,
    keeper: Child,
    ready: UnixStream,
}

/// One life of the script.
struct Daemon {
    pid: u32,
    script: UnixStream,
    client: KeeperClient,
    restored: Restored,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_daemon(DAEMON)
    }

    fn with_daemon(script: &str) -> Bench {
        let home = home_with(script);
        Bench::with_keeper(home, None)
    }

    fn with_keeper(home: tempfile::TempDir, adopted: Option<(OwnedFd, u32)>) -> Bench {
        let daemons = UnixListener::bind(home.path().join("test.sock")).unwrap();
        daemons.set_nonblocking(true).unwrap();
        let (keeper, ready) = start_keeper(home.path(), adopted);
        Bench {
            home,
            daemons,
            keeper,
            ready,
        }
    }

    /// Waits for the next daemon and takes back what it is given.
    fn daemon(&self) -> Daemon {
        let (script, _) = until("daemon", || self.daemons.accept().ok());
        let (mut line, mut fds) = ([0; 64], VecDeque::new());
        script.set_nonblocking(false).unwrap();
        script.set_read_timeout(Some(DEADLINE)).unwrap();
        let received = fd::receive_waiting(script.as_fd(), &mut line, &mut fds).unwrap();
        let pid = std::str::from_utf8(&line[..received.len])
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let mut client = KeeperClient::from_fd(fds.pop_front().unwrap()).unwrap();
        let restored = client.take_back().unwrap();
        Daemon {
            pid,
            script,
            client,
            restored,
        }
    }

    fn keeper_exit(&mut self) -> Option<i32> {
        until("end of the keeper", || self.keeper.try_wait().unwrap()).code()
    }

    fn signal_keeper(&self, signal: Signal) {
        kill::signal(reap::pidfd_open(self.keeper.id()).unwrap(), signal).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Without the keeper nobody starts a daemon again; the script ends
        // when the test's end of its socket closes.
        self.keeper.kill().ok();
        self.keeper.wait().ok();
    }
}

impl Daemon {
    fn kill(&self) {
        kill::signal(reap::pidfd_open(self.pid).unwrap(), Signal::KILL).unwrap();
    }

    fn command(&mut self, text: &str) {
        self.script.write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut buffer = [0; 64];
        let len = self.script.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec())
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Waits until `n` exits were told, before END or after it.
    fn exits(&self, n: usize) -> Vec<(u32, ExitStatus)> {
        let mut exits = self.restored.exits.clone();
        while exits.len() < n {
            match until("exit", || self.client.try_recv().unwrap()) {
                KeeperMessage::Exited { pid, status } => exits.push((pid, status)),
                KeeperMessage::Refused(name) => panic!("{name} was refused"),
                other @ (KeeperMessage::Pong | KeeperMessage::Go) => panic!("{other:?}"),
            }
        }
        exits
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .restored
            .fds
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        names
    }
}

fn home_with(script: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let exe = home.path().join("daemon.py");
    std::fs::write(&exe, script).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// Makes its stdin the ready descriptor 3 and its stdout the adopted
/// descriptor 4, then becomes the keeper.
const LAUNCHER: &str = "import os,sys
null=os.dup2(os.open('/dev/null',os.O_RDWR),9,inheritable=False)
for old,new in (0,3),(1,4),(null,0),(null,1): os.dup2(old,new)
os.execv(sys.argv[1],sys.argv[1:])";

fn start_keeper(home: &Path, adopted: Option<(OwnedFd, u32)>) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(home.join("log"))
        .unwrap();
    let mut command = Command::new("python3");
    command
        .args([
            "-c",
            LAUNCHER,
            env!("CARGO_BIN_EXE_musher"),
            "keeper",
            "--home",
        ])
        .arg(home)
        .arg("--exe")
        .arg(home.join("daemon.py"))
        .args(["--ready-fd", "3"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(log);
    if let Some((socket, pid)) = adopted {
        command
            .args(["--adopt-fd", "4", "--daemon-pid", &pid.to_string()])
            .stdout(socket);
    }
    ours.set_read_timeout(Some(DEADLINE)).unwrap();
    (command.spawn().unwrap(), ours)
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn byte_of(ready: &mut UnixStream) -> u8 {
    let mut byte = [0];
    ready.read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn parked_descriptors_come_back_after_kill_9_and_pipes_stay_whole() {
    let bench = Bench::new();
    let first = bench.daemon();
    assert_eq!(
        (first.restored.fds.len(), first.restored.exits.len()),
        (0, 0)
    );
    let (read, write) = fd::pipe().unwrap();
    for name in ["run 1 out", "run 1 err", "run 2 out", "listen"] {
        first.client.park(name, read.as_fd()).unwrap();
    }
    first
        .client
        .park("listen", fd::dev_null().unwrap().as_fd())
        .unwrap();
    first.client.drop_fd("run 1 err").unwrap();
    first.client.drop_prefix("run 2 ").unwrap();
    first.client.ready().unwrap();
    first.kill();
    drop(read);
    // Only the keeper holds the read end: this would be EPIPE without it.
    rustix::io::write(&write, b"kept").unwrap();
    let second = bench.daemon();
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.names(), ["listen", "run 1 out"]);
    let pipe = second
        .restored
        .fds
        .iter()
        .find(|(name, _)| name == "run 1 out")
        .unwrap();
    let mut bytes = [0; 8];
    assert_eq!(rustix::io::read(&pipe.1, &mut bytes).unwrap(), 4);
    assert_eq!(&bytes[..4], b"kept");
}

#[test]
fn an_orphan_that_ended_without_a_daemon_is_told_to_the_next() {
    let bench = Bench::new();
    let mut first = bench.daemon();
    first.command("workers 1 9");
    let worker: u32 = first.answer().parse().unwrap();
    first.kill();
    let second = bench.daemon();
    assert_eq!(second.exits(1), [(worker, ExitStatus::Code(9))]);
}

#[test]
fn an_end_is_told_to_each_daemon_until_one_says_that_it_is_stored() {
    let bench = Bench::new();
    let mut first = bench.daemon();
    first.client.ready().unwrap();
    first.command("workers 1 9");
    let worker: u32 = first.answer().parse().unwrap();
    first.kill();
    for _ in 0..2 {
        let next = bench.daemon();
        assert_eq!(next.exits(1), [(worker, ExitStatus::Code(9))]);
        next.client.ready().unwrap();
        next.kill();
    }
    let last = bench.daemon();
    assert_eq!(last.exits(1), [(worker, ExitStatus::Code(9))]);
    last.client.heard(worker).unwrap();
    last.client.ready().unwrap();
    last.kill();
    assert_eq!(bench.daemon().restored.exits, []);
}

#[test]
fn a_hand_over_is_answered_taken_back_by_ready_and_undone_with_its_reason() {
    let bench = Bench::new();
    let go = |daemon: &Daemon| until("GO", || daemon.client.try_recv().unwrap());
    let first = bench.daemon();
    assert_eq!(first.client.version(), 2);
    first.client.ready().unwrap();
    first.client.hand_over("/nonexistent/musher").unwrap();
    assert_eq!(go(&first), KeeperMessage::Go);
    // It stays after all: its end is a crash, and not the hand-over.
    first.client.ready().unwrap();
    first.kill();
    let mut second = bench.daemon();
    assert_eq!(second.restored.why, None);
    second.client.ready().unwrap();
    second.client.hand_over("/nonexistent/musher").unwrap();
    assert_eq!(go(&second), KeeperMessage::Go);
    second.command("exit 0");
    let third = bench.daemon();
    let why = third.restored.why.clone().unwrap();
    assert!(why.contains("cannot execute /nonexistent/musher"), "{why}");
    assert!(why.contains("(ENOENT)"), "{why}");
    third.client.ready().unwrap();
    third.client.ping().unwrap();
    assert_eq!(go(&third), KeeperMessage::Pong);
}

#[test]
fn a_daemon_that_hands_over_and_does_not_leave_is_killed() {
    let bench = Bench::new();
    let first = bench.daemon();
    first.client.ready().unwrap();
    let next = bench.home.path().join("daemon.py");
    first.client.hand_over(next.to_str().unwrap()).unwrap();
    let second = bench.daemon();
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.restored.why, None);
}

#[test]
fn a_storm_of_orphans_that_came_as_one_signal_is_told_to_the_last() {
    let bench = Bench::new();
    let mut first = bench.daemon();
    first.command("workers 600 3");
    first.answer();
    let started = reap::start_time(first.pid).unwrap();
    bench.signal_keeper(SIGSTOP);
    first.kill();
    let living = || kill::Tree::snapshot(first.pid, started).unwrap();
    until("end of all workers", || living().is_empty().then_some(()));
    bench.signal_keeper(SIGCONT);
    let exits = bench.daemon().exits(600);
    assert!(
        exits
            .iter()
            .all(|(_, status)| *status == ExitStatus::Code(3))
    );
}

#[test]
fn ready_is_passed_on_once_and_quit_ends_the_keeper() {
    let mut bench = Bench::new();
    let first = bench.daemon();
    first.client.ready().unwrap();
    assert_eq!(byte_of(&mut bench.ready), b'R');
    assert_eq!(bench.ready.read(&mut [0]).unwrap(), 0);
    first.kill();
    let mut second = bench.daemon();
    second.client.quit().unwrap();
    second.command("exit 0");
    assert_eq!(bench.keeper_exit(), Some(0));
    let error = until("end", || second.client.try_recv().err());
    assert!(matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    ));
    assert!(second.client.park("late", second.script.as_fd()).is_err());
}

#[test]
fn a_second_keeper_says_busy_and_leaves() {
    let bench = Bench::new();
    let first = bench.daemon();
    let (mut other, mut ready) = start_keeper(bench.home.path(), None);
    assert_eq!(byte_of(&mut ready), b'B');
    assert_eq!(until("end", || other.try_wait().unwrap()).code(), Some(0));
    first.client.ready().unwrap();
}

#[test]
fn sigterm_waits_for_ready_and_reaches_the_daemon() {
    let bench = Bench::new();
    let mut daemon = bench.daemon();
    bench.signal_keeper(Signal::TERM);
    daemon.client.ready().unwrap();
    assert_eq!(daemon.answer(), "TERM");
    bench.signal_keeper(Signal::TERM);
    assert_eq!(daemon.answer(), "TERM");
}

#[test]
fn a_daemon_that_never_gets_ready_is_given_up() {
    let mut bench = Bench::with_daemon("#!/usr/bin/env python3\nimport os\nos._exit(7)\n");
    assert_eq!(bench.keeper_exit(), Some(1));
    assert_eq!(bench.ready.read(&mut [0]).unwrap(), 0);
    let log = bench.log();
    assert_eq!(log.matches("ended: exit 7").count(), 5, "{log}");
}

#[test]
fn a_daemon_that_once_was_ready_is_started_again_for_ever() {
    let bench = Bench::new();
    let mut daemon = bench.daemon();
    daemon.client.ready().unwrap();
    for _ in 0..6 {
        daemon.command("exit 0");
        daemon = bench.daemon();
    }
}

#[test]
fn an_executable_that_is_gone_is_named_in_the_log() {
    let mut bench = Bench::with_daemon("#!/no/such/interpreter\n");
    assert_eq!(bench.keeper_exit(), Some(1));
    let log = bench.log();
    assert!(
        log.contains("daemon.py: no such file or directory (ENOENT)"),
        "{log}"
    );
}

#[test]
fn a_thousand_descriptors_outlive_five_daemons() {
    let bench = Bench::new();
    fd::raise_limit().unwrap();
    let mut daemon = bench.daemon();
    let null = fd::dev_null().unwrap();
    for number in 0..1000 {
        daemon
            .client
            .park(&format!("fd {number}"), null.as_fd())
            .unwrap();
    }
    daemon.client.ready().unwrap();
    for _ in 0..5 {
        daemon.kill();
        daemon = bench.daemon();
        assert_eq!(daemon.restored.fds.len(), 1000);
    }
}

#[test]
fn what_is_said_last_is_heard_although_the_daemon_is_dead() {
    let mut bench = Bench::new();
    let daemon = bench.daemon();
    bench.signal_keeper(SIGSTOP);
    // More than the keeper takes in one turn.
    for number in 0..100 {
        daemon.client.drop_fd(&format!("fd {number}")).unwrap();
    }
    daemon.client.quit().unwrap();
    daemon.kill();
    bench.signal_keeper(SIGCONT);
    assert_eq!(bench.keeper_exit(), Some(0));
}

#[test]
fn a_name_that_cannot_be_parked_is_refused_by_the_client() {
    let bench = Bench::new();
    let daemon = bench.daemon();
    for name in [String::new(), "n".repeat(201)] {
        let error = daemon
            .client
            .park(&name, daemon.script.as_fd())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_daemon_that_lost_its_keeper_is_adopted_by_the_next() {
    let (keepers, ours) = fd::seqpacket_pair(fd::Blocking::Waits).unwrap();
    let mut orphan = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut bench = Bench::with_keeper(home_with(DAEMON), Some((keepers, orphan.id())));
    assert_eq!(byte_of(&mut bench.ready), b'R');
    let mut client = KeeperClient::from_fd(ours).unwrap();
    assert!(client.take_back().unwrap().fds.is_empty());
    client
        .park("again", fd::dev_null().unwrap().as_fd())
        .unwrap();
    orphan.kill().unwrap();
    let next = bench.daemon();
    assert_eq!(next.names(), ["again"]);
    orphan.wait().unwrap();
}
