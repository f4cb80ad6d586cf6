//! One life of the daemon, as the keeper sees it.
//!
//! Starting it, doing what it says, and what it has yet to be told. Never
//! decides whether another is started: that is the keeper's.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use musher_core::exit::ExitStatus;
use musher_os::fd::{self, Blocking, Interest};
use musher_os::reap;
use musher_os::spawn::{self, ExecOutcome, SpawnError, Stdio};

use super::args::{Adopted, KeeperArgs};
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
}

/// What the daemon has been told so far.
enum Outbound {
    /// Parked descriptors, from this index on.
    Giving(usize),
    /// Exits, then END.
    Ending,
    /// Everything; exits as they happen.
    Live,
}

impl Running {
    /// Starts `<exe> daemon --home <home> --keeper-fd 3`.
    pub(super) fn start(args: &KeeperArgs) -> Result<Running, SpawnError> {
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
            args.exe.as_os_str(),
            OsStr::new("daemon"),
            OsStr::new("--home"),
            args.home.as_os_str(),
            OsStr::new("--keeper-fd"),
            OsStr::new("3"),
        ];
        let spawned = spawn::spawn_own(&argv, Path::new("/"), stdio)?;
        Ok(Running {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            socket: Some(ours),
            exec_pipe: Some(spawned.exec_pipe),
            started: Instant::now(),
            outbound: Outbound::Giving(0),
            is_ready: false,
            is_quitting: false,
            refused: None,
        })
    }

    /// Takes over a daemon that runs already and is ready.
    pub(super) fn adopt(adopted: Adopted) -> io::Result<Running> {
        Ok(Running {
            pid: adopted.pid,
            pidfd: reap::pidfd_open(adopted.pid)?,
            socket: Some(adopted.socket),
            exec_pipe: None,
            started: Instant::now(),
            outbound: Outbound::Giving(0),
            is_ready: true,
            is_quitting: false,
            refused: None,
        })
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
    pub(super) fn obey(&mut self, message: ToKeeper, fd: Option<OwnedFd>, parked: &mut ParkedFds) {
        match (message, fd) {
            (ToKeeper::Park(name), Some(fd)) => {
                if parked.park(name, fd).is_err() {
                    self.refused = Some(name);
                }
            }
            // The kernel had no descriptor number left for it (EMFILE).
            (ToKeeper::Park(name), None) => self.refused = Some(name),
            (ToKeeper::Drop(name), _) => parked.remove(name),
            (ToKeeper::DropPrefix(prefix), _) => parked.remove_prefix(prefix),
            (ToKeeper::Ready, _) => self.is_ready = true,
            (ToKeeper::Quit, _) => self.is_quitting = true,
        }
    }

    /// Tells as much as the socket takes without waiting.
    pub(super) fn speak(&mut self, parked: &ParkedFds, exits: &mut Exits) {
        while let Some(socket) = &self.socket {
            let (message, fd) = match self.outbound {
                Outbound::Giving(index) => match parked.get(index) {
                    Some((name, fd)) => (ToDaemon::Give(name), Some(fd)),
                    None => {
                        self.outbound = Outbound::Ending;
                        continue;
                    }
                },
                Outbound::Ending | Outbound::Live => match self.next_word(exits) {
                    Some(message) => (message, None),
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
        if let Some((pid, status)) = exits.first() {
            return Some(ToDaemon::Exited { pid, status });
        }
        match self.outbound {
            Outbound::Ending => Some(ToDaemon::End(VERSION)),
            Outbound::Giving(_) | Outbound::Live => self.refused.map(ToDaemon::Refused),
        }
    }

    fn has_said(&mut self, message: ToDaemon, exits: &mut Exits) {
        match message {
            ToDaemon::Give(_) => {
                if let Outbound::Giving(index) = &mut self.outbound {
                    *index += 1;
                }
            }
            ToDaemon::Exited { .. } => exits.forget_first(),
            ToDaemon::End(_) => self.outbound = Outbound::Live,
            ToDaemon::Refused(_) => self.refused = None,
        }
    }

    /// Returns whether the pidfd says that it ended; for one that is not our
    /// child and that we cannot reap.
    pub(super) fn is_adopted_and_gone(&self) -> bool {
        let end = || fd::wait_readable([self.pidfd.as_fd()], Some(Duration::ZERO));
        self.exec_pipe.is_none() && matches!(end(), Ok([true]))
    }

    /// Writes to the log how it ended.
    pub(super) fn explain_end(&self, status: ExitStatus, exe: &Path) {
        let outcome = self.exec_pipe.as_ref().map(spawn::read_exec_result);
        if let Some(Ok(Some(ExecOutcome::Failed { errno, .. }))) = outcome {
            let reason = spawn::reason(errno);
            say(format_args!("cannot execute {}: {reason}", exe.display()));
        } else {
            say(format_args!(
                "the daemon (pid {}) ended: {status}",
                self.pid
            ));
        }
    }
}
