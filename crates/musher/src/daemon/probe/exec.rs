//! A command that says whether an app is well.
//!
//! It runs in the app's directory and environment, as its user, in a session of
//! its own and without a descriptor of ours. Whatever is left of it when its
//! time is up is killed with all it started.

use super::Answer;
use crate::daemon::children::{exec_outcome, wait_shared};
use crate::daemon::readable::readable;
use crate::daemon::scout::Scout;
use crate::daemon::tree::{Ending, Scope};
use musher_core::exit::{ExitStatus, Signal};
use musher_core::supervisor::SpawnPlan;
use musher_os::fd::{self, Blocking};
use musher_os::kill::{Lineage, signal, signal_group};
use musher_os::spawn::{self, ExecOutcome, SpawnError, Spawned, Stdio, Step};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How much of the end of the output is kept, bytes.
const KEPT: usize = 4096;
/// Reads of what is left when it has ended: a full pipe and more.
const MAX_RESTS: u32 = 512;
/// Longest last line that is told, characters.
const MAX_LINE: usize = 300;

/// Runs the command of a plan to its end; code 0 is well.
pub(super) async fn ask(
    plan: &SpawnPlan,
    timeout: Duration,
    scout: &Scout,
    answer: Answer,
    mut forgotten: oneshot::Receiver<()>,
) {
    let words: Vec<&str> = std::iter::once(&plan.program)
        .chain(&plan.args)
        .map(String::as_str)
        .collect();
    let about = words.join(" ");
    let mut command = match Command::start(plan) {
        Ok(command) => command,
        Err(error) => return answer.give(Err(error.to_string())),
    };
    let running = tokio::time::timeout(timeout, command.run());
    let status = tokio::select! {
        biased;
        _ = &mut forgotten => None,
        status = running => Some(status),
    };
    match status {
        // Forgotten: nobody wants an answer.
        None => {}
        Some(Ok(Ok(ExitStatus::Code(0)))) => answer.give(Ok(())),
        Some(Ok(Ok(status))) => {
            let line = command.last_line();
            answer.give(Err(format!("{about} ended with {status}{line}")));
        }
        Some(Ok(Err(error))) => answer.give(Err(SpawnError::to_string(&error))),
        Some(Err(_)) => {
            let line = command.last_line();
            let limit = timeout.as_millis();
            answer.give(Err(format!("{about} did not end within {limit} ms{line}")));
        }
    }
    command.end(scout).await;
}

/// A command that was started. Dropping it kills what is left.
struct Command<'a> {
    plan: &'a SpawnPlan,
    pid: u32,
    start_time: u64,
    pidfd: Rc<OwnedFd>,
    exec_pipe: Option<OwnedFd>,
    output: Option<OwnedFd>,
    /// The same pipe, for what is in it when the command has ended.
    rest: OwnedFd,
    kept: Vec<u8>,
    is_reaped: bool,
}

impl Command<'_> {
    fn start(plan: &SpawnPlan) -> Result<Command<'_>, SpawnError> {
        let (stdio, output, rest) = stdio().map_err(|error| SpawnError {
            step: Step::Pipe,
            errno: error.raw_os_error().unwrap_or(0),
            subject: plan.program.clone(),
        })?;
        let Spawned {
            pid,
            pidfd,
            start_time,
            exec_pipe,
        } = spawn::spawn(plan, &[], None, stdio)?;
        Ok(Command {
            plan,
            pid,
            start_time,
            pidfd: Rc::new(pidfd),
            exec_pipe: Some(exec_pipe),
            output: Some(output),
            rest,
            kept: Vec::new(),
            is_reaped: false,
        })
    }

    async fn run(&mut self) -> Result<ExitStatus, SpawnError> {
        let plan = self.plan;
        let exec = match self.exec_pipe.take() {
            Some(pipe) => exec_outcome(pipe).await,
            None => ExecOutcome::Executed,
        };
        let status = self.finish().await;
        match exec {
            ExecOutcome::Executed => Ok(status),
            ExecOutcome::Failed { step, errno } => Err(SpawnError::of_child(step, errno, plan)),
        }
    }

    /// Reads its output until it has ended.
    async fn finish(&mut self) -> ExitStatus {
        let pidfd = Rc::clone(&self.pidfd);
        let ended = wait_shared(&pidfd);
        tokio::pin!(ended);
        while let Some(output) = self.output.take() {
            tokio::select! {
                biased;
                output = readable(output) => {
                    // Without room in the poller its words are not kept.
                    if let Ok(output) = output
                        && read_some(&output, &mut self.kept) != Read::End
                    {
                        self.output = Some(output);
                    }
                }
                () = &mut ended => {
                    self.read_rest();
                    return self.reap();
                }
            }
        }
        ended.await;
        self.reap()
    }

    /// Takes what it wrote before it ended; its children may go on writing.
    fn read_rest(&mut self) {
        for _ in 0..MAX_RESTS {
            match read_some(&self.rest, &mut self.kept) {
                Read::Some => {}
                Read::Nothing | Read::End => return,
            }
        }
    }

    fn reap(&mut self) -> ExitStatus {
        match musher_os::reap::try_wait(self.pid) {
            Ok(Some(status)) => {
                self.is_reaped = true;
                status
            }
            Ok(None) | Err(_) => ExitStatus::Unknown,
        }
    }

    /// Kills what is left of it and waits until nothing is.
    async fn end(mut self, scout: &Scout) {
        if self.is_reaped {
            return;
        }
        let lineage = Lineage::of(self.pid, self.start_time);
        let pidfd = Some(Rc::clone(&self.pidfd));
        let ending = Ending::begin(scout, lineage, pidfd, Scope::Tree);
        ending.send(Some(Signal::KILL));
        ending.gone().await;
        wait_shared(&self.pidfd).await;
        self.reap();
    }

    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty());
        match line {
            Some(line) => format!(": {}", line.chars().take(MAX_LINE).collect::<String>()),
            None => String::new(),
        }
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        // The daemon ends: there is no time to look for its tree, but its
        // session is mostly one process group.
        if !self.is_reaped && signal_group(self.pidfd.as_fd(), Signal::KILL).is_err() {
            let _ = signal(self.pidfd.as_fd(), Signal::KILL);
        }
    }
}

/// What one look at a pipe gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Some,
    Nothing,
    End,
}

/// Keeps the end of what is there to read.
fn read_some(output: &OwnedFd, kept: &mut Vec<u8>) -> Read {
    let mut bytes = [0; KEPT];
    match rustix::io::read(output.as_fd(), &mut bytes) {
        Ok(0) => Read::End,
        Ok(n_read) => {
            kept.extend(&bytes[..n_read]);
            let n_old = kept.len().saturating_sub(KEPT);
            kept.drain(..n_old);
            Read::Some
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Read::Nothing,
        Err(_) => Read::End,
    }
}

fn stdio() -> io::Result<(Stdio, OwnedFd, OwnedFd)> {
    let (output, stdout) = fd::pipe()?;
    fd::set_blocking(&output, Blocking::NeverWaits)?;
    let stdio = Stdio {
        stdin: fd::dev_null()?,
        stderr: fd::dup(&stdout)?,
        stdout,
        channel: None,
    };
    let rest = fd::dup(&output)?;
    Ok((stdio, output, rest))
}
