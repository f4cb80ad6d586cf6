//! A small daemon for the tests: spawns apps, collects events, waits.

use crate::daemon::balance::{BalanceEvent, Balancer, Child, Probed};
use musher_core::app::agent::{NODE_OPTIONS, with_agent};
use musher_core::app::{Balance, Sticky};
use musher_core::cluster::takeover_seq;
use musher_core::exit::Signal;
use musher_core::id::Incarnation;
use musher_core::supervisor::action::{AppKey, Channel, Output, SpawnPlan};
use musher_core::supervisor::event::{AppMessage, Drained};
use musher_os::fd::{self, Blocking};
use musher_os::spawn::{Spawned, Stdio, spawn};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const ALL: [Balance; 3] = [Balance::Even, Balance::Shared, Balance::RoundRobin];

/// Patience of every wait; generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

struct Started {
    process: Spawned,
    slot: u32,
    /// A second duplicate of musher's end, as the keeper has one.
    channel: OwnedFd,
    exited: bool,
}

pub(super) struct House {
    pub(super) port: u16,
    pub(super) channel: Channel,
    pub(super) sticky: Option<Sticky>,
    /// Workers are started with the agent.
    pub(super) agent: bool,
    balance: Balance,
    case: &'static str,
    dir: TempDir,
    balancer: Option<Balancer>,
    inbox: Receiver<BalanceEvent>,
    events: Vec<BalanceEvent>,
    parked: BTreeMap<String, OwnedFd>,
    tickets: BTreeMap<String, Value>,
    children: BTreeMap<Incarnation, Started>,
    n_unparked: usize,
    pub(super) notes: Vec<String>,
    pub(super) hung: Vec<(Incarnation, bool)>,
    n_runs: u64,
}

impl House {
    pub(super) fn new(balance: Balance, case: &'static str) -> House {
        let (balancer, inbox) = start_balancer(0);
        House {
            port: free_port(),
            channel: Channel::Worker,
            sticky: None,
            agent: false,
            balance,
            case,
            dir: TempDir::new().unwrap(),
            balancer: Some(balancer),
            inbox,
            events: Vec::new(),
            parked: BTreeMap::new(),
            tickets: BTreeMap::new(),
            children: BTreeMap::new(),
            n_unparked: 0,
            notes: Vec::new(),
            hung: Vec::new(),
            n_runs: 0,
        }
    }

    pub(super) fn balancer(&self) -> &Balancer {
        self.balancer.as_ref().unwrap()
    }

    pub(super) fn app(&self) -> AppKey {
        AppKey {
            namespace: "default".into(),
            name: "an/app".into(),
        }
    }

    pub(super) fn unix_path(&self) -> PathBuf {
        self.dir.path().join("app.sock")
    }

    pub(super) fn n_unparked(&self) -> usize {
        self.n_unparked
    }

    pub(super) fn start_many(&mut self, n: u32) -> Vec<Incarnation> {
        (0..n).map(|slot| self.start(slot)).collect()
    }

    pub(super) fn start(&mut self, slot: u32) -> Incarnation {
        self.n_runs += 1;
        let run = Incarnation(self.n_runs);
        let (ours, theirs) = fd::socketpair(Blocking::Waits).unwrap();
        fd::set_blocking(&ours, Blocking::NeverWaits).unwrap();
        let output = std::fs::File::create(self.dir.path().join(run.to_string())).unwrap();
        let stdio = Stdio {
            stdin: fd::dev_null().unwrap(),
            stdout: output.try_clone().unwrap().into(),
            stderr: output.into(),
            channel: Some(theirs),
        };
        let process = spawn(&self.plan(run, slot), &[], None, stdio).unwrap();
        let channel = fd::dup(&ours).unwrap();
        self.balancer().add(self.child(run, slot, ours));
        self.children.insert(
            run,
            Started {
                process,
                slot,
                channel,
                exited: false,
            },
        );
        run
    }

    fn child(&self, run: Incarnation, slot: u32, fd: OwnedFd) -> Child {
        let (app, balance, channel) = (self.app(), self.balance, self.channel);
        Child {
            run,
            app,
            slot,
            balance,
            sticky: self.sticky.clone(),
            channel,
            fd,
        }
    }

    fn plan(&self, run: Incarnation, slot: u32) -> SpawnPlan {
        let apps = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps");
        let script = format!("{apps}/cluster.cjs");
        let text = |name: &str, value: String| (name.to_owned(), value);
        let mut env = vec![
            text("PATH", std::env::var("PATH").unwrap()),
            text("NODE_CHANNEL_FD", "3".into()),
            text("APP_CASE", self.case.into()),
            text("APP_PORT", self.port.to_string()),
            text("APP_PATH", self.unix_path().display().to_string()),
        ];
        if self.channel == Channel::Worker {
            env.push(text("NODE_UNIQUE_ID", run.to_string()));
        }
        if self.agent {
            let path = self.dir.path().join("agent-0a.cjs");
            std::fs::write(&path, crate::agent::SCRIPT).unwrap();
            let options = with_agent(path.to_str().unwrap(), None);
            env.push(text(NODE_OPTIONS, options));
        }
        SpawnPlan {
            app: self.app(),
            slot,
            balance: musher_core::app::Balance::Even,
            sticky: None,
            program: std::env::var("MUSHER_TEST_NODE").unwrap_or_else(|_| "node".into()),
            args: vec![script.clone()],
            env,
            cwd: apps.into(),
            run_as: None,
            channel: self.channel,
            listen: Vec::new(),
            output: Output::default(),
            pid_path: String::new(),
            script,
        }
    }

    /// Ends the balance thread and starts another from what was kept.
    pub(super) fn replace_daemon(&mut self) {
        self.collect(Duration::ZERO);
        self.balancer = None;
        self.collect(Duration::ZERO);
        let (balancer, inbox) = start_balancer(takeover_seq(musher_os::clock::now().mono));
        (self.balancer, self.inbox) = (Some(balancer), inbox);
        for (name, fd) in &self.parked {
            self.balancer()
                .restore_listener(name.clone(), fd::dup(fd).unwrap());
        }
        for (name, data) in &self.tickets {
            self.balancer().restore_ticket(name.clone(), data.clone());
        }
        for (run, started) in &self.children {
            let keys = self.keys_of(*run);
            let child = self.child(*run, started.slot, fd::dup(&started.channel).unwrap());
            self.balancer().restore_worker(child, keys);
        }
    }

    fn keys_of(&self, run: Incarnation) -> Vec<String> {
        let key = |event: &BalanceEvent| match event {
            BalanceEvent::Said {
                run: who,
                message: AppMessage::Listening { key },
            } if *who == run => Some(key.clone()),
            _ => None,
        };
        self.events.iter().filter_map(key).collect()
    }

    /// Waits until `condition` holds, collecting events meanwhile.
    pub(super) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut House) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "{:?} {}: waited for {what}: {:?} {:?}",
                self.balance,
                self.case,
                self.events,
                self.children
                    .keys()
                    .map(|run| self.output(*run))
                    .collect::<Vec<_>>(),
            );
            self.collect(Duration::from_millis(5));
        }
    }

    fn collect(&mut self, patience: Duration) {
        if let Ok(event) = self.inbox.recv_timeout(patience) {
            self.take(event);
        }
        while let Ok(event) = self.inbox.try_recv() {
            self.take(event);
        }
        for started in self.children.values_mut().filter(|started| !started.exited) {
            let [ended] =
                fd::wait_readable([started.process.pidfd.as_fd()], Some(Duration::ZERO)).unwrap();
            started.exited = ended;
        }
    }

    fn take(&mut self, event: BalanceEvent) {
        match event {
            BalanceEvent::Channel { .. } | BalanceEvent::AllParked { .. } => {}
            BalanceEvent::Park { name, fd } => drop(self.parked.insert(name, fd)),
            BalanceEvent::Unpark { name } => {
                self.n_unparked += 1;
                self.parked.remove(&name);
            }
            BalanceEvent::Ticket { name, data } => drop(self.tickets.insert(name, data)),
            BalanceEvent::Note(text) => self.notes.push(text),
            BalanceEvent::Hung { run, is_hung } => self.hung.push((run, is_hung)),
            other => self.events.push(other),
        }
    }

    pub(super) fn lines_of(&self, run: Incarnation) -> Vec<&[u8]> {
        let mut lines = Vec::new();
        for event in &self.events {
            match event {
                BalanceEvent::Raw { run: who, line } if *who == run => lines.push(&line[..]),
                _ => {}
            }
        }
        lines
    }

    /// Waits for a message of the app and returns the first such.
    pub(super) fn wait_raw(&mut self, run: Incarnation, event: &str) -> Value {
        let mut found = Value::Null;
        self.until(event, |house| {
            let is_it = |line: &[u8]| {
                let value: Value = serde_json::from_slice(line).ok()?;
                (value["event"] == event).then_some(value)
            };
            let lines = house.lines_of(run);
            match lines.into_iter().find_map(is_it) {
                Some(value) => found = value,
                None => return false,
            }
            true
        });
        found
    }

    pub(super) fn wait_line(&mut self, run: Incarnation, part: &[u8]) {
        self.until("a line", |house| {
            let lines = house.lines_of(run);
            lines
                .iter()
                .any(|line| line.windows(part.len()).any(|window| window == part))
        });
    }

    pub(super) fn wait_said(&mut self, run: Incarnation, wanted: &AppMessage) {
        self.until("a message", |house| {
            house.events.iter().any(|event| match event {
                BalanceEvent::Said { run: who, message } => *who == run && message == wanted,
                _ => false,
            })
        });
    }

    /// Waits for the end of a drain.
    pub(super) fn wait_drained(&mut self, run: Incarnation) -> Drained {
        let mut found = None;
        self.until("the end of a drain", |house| {
            found = house.events.iter().find_map(|event| match event {
                BalanceEvent::Said {
                    run: who,
                    message: AppMessage::Drained(drained),
                } if *who == run => Some(*drained),
                _ => None,
            });
            found.is_some()
        });
        found.unwrap()
    }

    pub(super) fn n_keys(&self, run: Incarnation) -> usize {
        self.keys_of(run).len()
    }

    pub(super) fn wait_listening(&mut self, run: Incarnation) {
        self.until("listening", |house| !house.keys_of(run).is_empty());
    }

    /// Waits for the end of a run, then forgets it as the loop would.
    pub(super) fn wait_exit(&mut self, run: Incarnation) {
        self.until("exit", |house| house.children[&run].exited);
        self.balancer().forget(run);
        self.children.remove(&run);
    }

    pub(super) fn kill(&mut self, run: Incarnation) {
        send_kill(&self.children[&run].process);
        self.wait_exit(run);
    }

    /// Stops a run as a debugger would.
    pub(super) fn stop(&self, run: Incarnation) {
        self.signal(run, Signal(19));
    }

    /// Lets a stopped run go on.
    pub(super) fn cont(&self, run: Incarnation) {
        self.signal(run, Signal(18));
    }

    /// Returns how often the balance threads of this process gave up the
    /// processor of their own will.
    pub(super) fn n_waits(&self) -> u64 {
        let mut n_waits = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            let read =
                |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            if read("comm").trim() != "balance" {
                continue;
            }
            let status = read("status");
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches"));
            let count = line.and_then(|line| line.split_whitespace().last());
            n_waits += count
                .and_then(|count| count.parse::<u64>().ok())
                .unwrap_or(0);
        }
        n_waits
    }

    /// Hands a connection to a worker, as a probe does.
    pub(super) fn begin_probe(&self, run: Incarnation, port: u16) -> Probing {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let answer = self.balancer().injector().inject(run, port, theirs.into());
        Probing { ours, answer }
    }

    /// Asks a worker; returns its answer, or why there is none.
    pub(super) fn probe(&self, run: Incarnation, port: u16) -> Result<String, Option<Probed>> {
        self.begin_probe(run, port).end()
    }

    pub(super) fn signal(&self, run: Incarnation, signal: Signal) {
        musher_os::kill::signal(&self.children[&run].process.pidfd, signal).unwrap();
    }

    pub(super) fn pid_of(&self, run: Incarnation) -> u32 {
        self.children[&run].process.pid
    }

    /// Lets a run open no further descriptor.
    pub(super) fn take_descriptors_from(&self, run: Incarnation) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = self.pid_of(run);
        // The limit is on the number, and open ones are the lowest but for gaps:
        // below them all, any new one fails (getrlimit(2)).
        let none = Rlimit {
            current: Some(1),
            maximum: Some(1),
        };
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        prlimit(pid, Resource::Nofile, none).unwrap();
    }

    pub(super) fn output(&self, run: Incarnation) -> String {
        std::fs::read_to_string(self.dir.path().join(run.to_string())).unwrap_or_default()
    }
}

/// A question on its way.
pub(super) struct Probing {
    ours: TcpStream,
    answer: tokio::sync::oneshot::Receiver<Probed>,
}

impl Probing {
    pub(super) fn end(self) -> Result<String, Option<Probed>> {
        match self.answer.blocking_recv() {
            Ok(Probed::Taken) => Ok(ask(self.ours).unwrap()),
            Ok(other) => Err(Some(other)),
            Err(_) => Err(None),
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for started in self.children.values() {
            send_kill(&started.process);
        }
    }
}

fn send_kill(process: &Spawned) {
    let kill = rustix::process::Signal::from_named_raw(Signal::KILL.0).unwrap();
    let _ = rustix::process::pidfd_send_signal(&process.pidfd, kill);
}

fn start_balancer(first_seq: u64) -> (Balancer, Receiver<BalanceEvent>) {
    let (sender, inbox) = channel();
    let balancer = Balancer::start(first_seq, move |event| drop(sender.send(event))).unwrap();
    (balancer, inbox)
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("[::]:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Asks over one connection of its own; returns the body, the worker's pid.
pub(super) fn get(port: u16) -> io::Result<String> {
    get_within(port, PATIENCE)
}

pub(super) fn get_within(port: u16, patience: Duration) -> io::Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    ask(stream)
}

pub(super) fn get_unix(path: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask(stream)
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    body.filter(|body| !body.is_empty())
        .ok_or_else(|| io::Error::other("an empty answer"))
}
