//! What the tests share: plans, children and waits with a deadline.

// Each test file compiles this module and uses a part of it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use musher_core::exit::ExitStatus;
use musher_core::supervisor::{AppKey, Channel, Output, SpawnPlan};
use musher_os::spawn::{ExecOutcome, SpawnError, Spawned, Stdio, read_exec_result, spawn};
use musher_os::{fd, reap};

/// Long enough for a loaded machine; reached only by a failing test.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn plan(argv: &[&str]) -> SpawnPlan {
    SpawnPlan {
        app: AppKey {
            namespace: "default".to_owned(),
            name: "app".to_owned(),
        },
        slot: 0,
        balance: musher_core::app::Balance::Even,
        sticky: None,
        program: argv[0].to_owned(),
        args: argv[1..]
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect(),
        env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
        cwd: "/".to_owned(),
        run_as: None,
        channel: Channel::Fork,
        listen: Vec::new(),
        output: Output::default(),
        pid_path: String::new(),
        script: String::new(),
    }
}

/// A started child and the read ends of its output.
pub struct Child {
    pub spawned: Spawned,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

pub fn try_start(plan: &SpawnPlan, extra: &[(&str, &str)]) -> Result<Child, SpawnError> {
    start_with_channel(plan, extra, None)
}

pub fn start_with_channel(
    plan: &SpawnPlan,
    extra: &[(&str, &str)],
    channel: Option<OwnedFd>,
) -> Result<Child, SpawnError> {
    let (stdout, child_out) = fd::pipe().unwrap();
    let (stderr, child_err) = fd::pipe().unwrap();
    let stdio = Stdio {
        stdin: fd::dev_null().unwrap(),
        stdout: child_out,
        stderr: child_err,
        channel,
    };
    let extra: Vec<_> = extra
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    Ok(Child {
        spawned: spawn(plan, &extra, None, stdio)?,
        stdout,
        stderr,
    })
}

pub fn start(argv: &[&str]) -> Child {
    let child = try_start(&plan(argv), &[]).unwrap();
    assert_eq!(exec_outcome(&child.spawned), ExecOutcome::Executed);
    child
}

pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn exec_outcome(spawned: &Spawned) -> ExecOutcome {
    until("exec result", || {
        read_exec_result(&spawned.exec_pipe).unwrap()
    })
}

pub fn exit_of(pid: u32) -> ExitStatus {
    until("exit", || reap::try_wait(pid).unwrap())
}

pub fn read_all(pipe: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(pipe).read_to_string(&mut text).unwrap();
    text
}

/// Reads up to the newline, so that a child can go on running.
pub fn read_line(pipe: &OwnedFd) -> String {
    let mut file = std::fs::File::from(fd::dup(pipe).unwrap());
    let mut line = Vec::new();
    let mut byte = [0_u8; 1];
    while file.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
