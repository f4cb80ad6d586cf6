//! The keeper: the process that must not die, and therefore does next to
//! nothing.
//!
//! It exists so that the daemon may die. It holds a duplicate of every
//! descriptor whose loss an app would notice, reaps orphans, and starts the
//! daemon again; pipes do not break, ports do not close, IPC channels see no
//! end. It reads no configuration, writes no file but its lock, parses nothing
//! but [`protocol`], and does not grow: its tables have fixed sizes.
//!
//! - Child subreaper: an app whose daemon died becomes the keeper's child, and
//!   its exit status is told to each next daemon until one has stored it.
//! - `<home>/keeper.lock` is held as long as the keeper lives. If another
//!   keeper has it, this one writes [`BUSY`] to its ready pipe and exits 0: the
//!   starter connects to whoever serves.
//! - The daemon is started as `<exe> daemon --home <home> --keeper-fd 3`. When
//!   it says READY, the keeper writes [`READY`] to its own ready pipe and
//!   closes it: readiness travels with the protocol, not with a second pipe.
//! - A daemon that ends without QUIT is started again, after 10 ms at first,
//!   twice as long each time up to 1 s, from the start again after a life of
//!   10 s. Only a daemon that never once was ready is given up, after
//!   [`MAX_FIRST_TRIES`]: then the starter sees the end of the ready pipe.
//! - A daemon may name another executable and end: that one has one try, and if
//!   it is not ready in time the one before is started again (see [`choice`]).
//! - SIGTERM and SIGINT are passed on to the daemon, as soon as it is ready.
//!   SIGHUP is ignored. A keeper that itself should end is told by the daemon.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use musher_core::exit::{ExitStatus, Signal};
use musher_os::fd::{self, Interest};
use musher_os::lock::LockFile;
use musher_os::signals::{self, SignalReader};
use musher_os::{kill, reap};

pub(crate) mod args;
mod choice;
#[allow(dead_code, reason = "the daemon role is its only user")]
pub(crate) mod client;
pub(crate) mod protocol;
mod running;
mod table;

pub(crate) use args::KeeperArgs;
use choice::{Choice, Follow};
use protocol::{MAX_MESSAGE, ToKeeper};
use running::{Running, Tables};
use table::{Exits, MAX_EXITS, MAX_PARKED, ParkedFds};

/// Written to the ready pipe when the daemon serves.
pub(crate) const READY: u8 = b'R';

/// Written to the ready pipe when another keeper has the lock.
pub(crate) const BUSY: u8 = b'B';

/// Ends of the first daemons before one was ever ready; then the keeper gives
/// up with exit status 1.
pub(crate) const MAX_FIRST_TRIES: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A daemon that lived as long was well: the next pause is the first again.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// Packets taken from the daemon before signals are looked at again.
const MAX_BURST: usize = 64;

/// Orphans reaped before the daemon is looked at again.
const MAX_REAPED: usize = 64;

/// SIGCHLD and SIGHUP of signal(7).
const SIGCHLD: Signal = Signal(17);
const SIGHUP: Signal = Signal(1);

/// Runs the keeper until the daemon quits for good.
///
/// Exit status 0 then, or if another keeper serves this home; 1 if it could
/// not begin.
pub(crate) fn run(args: KeeperArgs) -> ExitCode {
    match Keeper::begin(args) {
        Ok(Some(keeper)) => keeper.serve(),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("cannot begin: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Keeper {
    args: KeeperArgs,
    signals: SignalReader,
    parked: ParkedFds,
    exits: Exits,
    choice: Choice,
    daemon: Daemon,
    backoff: Backoff,
    /// To be passed on when the daemon is ready.
    pending_signal: Option<Signal>,
    ever_ready: bool,
    n_tries: u32,
    /// More orphans may be waiting, of which no signal will tell again.
    is_reaping: bool,
    _lock: LockFile,
}

/// The daemon as the keeper sees it.
#[allow(clippy::large_enum_variant, reason = "there is exactly one")]
enum Daemon {
    /// None; another is started then.
    Absent { start_at: Instant },
    /// One runs.
    Running(Running),
}

impl Keeper {
    fn begin(args: KeeperArgs) -> io::Result<Option<Keeper>> {
        signals::ignore_sigpipe();
        // An app may have started it; it does not end with that app.
        musher_os::cgroup::leave_run_group();
        musher_os::oom::prefer_apps();
        let signals = signals::block_and_read(&[SIGCHLD, Signal::TERM, Signal::INT, SIGHUP])?;
        signals::become_subreaper()?;
        let mut args = args;
        let Some(lock) = LockFile::try_lock(&args.home.join("keeper.lock"))? else {
            answer(args.ready.take(), BUSY);
            return Ok(None);
        };
        if let Err(error) = fd::raise_limit() {
            say(format_args!("the limit of open files stays: {error}"));
        }
        let daemon = match args.adopt.take() {
            None => Daemon::Absent {
                start_at: Instant::now(),
            },
            Some(adopted) => Daemon::Running(Running::adopt(adopted)?),
        };
        let mut choice = Choice::new(args.exe.clone());
        let ever_ready = matches!(daemon, Daemon::Running(_));
        if let Daemon::Running(daemon) = &daemon {
            choice.is_ready(daemon.pid);
            answer(args.ready.take(), READY);
        }
        Ok(Some(Keeper {
            args,
            signals,
            parked: ParkedFds::with_limit(MAX_PARKED),
            exits: Exits::with_limit(MAX_EXITS),
            choice,
            daemon,
            backoff: Backoff::default(),
            pending_signal: None,
            ever_ready,
            n_tries: 0,
            is_reaping: true,
            _lock: lock,
        }))
    }

    fn serve(mut self) -> ExitCode {
        loop {
            if let Err(error) = self.wait() {
                // poll(2) fails for lack of memory only: not a reason to end.
                say(format_args!("cannot wait: {error}"));
                std::thread::sleep(FIRST_PAUSE);
            }
            self.read_signals();
            self.receive(MAX_BURST);
            if let Some(status) = self.reap() {
                // What it said last, QUIT above all, is still in the socket.
                self.receive(usize::MAX);
                if let Some(code) = self.bury(status) {
                    return code;
                }
            }
            if let Daemon::Running(daemon) = &mut self.daemon {
                daemon.speak(&self.parked, &mut self.exits);
                daemon.kill_if_late();
            }
            self.start_if_due();
        }
    }

    /// Waits for a signal, the daemon's words, room for ours, or its start.
    fn wait(&self) -> io::Result<()> {
        let signals = (self.signals.as_fd(), Interest::Read);
        let at_once = self.is_reaping.then_some(Duration::ZERO);
        match &self.daemon {
            Daemon::Absent { start_at } => {
                let limit = start_at.saturating_duration_since(Instant::now());
                fd::wait_for([signals], at_once.or(Some(limit)))?;
            }
            Daemon::Running(daemon) => {
                let end = (daemon.pidfd.as_fd(), Interest::Read);
                let late = daemon.deadline;
                let late = late.map(|at| at.saturating_duration_since(Instant::now()));
                let limit = at_once.or(late);
                match &daemon.socket {
                    None => {
                        fd::wait_for([signals, end], limit)?;
                    }
                    Some(socket) => {
                        let words = (socket.as_fd(), daemon.interest(&self.exits));
                        fd::wait_for([signals, end, words], limit)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.next() {
            if signal == Signal::TERM || signal == Signal::INT {
                self.pending_signal = Some(signal);
            }
        }
        self.pass_signal_on();
    }

    fn pass_signal_on(&mut self) {
        let Daemon::Running(daemon) = &self.daemon else {
            return;
        };
        if !daemon.is_ready {
            return;
        }
        if let Some(signal) = self.pending_signal.take() {
            // A daemon that is gone already needs no signal.
            kill::signal(&daemon.pidfd, signal).ok();
        }
    }

    /// Reaps whoever ended; returns how the daemon did, if it is gone.
    fn reap(&mut self) -> Option<ExitStatus> {
        let pid = match &self.daemon {
            Daemon::Running(daemon) => Some(daemon.pid),
            Daemon::Absent { .. } => None,
        };
        let mut ended = None;
        self.is_reaping = true;
        for _ in 0..MAX_REAPED {
            match reap::reap_any() {
                Some((reaped, status)) if Some(reaped) == pid => ended = Some(status),
                Some((orphan, status)) => self.exits.push(orphan, status),
                None => {
                    self.is_reaping = false;
                    break;
                }
            }
        }
        match &self.daemon {
            Daemon::Running(daemon) if ended.is_none() && daemon.is_adopted_and_gone() => {
                Some(ExitStatus::Unknown)
            }
            Daemon::Running(_) | Daemon::Absent { .. } => ended,
        }
    }

    /// Takes up to `limit` packets from the daemon.
    fn receive(&mut self, limit: usize) {
        let Daemon::Running(daemon) = &mut self.daemon else {
            return;
        };
        let mut fds = VecDeque::new();
        for _ in 0..limit {
            let Some(socket) = &daemon.socket else { break };
            let mut packet = [0; MAX_MESSAGE];
            match fd::receive(socket.as_fd(), &mut packet, &mut fds) {
                Ok(received) if received.len > 0 => {
                    if let Some(message) = ToKeeper::decode(&packet[..received.len]) {
                        let mut tables = Tables {
                            parked: &mut self.parked,
                            exits: &mut self.exits,
                            choice: &mut self.choice,
                        };
                        daemon.obey(message, fds.pop_front(), &mut tables);
                    }
                    fds.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => daemon.socket = None,
            }
        }
        if daemon.is_ready && !self.ever_ready {
            self.ever_ready = true;
            answer(self.args.ready.take(), READY);
        }
        self.pass_signal_on();
    }

    /// Decides what follows the daemon's end; returns the keeper's own, if so.
    fn bury(&mut self, status: ExitStatus) -> Option<ExitCode> {
        let after = Daemon::Absent {
            start_at: Instant::now(),
        };
        let Daemon::Running(daemon) = std::mem::replace(&mut self.daemon, after) else {
            return None;
        };
        if daemon.is_quitting {
            return Some(ExitCode::SUCCESS);
        }
        let why = daemon.explain_end(status, self.choice.program());
        if self.choice.ended(daemon.is_ready, &why) == Follow::AtOnce {
            return None;
        }
        // SIGKILL is no daemon's own doing: pauses guard against one that fails
        // by itself, and would only keep the next command waiting here.
        let was_killed = status == ExitStatus::Signal(Signal::KILL);
        let life = if was_killed {
            LONG_LIFE
        } else {
            daemon.started.elapsed()
        };
        self.retry(life)
    }

    fn retry(&mut self, life: Duration) -> Option<ExitCode> {
        self.n_tries += 1;
        if !self.ever_ready && self.n_tries >= MAX_FIRST_TRIES {
            say(format_args!("the daemon was never ready; giving up"));
            return Some(ExitCode::FAILURE);
        }
        let pause = self.backoff.pause_after(life);
        self.daemon = Daemon::Absent {
            start_at: Instant::now() + pause,
        };
        None
    }

    fn start_if_due(&mut self) {
        let Daemon::Absent { start_at } = self.daemon else {
            return;
        };
        if Instant::now() < start_at {
            return;
        }
        self.exits.tell_anew();
        let (program, limit) = self.choice.next();
        match Running::start(&self.args, &program) {
            Ok(mut daemon) => {
                daemon.deadline = limit.map(|limit| Instant::now() + limit);
                daemon.tell_why(self.choice.why());
                self.daemon = Daemon::Running(daemon);
            }
            Err(error) => {
                say(format_args!("cannot start the daemon: {error}"));
                self.choice.ended(false, &error.to_string());
                // It is tried again for ever: only a fork that fails comes
                // here, and the machine may recover.
                let pause = self.backoff.pause_after(Duration::ZERO);
                self.daemon = Daemon::Absent {
                    start_at: Instant::now() + pause,
                };
            }
        }
    }
}

/// How long to wait before the next daemon, or keeper.
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: FIRST_PAUSE }
    }
}

impl Backoff {
    /// Returns how long to wait after one that lived as long.
    pub(crate) fn pause_after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.next = FIRST_PAUSE;
        }
        let pause = self.next;
        self.next = (pause * 2).min(MAX_PAUSE);
        pause
    }
}

/// The starter may be gone; then nobody waits for the answer.
fn answer(ready: Option<OwnedFd>, byte: u8) {
    if let Some(ready) = ready {
        std::fs::File::from(ready).write_all(&[byte]).ok();
    }
}

/// Unlike `eprintln!`, survives a closed stderr.
fn say(line: std::fmt::Arguments<'_>) {
    writeln!(io::stderr(), "musher keeper: {line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_second_and_begin_again_after_a_long_life() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(9999);
        let pauses: Vec<u128> = (0..9)
            .map(|_| backoff.pause_after(short).as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(backoff.pause_after(LONG_LIFE), FIRST_PAUSE);
    }
}
