//! A hermetic musher: the real binary, its own home, killed on drop.
//!
//! Every test binary includes this module and uses a part of it.
#![allow(dead_code)]

use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition is waited for before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One musher with a home and a working directory of its own.
pub struct Musher {
    dir: tempfile::TempDir,
    name: String,
    vars: Vec<(String, String)>,
}

/// What a command printed and how it ended.
pub struct Ran {
    /// Exit code; -1 for a death by signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Musher {
    /// Returns a fresh home; nothing runs.
    pub fn new() -> Musher {
        Musher::called("musher")
    }

    /// Returns a fresh home whose commands are called by another name (`pm2`).
    pub fn called(name: &str) -> Musher {
        let dir = tempfile::Builder::new()
            .prefix("musher-")
            .tempdir()
            .expect("a scratch dir");
        let musher = Musher {
            dir,
            name: name.to_owned(),
            vars: Vec::new(),
        };
        std::fs::create_dir(musher.cwd()).expect("a working directory");
        if name != "musher" {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_musher"), musher.program())
                .expect("a link to the binary");
        }
        musher
    }

    /// Sets a variable of every command that follows.
    pub fn set(&mut self, name: &str, value: &str) {
        self.vars.push((name.to_owned(), value.to_owned()));
    }

    /// Returns the home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Returns the directory commands run in.
    pub fn cwd(&self) -> PathBuf {
        self.dir.path().join("cwd")
    }

    /// Returns the path of the program as it is called.
    pub fn program(&self) -> PathBuf {
        if self.name == "musher" {
            return PathBuf::from(env!("CARGO_BIN_EXE_musher"));
        }
        self.dir.path().join(&self.name)
    }

    /// Writes a file into the working directory and returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.cwd().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Returns the path of a fixture in `tests/apps`.
    pub fn app(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/apps")
            .join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Returns a command with a cleared environment, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command
            .args(args)
            .current_dir(self.cwd())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("MUSHER_HOME", self.home())
            .env("PM2_HOME", self.home())
            .env("TZ", "UTC")
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().expect("the binary runs"))
    }

    /// Runs a command that must succeed and returns its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(
            ran.code,
            0,
            "{args:?}\nstdout: {}\nstderr: {}\n{}",
            ran.stdout,
            ran.stderr,
            self.evidence()
        );
        ran.stdout
    }

    /// Returns `jlist`.
    pub fn list(&self) -> Vec<Value> {
        let text = self.ok(&["jlist"]);
        let list: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("jlist is not JSON ({error}): {text}"));
        list.as_array().expect("an array").clone()
    }

    /// Returns the processes of an app, ascending ids.
    pub fn of(&self, name: &str) -> Vec<Value> {
        self.list()
            .into_iter()
            .filter(|process| process["name"] == name)
            .collect()
    }

    /// Returns the pids of an app that are not 0.
    pub fn pids(&self, name: &str) -> Vec<i64> {
        self.of(name)
            .iter()
            .filter_map(|p| p["pid"].as_i64())
            .filter(|pid| *pid > 0)
            .collect()
    }

    /// Waits until every process of an app has this status, and there are `n`.
    pub fn wait_status(&self, name: &str, n: usize, status: &str) -> Vec<Value> {
        self.wait(&format!("{n} processes of {name} {status}"), || {
            let list = self.of(name);
            let all = list.iter().all(|p| p["pm2_env"]["status"] == status);
            (all && list.len() == n).then_some(list)
        })
    }

    /// Waits for a condition and returns what it gave.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        match wait_for(PATIENCE, condition) {
            Some(value) => value,
            None => panic!("not within {PATIENCE:?}: {what}\n{}", self.evidence()),
        }
    }

    /// Returns whether a log file of an app in the home holds this text.
    pub fn log_has(&self, name: &str, text: &str) -> Option<()> {
        let logs = std::fs::read_dir(self.home().join("logs")).ok()?;
        logs.flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
            .any(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|log| log.contains(text)))
            .then_some(())
    }

    /// Writes a config file and starts it; it must succeed.
    pub fn start(&self, config: &str) -> String {
        let path = self.write("ecosystem.config.js", config);
        self.ok(&["start", path.to_str().expect("a path")])
    }

    /// Returns the text of a log file of the home, empty when there is none.
    pub fn log(&self, file: &str) -> String {
        std::fs::read_to_string(self.home().join("logs").join(file)).unwrap_or_default()
    }

    /// Returns the facts (lines that are JSON objects) of an app's logs.
    pub fn facts(&self, name: &str) -> Vec<Value> {
        let Ok(logs) = std::fs::read_dir(self.home().join("logs")) else {
            return Vec::new();
        };
        logs.flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
            .flat_map(|entry| {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let facts = log
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok());
                facts.collect::<Vec<Value>>()
            })
            .collect()
    }

    /// Waits for `n` facts of an app with this event.
    pub fn wait_facts(&self, name: &str, event: &str, n: usize) -> Vec<Value> {
        self.wait(&format!("{n} times {event} of {name}"), || {
            let mut facts = self.facts(name);
            facts.retain(|fact| fact["event"] == event);
            (facts.len() >= n).then_some(facts)
        })
    }

    /// Kills the daemon with SIGKILL and waits until the next one answers.
    pub fn kill_daemon(&self) {
        let daemon = i64::from(self.daemon_pid());
        kill(daemon, "KILL");
        self.wait("another daemon", || {
            (i64::from(self.daemon_pid()) != daemon && self.run(&["ping"]).code == 0).then_some(())
        });
    }

    /// Calls a method of `rpc.sock`; `Err` is the daemon's error.
    pub fn rpc(&self, method: &str, args: &Value) -> Result<Value, Value> {
        let body = serde_json::json!({ "type": "call", "method": method, "args": args });
        let mut frame = vec![0x12];
        for arg in [format!("j:{body}"), "s:1:1".to_owned()] {
            let length = u32::try_from(arg.len()).expect("a short argument");
            frame.extend(length.to_be_bytes());
            frame.extend(arg.as_bytes());
        }
        let mut socket = UnixStream::connect(self.home().join("rpc.sock")).expect("rpc.sock");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.write_all(&frame).expect("the call is sent");
        let reply = read_frame(&mut socket).expect("a reply");
        let reply: Value = serde_json::from_slice(&reply[0][2..]).expect("JSON");
        let answer = &reply["args"];
        if reply["error"].is_null() {
            Ok(answer[0].clone())
        } else {
            Err(reply["error"].clone())
        }
    }

    /// Returns the pid of the daemon.
    pub fn daemon_pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.home().join("pm2.pid")).expect("a pid file");
        text.trim().parse().expect("a pid")
    }

    /// Returns what a failed test wants to show.
    pub fn evidence(&self) -> String {
        let mut text = String::new();
        let mut files = vec![self.home().join("pm2.log")];
        if let Ok(logs) = std::fs::read_dir(self.home().join("logs")) {
            files.extend(logs.flatten().map(|entry| entry.path()));
        }
        for path in files {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let _ = writeln!(text, "--- {}", path.display());
            for line in tail.iter().rev() {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

impl Drop for Musher {
    fn drop(&mut self) {
        // Whatever the test did, nothing of it survives.
        let _ = self.command(&["kill"]).output();
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for a condition, looking every 10 ms.
pub fn wait_for<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Returns whether a process exists and is no zombie; one whose first thread
/// has ended lives as long as another runs.
pub fn is_alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 3 and 20 of proc_pid_stat(5).
    match (fields.first(), fields.get(17)) {
        (Some(&"X"), _) | (Some(&"Z"), Some(&("0" | "1"))) => false,
        (Some(_), Some(_)) => true,
        _ => false,
    }
}

/// Returns the parent of a process.
pub fn parent(pid: i64) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let after_name = stat.rsplit(") ").next().expect("fields");
    let ppid = after_name.split(' ').nth(1).expect("a parent");
    ppid.parse().expect("a pid")
}

/// Sends a signal by name with kill(1).
pub fn kill(pid: i64, signal: &str) {
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -{signal} {pid}"
    );
}

/// Reads one AMP frame and returns its arguments.
pub fn read_frame(socket: &mut UnixStream) -> std::io::Result<Vec<Vec<u8>>> {
    let mut meta = [0];
    socket.read_exact(&mut meta)?;
    (0..meta[0] & 15)
        .map(|_| {
            let mut length = [0; 4];
            socket.read_exact(&mut length)?;
            let mut arg = vec![0; u32::from_be_bytes(length) as usize];
            socket.read_exact(&mut arg)?;
            Ok(arg)
        })
        .collect()
}

/// Returns a port nobody listens on at this moment, below those the kernel
/// gives to clients: a connection of another test cannot take it meanwhile.
pub fn free_port() -> u16 {
    static N_ASKED: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const N_PORTS: u32 = 20_000;
    // Tests run as processes of their own, at the same time.
    let own = std::process::id().wrapping_mul(61);
    (0..N_PORTS)
        .map(|_| {
            let at = own.wrapping_add(N_ASKED.fetch_add(1, Ordering::Relaxed));
            u16::try_from(FIRST + at % N_PORTS).expect("below 30,000")
        })
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Sends `GET path` on a connection of its own and returns the body.
pub fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!(
            "no 200 from port {port}: {answer:?}"
        ))),
    }
}
