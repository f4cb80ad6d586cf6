//! One life of the daemon, as the keeper sees it.
//!
//! Starting it, doing what it says, and what it has yet to be told. Never
//! decides whether another is started, or which: that is the keeper's.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use musher_core::exit::ExitStatus;
use musher_os::fd::{self, Blocking, Interest};
use musher_os::spawn::{self, ExecOutcome, SpawnError, Stdio};
use musher_os::{kill, reap};

use super::args::{Adopted, KeeperArgs};
use super::choice::{Choice, READY_LIMIT};
use super::protocol::{Name, ToDaemon, ToKeeper, VERSION};
use super::say;
use super::table::{Exits, ParkedFds};

/// A daemon that was started and has not been reaped.
pub(super) struct Running {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    /// Closed on the daemon's side, or broken: `None`.
    pub(super) socket: Option<OwnedFd>,
    exec_pipe: Option<OwnedFd>,
    pub(super) started: Instant,
    outbound: Outbound,
    pub(super) is_ready: bool,
    pub(super) is_quitting: bool,
    /// The last PARK without room, to be told; earlier ones of one burst are not.
    refused: Option<Name>,
    /// What it speaks: told by HELLO, 1 if it is ready without.
    version: Option<u8>,
    /// It is killed if it has not done by then what the keeper waits for.
    pub(super) deadline: Option<Instant>,
    /// It did not.
    was_late: bool,
    /// A pidfd of the keeper, until it is told.
    own: Option<OwnedFd>,
    /// Why an update was undone, until it is told.
    why: Option<Name>,
    /// PING was not answered yet.
    owes_pong: bool,
    /// HAND_OVER was not answered yet.
    owes_go: bool,
}

/// What a daemon's word asks of the keeper's tables.
pub(super) struct Tables<'a> {
    pub(super) parked: &'a mut ParkedFds,
    pub(super) exits: &'a mut Exits,
    pub(super) choice: &'a mut Choice,
}

/// How long a daemon that hands over may take to end.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// What the daemon has been told so far.
enum Outbound {
    /// Parked descriptors, from this index on.
    Giving(usize),
    /// What the keeper has to say about itself, exits, then END.
    Ending,
    /// Everything; exits as they happen.
    Live,
}

impl Running {
    /// Starts `<program> daemon --home <home> --keeper-fd 3`.
    pub(super) fn start(args: &KeeperArgs, program: &Path) -> Result<Running, SpawnError> {
        let failed = |error: io::Error| SpawnError {
            step: spawn::Step::Pipe,
            errno: error.raw_os_error().unwrap_or_default(),
            subject: String::new(),
        };
        let (ours, theirs) = fd::seqpacket_pair(Blocking::Waits).map_err(failed)?;
        let stdio = Stdio {
            stdin: fd::dev_null().map_err(failed)?,
            stdout: fd::dup(&args.log).map_err(failed)?,
            stderr: fd::dup(&args.log).map_err(failed)?,
            channel: Some(theirs),
        };
        let argv = [
            program.as_os_str(),
            OsStr::new("daemon"),
            OsStr::new("--home"),
            args.home.as_os_str(),
            OsStr::new("--keeper-fd"),
            OsStr::new("3"),
        ];
        let spawned = spawn::spawn_own(&argv, Path::new("/"), stdio)?;
        let exec_pipe = Some(spawned.exec_pipe);
        Ok(Running::new(spawned.pid, spawned.pidfd, ours, exec_pipe))
    }

    fn new(pid: u32, pidfd: OwnedFd, socket: OwnedFd, exec_pipe: Option<OwnedFd>) -> Running {
        Running {
            pid,
            pidfd,
            socket: Some(socket),
            is_ready: exec_pipe.is_none(),
            exec_pipe,
            started: Instant::now(),
            outbound: Outbound::Giving(0),
            is_quitting: false,
            refused: None,
            version: None,
            deadline: None,
            was_late: false,
            // Without it the daemon cannot replace a keeper that hangs.
            own: reap::pidfd_open(std::process::id()).ok(),
            why: None,
            owes_pong: false,
            owes_go: false,
        }
    }

    /// Lets it be told why an update was undone.
    pub(super) fn tell_why(&mut self, why: Option<Name>) {
        self.why = why;
    }

    /// Takes over a daemon that runs already and is ready.
    pub(super) fn adopt(adopted: Adopted) -> io::Result<Running> {
        let pidfd = reap::pidfd_open(adopted.pid)?;
        Ok(Running::new(adopted.pid, pidfd, adopted.socket, None))
    }

    /// Returns what to wait for on the socket.
    pub(super) fn interest(&self, exits: &Exits) -> Interest {
        match self.outbound {
            Outbound::Giving(_) | Outbound::Ending => Interest::Both,
            Outbound::Live if self.next_word(exits).is_some() => Interest::Both,
            Outbound::Live => Interest::Read,
        }
    }

    /// Does what the daemon says.
    pub(super) fn obey(&mut self, message: ToKeeper, fd: Option<OwnedFd>, tables: &mut Tables<'_>) {
        match (message, fd) {
            (ToKeeper::Park(name), Some(fd)) => {
                if tables.parked.park(name, fd).is_err() {
                    self.refused = Some(name);
                }
            }
            // The kernel had no descriptor number left for it (EMFILE).
            (ToKeeper::Park(name), None) => self.refused = Some(name),
            (ToKeeper::Drop(name), _) => tables.parked.remove(name),
            (ToKeeper::DropPrefix(prefix), _) => tables.parked.remove_prefix(prefix),
            (ToKeeper::Ready, _) => self.becomes_ready(tables),
            (ToKeeper::Quit, _) => self.is_quitting = true,
            (ToKeeper::Hello(version), _) => self.version = Some(version),
            (ToKeeper::Heard(pid), _) => tables.exits.heard(pid),
            (ToKeeper::Ping, _) => self.owes_pong = true,
            (ToKeeper::Next(piece), _) => tables.choice.add(piece),
            (ToKeeper::HandOver, _) => {
                // Without a path there is nothing to hand over to; the daemon
                // hears no GO and stays.
                if tables.choice.hand_over() {
                    self.owes_go = true;
                    self.deadline = Some(Instant::now() + LEAVE_LIMIT);
                }
            }
        }
    }

    fn becomes_ready(&mut self, tables: &mut Tables<'_>) {
        self.is_ready = true;
        self.deadline = None;
        self.version.get_or_insert(1);
        tables.choice.is_ready(self.pid);
        self.forget_told(tables.exits);
    }

    /// A daemon of version 1 does not say what it has stored.
    fn forget_told(&self, exits: &mut Exits) {
        if self.version == Some(1) {
            exits.forget_told();
        }
    }

    /// Kills a daemon that did not do in time what it had to.
    pub(super) fn kill_if_late(&mut self) {
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            self.deadline = None;
            self.was_late = true;
            // It may have ended meanwhile: then it is reaped all the same.
            kill::signal(&self.pidfd, musher_core::exit::Signal::KILL).ok();
        }
    }

    /// Tells as much as the socket takes without waiting.
    pub(super) fn speak(&mut self, parked: &ParkedFds, exits: &mut Exits) {
        while let Some(socket) = &self.socket {
            let given = match self.outbound {
                Outbound::Giving(index) => parked.get(index),
                Outbound::Ending | Outbound::Live => None,
            };
            let (message, fd) = match (&self.outbound, given) {
                (Outbound::Giving(_), Some((name, fd))) => (ToDaemon::Give(name), Some(fd)),
                (Outbound::Giving(_), None) => {
                    self.outbound = Outbound::Ending;
                    continue;
                }
                (Outbound::Ending | Outbound::Live, _) => match self.next_word(exits) {
                    Some(message) => (message, self.fd_of(message)),
                    None => return,
                },
            };
            match fd::send_with_fd(socket.as_fd(), message.encode().as_bytes(), fd) {
                Ok(_) => self.has_said(message, exits),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    say(format_args!("cannot speak to the daemon: {error}"));
                    self.socket = None;
                }
            }
        }
    }

    fn next_word(&self, exits: &Exits) -> Option<ToDaemon> {
        if let Outbound::Giving(_) = self.outbound {
            return None;
        }
        let own = self.own.as_ref().map(|_| ToDaemon::Keeper);
        let exit = exits.first_untold();
        let exit = exit.map(|(pid, status)| ToDaemon::Exited { pid, status });
        let first = own.or(self.why.map(ToDaemon::Why)).or(exit);
        match self.outbound {
            Outbound::Ending => first.or(Some(ToDaemon::End(VERSION))),
            Outbound::Giving(_) | Outbound::Live => first
                .or(self.refused.map(ToDaemon::Refused))
                .or(self.owes_pong.then_some(ToDaemon::Pong))
                .or(self.owes_go.then_some(ToDaemon::Go)),
        }
    }

    fn fd_of(&self, message: ToDaemon) -> Option<BorrowedFd<'_>> {
        match message {
            ToDaemon::Keeper => self.own.as_ref().map(AsFd::as_fd),
            ToDaemon::Give(_)
            | ToDaemon::Exited { .. }
            | ToDaemon::End(_)
            | ToDaemon::Refused(_)
            | ToDaemon::Pong
            | ToDaemon::Go
            | ToDaemon::Why(_) => None,
        }
    }

    fn has_said(&mut self, message: ToDaemon, exits: &mut Exits) {
        match message {
            ToDaemon::Give(_) => {
                if let Outbound::Giving(index) = &mut self.outbound {
                    *index += 1;
                }
            }
            ToDaemon::Exited { .. } => {
                exits.told();
                self.forget_told(exits);
            }
            ToDaemon::End(_) => self.outbound = Outbound::Live,
            ToDaemon::Refused(_) => self.refused = None,
            ToDaemon::Keeper => self.own = None,
            ToDaemon::Pong => self.owes_pong = false,
            ToDaemon::Go => self.owes_go = false,
            ToDaemon::Why(_) => self.why = None,
        }
    }

    /// Returns whether the pidfd says that it ended; for one that is not our
    /// child and that we cannot reap.
    pub(super) fn is_adopted_and_gone(&self) -> bool {
        let end = || fd::wait_readable([self.pidfd.as_fd()], Some(Duration::ZERO));
        self.exec_pipe.is_none() && matches!(end(), Ok([true]))
    }

    /// Writes to the log how it ended, and returns it in words.
    pub(super) fn explain_end(&self, status: ExitStatus, program: &Path) -> String {
        let outcome = self.exec_pipe.as_ref().map(spawn::read_exec_result);
        if let Some(Ok(Some(ExecOutcome::Failed { errno, .. }))) = outcome {
            let reason = spawn::reason(errno);
            let text = format!("cannot execute {}: {reason}", program.display());
            say(format_args!("{text}"));
            return text;
        }
        say(format_args!(
            "the daemon (pid {}) ended: {status}",
            self.pid
        ));
        match self.was_late {
            true => format!("it was not ready within {} s", READY_LIMIT.as_secs()),
            false => format!("it ended before it was ready: {status}"),
        }
    }
}
