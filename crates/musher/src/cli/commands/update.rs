//! `update`: another executable serves, and no app notices.
//!
//! The candidate is looked at before anything happens: whether it can be
//! executed here, is a musher, and reads what the daemon has stored. Then the
//! daemon hands over, and the next one tells how it went: if the candidate did
//! not become ready, the executable before serves again, and the exit code is 1.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use crate::client::{Client, RpcError};
use crate::daemon::CHECKED;
use crate::paths::Paths;
use musher_core::exit::{ExitStatus, Signal};
use musher_os::fd::{self, Blocking};
use musher_os::kill::Tree;
use musher_os::spawn::{self, ExecOutcome, SpawnError, Spawned, Stdio};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time the candidate may take to look at the state.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// What is read of what the candidate says.
const MAX_WORDS: usize = 64 * 1024;

/// Longest wait for the next daemon: a try, its undoing, and some patience.
const NEXT_LIMIT: Duration = Duration::from_secs(40);

/// Pause between two knocks.
const KNOCK_PAUSE: Duration = Duration::from_millis(1);

/// A daemon, as it reports itself.
struct Daemon {
    pid: u64,
    version: String,
    failure: Option<String>,
}

/// Replaces the daemon by the executable named, or by this one.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let executable = executable(ctx)?;
    let version = check(&executable, &ctx.paths)?;
    let Some(client) = ctx.running_daemon()? else {
        let home = ctx.paths.home.display().to_string();
        ctx.console.warn_err(&format!(
            "no daemon runs in {home}: there is nothing to update, the next command starts one"
        ));
        return Ok(0);
    };
    let before = Daemon::ask(client)?;
    let pids = pids(client)?;
    let path = executable
        .to_str()
        .ok_or_else(|| Failure::Error(format!("{} is no path in UTF-8", executable.display())))?;
    match client.call("musherUpdate", json!({ "executable": path })) {
        // The daemon may be faster than its answer.
        Ok(_) | Err(RpcError::Closed { .. }) => {}
        Err(RpcError::Refused(text)) if text.contains("musherUpdate") => {
            return Err(Failure::Helped {
                text: format!(
                    "the daemon is of version {} and cannot be updated",
                    before.version
                ),
                help: "once: `musher save`, `musher kill`, `musher resurrect`".to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    }
    ctx.client = None;
    let (mut client, after, gap) = next(&ctx.paths, before.pid)?;
    let kept = self::pids(&mut client)?;
    let n_kept = pids.iter().filter(|pid| kept.contains(pid)).count();
    let apps = format!("{n_kept} of {} processes kept their pids", pids.len());
    let gap = gap.as_millis();
    ctx.client = Some(client);
    if let Some(why) = after.failure {
        return Err(Failure::Helped {
            text: format!("the update failed and was undone: {why}"),
            help: format!(
                "version {} serves again after {gap} ms; {apps}",
                after.version
            ),
        });
    }
    if after.version != version {
        return Err(Failure::Error(format!(
            "version {} serves, and not {version}: see the daemon's log",
            after.version
        )));
    }
    let before = before.version;
    ctx.console.say(&format!(
        "Updated from {before} to {version} in {gap} ms; {apps}"
    ));
    Ok(0)
}

fn executable(ctx: &Context) -> Result<PathBuf, Failure> {
    let path = match ctx.parsed.operands.first() {
        Some(path) => Path::new(ctx.caller.cwd()).join(path),
        None => std::env::current_exe()?,
    };
    Ok(std::path::absolute(path)?)
}

impl Daemon {
    fn ask(client: &mut Client) -> Result<Daemon, RpcError> {
        let report = client.read("getReport", json!({}))?;
        let text = |key: &str| report.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(Daemon {
            pid: report.get("pid").and_then(Value::as_u64).unwrap_or(0),
            version: text("musher_version").unwrap_or_else(|| "unknown".to_owned()),
            failure: text("update_failed"),
        })
    }
}

/// Returns id and pid of every process that runs.
fn pids(client: &mut Client) -> Result<Vec<(u32, u64)>, RpcError> {
    let list = client.read("getMonitorData", json!({ "slim": true }))?;
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let pid = |process: &Value| process.get("pid").and_then(Value::as_u64);
    let pids = list
        .iter()
        .map(|p| (Process(p).id().0, pid(p).unwrap_or(0)));
    Ok(pids.filter(|(_, pid)| *pid > 0).collect())
}

/// Waits for a daemon of another pid to answer; returns how long it took.
fn next(paths: &Paths, before: u64) -> Result<(Client, Daemon, Duration), Failure> {
    let began = Instant::now();
    while began.elapsed() < NEXT_LIMIT {
        if let Some(mut client) = Client::connect(paths)? {
            match Daemon::ask(&mut client) {
                Ok(daemon) if daemon.pid != before => {
                    return Ok((client, daemon, began.elapsed()));
                }
                // It is on its way out, or was just replaced.
                Ok(_) | Err(_) => {}
            }
        }
        std::thread::sleep(KNOCK_PAUSE);
    }
    let log = paths.log_file.display();
    Err(Failure::Helped {
        text: format!(
            "no daemon answers {} s after the update",
            NEXT_LIMIT.as_secs()
        ),
        help: format!("the apps run on; see {log}"),
    })
}

/// Lets the candidate look at the state; returns its version.
fn check(executable: &Path, paths: &Paths) -> Result<String, Failure> {
    let words = [
        OsStr::new("daemon"),
        OsStr::new("--check"),
        OsStr::new("--home"),
    ];
    let mut argv = vec![executable.as_os_str().to_owned()];
    argv.extend(words.map(OsStr::to_owned));
    argv.push(paths.home.clone().into_os_string());
    let name = executable.display();
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::Error(format!(
            "{name} cannot take over: {why}; the daemon runs on as it was"
        ))
    };
    let said = ask_candidate(&argv).map_err(|error| unusable(&error))?;
    let value: Option<Value> = serde_json::from_slice(&said.out).ok();
    let version = value
        .as_ref()
        .and_then(|value| value.get(CHECKED)?.as_str());
    match (said.status, version) {
        (ExitStatus::Code(0), Some(version)) => Ok(version.to_owned()),
        (ExitStatus::Code(0), None) => Err(unusable(&"it is no musher, or an older one")),
        (status, _) => {
            let text = String::from_utf8_lossy(&said.err);
            let last = text.lines().rev().find(|line| !line.trim().is_empty());
            let why = last.map_or_else(|| format!("it ended: {status}"), str::to_owned);
            Err(unusable(&why.trim()))
        }
    }
}

/// What a candidate said, and how it ended.
struct Said {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Why a candidate said nothing.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    /// It cannot be executed.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It takes too long.
    #[error("it did not answer within {} s", CHECK_LIMIT.as_secs())]
    TimedOut,
    /// The system has no descriptor left, or the like.
    #[error("it cannot be asked: {0}")]
    Io(#[from] io::Error),
}

fn ask_candidate(argv: &[OsString]) -> Result<Said, CheckError> {
    let (out, stdout) = fd::pipe()?;
    let (err, stderr) = fd::pipe()?;
    for pipe in [&out, &err] {
        fd::set_blocking(pipe, Blocking::NeverWaits)?;
    }
    let stdio = Stdio {
        stdin: fd::dev_null()?,
        stdout,
        stderr,
        channel: None,
    };
    let child = spawn::spawn_own(argv, Path::new("/"), stdio)?;
    let ended = fd::wait_readable([child.pidfd.as_fd()], Some(CHECK_LIMIT))?;
    if ended != [true] {
        end(&child)?;
        return Err(CheckError::TimedOut);
    }
    let status = musher_os::reap::try_wait(child.pid)?.unwrap_or(ExitStatus::Unknown);
    if let Some(ExecOutcome::Failed { step, errno }) = spawn::read_exec_result(&child.exec_pipe)? {
        let subject = argv[0].to_string_lossy().into_owned();
        return Err(SpawnError {
            step,
            errno,
            subject,
        }
        .into());
    }
    Ok(Said {
        status,
        out: read(&out),
        err: read(&err),
    })
}

/// Kills a candidate and what it started.
fn end(child: &Spawned) -> io::Result<()> {
    Tree::snapshot(child.pid, child.start_time)?.signal_all(Signal::KILL);
    fd::wait_readable([child.pidfd.as_fd()], Some(CHECK_LIMIT))?;
    musher_os::reap::try_wait(child.pid)?;
    Ok(())
}

/// Reads what is in a pipe, without waiting for who still holds it.
fn read(pipe: &OwnedFd) -> Vec<u8> {
    let mut words = vec![0; MAX_WORDS];
    let mut len = 0;
    while let Ok(n) = rustix::io::read(pipe, &mut words[len..]) {
        if n == 0 {
            break;
        }
        len += n;
    }
    words.truncate(len);
    words
}
