//! Runs as the kernel has them: spawned, watched, signalled, reaped.
//!
//! The executor's half for processes. It makes no choice: a plan says what to
//! start, an action says whom to signal. Every kernel event leaves here as an
//! [`Event`] of an incarnation; nothing else in the daemon knows pids.

use super::marks::Marks;
use super::orphans::Orphans;
use super::package::package_version;
use super::readable::readable;
use super::scout::Scout;
use super::stdio::{Ends, channel_env, pipes};
use super::tree::{Ending, Scope, wait, wait_by_looking};
use musher_core::app::Place;
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::{Incarnation, PmId};
use musher_core::supervisor::{Event, Oom, SpawnFailure, SpawnPlan};
use musher_os::cgroup::RunGroup;
use musher_os::kill::{Lineage, MARK, Member};
use musher_os::oom;
use musher_os::spawn::{self, ExecOutcome, SpawnError, Spawned, Step};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How long the exit status of an adopted process is waited for after its end:
/// the keeper reaps it at about the same moment.
const ADOPTED_STATUS_WAIT: Duration = Duration::from_millis(1000);

/// A living run.
pub(crate) struct Child {
    /// Its slot.
    pub pm_id: PmId,
    /// Its pid, fixed for its life.
    pub pid: u32,
    /// Clock ticks after boot; with the pid, its identity.
    pub start_time: u64,
    /// Where its pid is written.
    pub pid_path: String,
    /// Its figures; the file is opened at the first look.
    pub stat: OnceCell<musher_os::stats::Sampler>,
    pidfd: Rc<OwnedFd>,
    /// The write end of its stdin, held open so that it never sees EOF.
    stdin: Option<OwnedFd>,
    /// How its processes are known.
    lineage: Lineage,
    /// Processes killed for want of memory when it was spawned or adopted.
    oom_kills: Option<u64>,
    ending: Option<Ending>,
    /// `TreeGone` is owed.
    is_watched: bool,
}

/// All living runs.
pub(crate) struct Children {
    by_run: HashMap<Incarnation, Child>,
    orphans: Orphans,
    pub(super) events: UnboundedSender<Event>,
    pub(super) marks: Marks,
    pub(super) scout: Scout,
}

impl Children {
    /// Returns an empty table. Events go to `events`; it is bounded by a
    /// handful of events per living run.
    pub(crate) fn new(events: UnboundedSender<Event>, marks: Marks, scout: Scout) -> Children {
        Children {
            by_run: HashMap::new(),
            orphans: Orphans::default(),
            events,
            marks,
            scout,
        }
    }

    /// Returns where events of runs go.
    pub(crate) fn events(&self) -> UnboundedSender<Event> {
        self.events.clone()
    }

    /// Returns a living run.
    pub(crate) fn get(&self, run: Incarnation) -> Option<&Child> {
        self.by_run.get(&run)
    }

    /// Returns all living runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Incarnation, &Child)> {
        self.by_run.iter().map(|(run, child)| (*run, child))
    }

    /// Forks a run, which is given `sockets`. `Spawned` or `SpawnFailed` follows
    /// when exec has told.
    ///
    /// # Errors
    /// Why not even a fork was possible; the same as a `SpawnFailed` event.
    pub(crate) fn spawn(
        &mut self,
        run: Incarnation,
        pm_id: PmId,
        plan: &SpawnPlan,
        sockets: &[BorrowedFd<'_>],
    ) -> Result<Ends, Box<Event>> {
        let (stdio, ends, stdin) = pipes().map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(0);
            failed(
                run,
                &SpawnError {
                    step: Step::Pipe,
                    errno,
                    subject: plan.program.clone(),
                },
            )
        })?;
        let mut extra = channel_env(run, plan.channel, sockets.len());
        let mark = self.marks.of(run);
        extra.push((MARK.to_owned(), mark.clone()));
        let group = self.marks.make_group(run);
        let spawned = match spawn::spawn_listening(plan, &extra, group.as_ref(), sockets, stdio) {
            Ok(spawned) => spawned,
            Err(error) => {
                self.marks.remove_group(group);
                return Err(failed(run, &error));
            }
        };
        let Spawned {
            pid,
            pidfd,
            start_time,
            exec_pipe,
        } = spawned;
        let pidfd = Rc::new(pidfd);
        let child = Child {
            pm_id,
            pid,
            start_time,
            pid_path: plan.pid_path.clone(),
            stat: OnceCell::new(),
            pidfd: Rc::clone(&pidfd),
            stdin: Some(stdin),
            lineage: Lineage {
                root: Member { pid, start_time },
                mark: Some(mark),
                group,
            },
            oom_kills: oom::kills_since_boot(),
            ending: None,
            is_watched: false,
        };
        self.by_run.insert(run, child);
        let life = Life {
            run,
            pid,
            pidfd,
            events: self.events.clone(),
        };
        tokio::task::spawn_local(life.follow(exec_pipe, plan.clone()));
        Ok(ends)
    }

    /// Takes over a run of the previous daemon. Returns false when the process
    /// is gone, or its pid is somebody else's.
    pub(crate) fn adopt(
        &mut self,
        run: Incarnation,
        pm_id: PmId,
        pid: u32,
        start_time: u64,
        stdin: Option<OwnedFd>,
    ) -> bool {
        let Ok(pidfd) = musher_os::reap::pidfd_open(pid) else {
            return false;
        };
        let Ok(stat) = musher_os::proc_stat::read(pid) else {
            return false;
        };
        // The keeper reaps, and tells of, its own children only: an orphan of
        // a daemon whose keeper had died before it is somebody else's. If such
        // a one is dead, nobody will tell how it ended.
        let is_keepers = stat.ppid == std::os::unix::process::parent_id();
        if stat.start_time != start_time || (stat.is_dead() && !is_keepers) {
            return false;
        }
        let pidfd = Rc::new(pidfd);
        let child = Child {
            pm_id,
            pid,
            start_time,
            pid_path: String::new(),
            stat: OnceCell::new(),
            pidfd: Rc::clone(&pidfd),
            stdin,
            lineage: self
                .marks
                .lineage(run, Member { pid, start_time }, Some(pid)),
            oom_kills: oom::kills_since_boot(),
            ending: None,
            is_watched: false,
        };
        self.by_run.insert(run, child);
        let status = self.orphans.status_of(pid, is_keepers);
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            wait_shared(&pidfd).await;
            let status = tokio::time::timeout(ADOPTED_STATUS_WAIT, status).await;
            let status = match status {
                Ok(Ok(status)) => status,
                Ok(Err(_)) | Err(_) => ExitStatus::Unknown,
            };
            // A closed inbox means that the daemon ends.
            let _ = events.send(Event::Exited { run, status });
        });
        true
    }

    /// Says where the pid of an adopted run is written.
    pub(crate) fn set_pid_path(&mut self, run: Incarnation, pid_path: &str) {
        if let Some(child) = self.by_run.get_mut(&run) {
            child.pid_path = pid_path.to_owned();
        }
    }

    /// Takes in how an orphan ended, from the keeper. False if nobody waits for
    /// it; otherwise its `Exited` follows.
    pub(crate) fn orphan_exited(&mut self, pid: u32, status: ExitStatus) -> bool {
        self.orphans.exited(pid, status)
    }

    /// Returns the pid of a run whose end the keeper told, once.
    pub(crate) fn told_by_keeper(&mut self, run: Incarnation) -> Option<u32> {
        let pid = self.by_run.get(&run)?.pid;
        self.orphans.take_told(pid).then_some(pid)
    }

    /// The keeper is gone: nobody will tell how adopted runs end.
    pub(crate) fn keeper_is_gone(&mut self) {
        self.orphans.clear();
    }

    /// Signals the main process of a run.
    pub(crate) fn signal(&self, run: Incarnation, signal: Signal) -> io::Result<()> {
        match self.by_run.get(&run) {
            Some(child) => musher_os::kill::signal(child.pidfd.as_ref(), signal),
            None => Ok(()),
        }
    }

    /// Begins or hardens the end of a run; `TreeGone` follows once.
    pub(crate) fn kill(&mut self, run: Incarnation, signal: Option<Signal>, tree: Scope) {
        let events = self.events.clone();
        let Some(child) = self.by_run.get_mut(&run) else {
            let _ = events.send(Event::TreeGone { run });
            return;
        };
        let ending = child.ending(&self.scout, tree);
        ending.send(signal);
        let gone = ending.gone();
        if std::mem::replace(&mut child.is_watched, true) {
            return;
        }
        tokio::task::spawn_local(async move {
            gone.await;
            let _ = events.send(Event::TreeGone { run });
        });
    }

    /// Returns a living run, to be changed.
    pub(super) fn get_mut(&mut self, run: Incarnation) -> Option<(&mut Child, &Scout)> {
        let child = self.by_run.get_mut(&run)?;
        Some((child, &self.scout))
    }

    /// Lets go of a run that is over.
    pub(crate) fn forget(&mut self, run: Incarnation) {
        if let Some(child) = self.by_run.remove(&run) {
            self.orphans.forget(child.pid);
            self.marks.remove_group(child.lineage.group);
        }
    }
}

impl Child {
    /// Returns its end, which is begun if it was not.
    pub(super) fn ending(&mut self, scout: &Scout, scope: Scope) -> &Ending {
        self.ending.get_or_insert_with(|| {
            let pidfd = Some(Rc::clone(&self.pidfd));
            Ending::begin(scout, self.lineage.clone(), pidfd, scope)
        })
    }

    /// Returns what is known of why it was killed; asked when it was.
    pub(super) fn oom(&self) -> Option<Oom> {
        let group = self.lineage.group.as_ref();
        if group.and_then(RunGroup::oom_kills) > Some(0) {
            return Some(Oom::Certain);
        }
        let has_risen = oom::kills_since_boot() > self.oom_kills;
        has_risen.then_some(Oom::Maybe)
    }

    /// Returns whether its control group, if it has one, says that nothing of
    /// it lives.
    pub(super) fn is_alone(&self) -> bool {
        let group = self.lineage.group.as_ref();
        group.and_then(RunGroup::is_populated) == Some(false)
    }

    /// Returns whether its end was begun.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Returns what it has used; `None` when it is gone.
    pub(crate) fn usage(&self) -> Option<musher_os::stats::Usage> {
        let usage = match self.stat.get() {
            Some(stat) => stat.sample(),
            None => {
                let stat = musher_os::stats::Sampler::open(self.pid).ok()?;
                self.stat.get_or_init(|| stat).sample()
            }
        };
        usage
            .ok()
            .filter(|usage| usage.start_time == self.start_time)
    }

    /// Writes a line to its stdin.
    ///
    /// # Errors
    /// `EAGAIN` when the process does not read, `EPIPE` when it closed stdin.
    pub(crate) fn write_line(&self, line: &str) -> io::Result<()> {
        let Some(stdin) = &self.stdin else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let line = format!("{line}\n");
        // One write: a line within PIPE_BUF is atomic (pipe(7)).
        rustix::io::write(stdin, line.as_bytes())?;
        Ok(())
    }

    /// Returns the held write end of its stdin.
    pub(crate) fn stdin(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(AsFd::as_fd)
    }
}

/// One child of this daemon, from fork to reap.
struct Life {
    run: Incarnation,
    pid: u32,
    pidfd: Rc<OwnedFd>,
    events: UnboundedSender<Event>,
}

impl Life {
    async fn follow(self, exec_pipe: OwnedFd, plan: SpawnPlan) {
        let outcome = exec_outcome(exec_pipe).await;
        let event = match outcome {
            ExecOutcome::Executed => {
                let version = package_version(&plan.script);
                Event::Spawned {
                    run: self.run,
                    pid: self.pid,
                    version,
                    place: place(&plan),
                }
            }
            ExecOutcome::Failed { step, errno } => {
                *failed(self.run, &SpawnError::of_child(step, errno, &plan))
            }
        };
        let is_alive = matches!(outcome, ExecOutcome::Executed);
        let _ = self.events.send(event);
        wait_shared(&self.pidfd).await;
        let status = match musher_os::reap::try_wait(self.pid) {
            Ok(Some(status)) => status,
            Ok(None) | Err(_) => ExitStatus::Unknown,
        };
        if is_alive {
            let _ = self.events.send(Event::Exited {
                run: self.run,
                status,
            });
        }
    }
}

/// Returns where a run really is: symbolic links resolved. `None` if the
/// directory is gone already.
fn place(plan: &SpawnPlan) -> Option<Place> {
    let real = |path: &str| {
        let path = std::fs::canonicalize(path).ok()?;
        Some(path.to_str()?.to_owned())
    };
    Some(Place {
        cwd: real(&plan.cwd)?,
        script: real(&plan.script)?,
    })
}

/// Waits until the process of a pidfd has ended.
pub(crate) async fn wait_shared(pidfd: &Rc<OwnedFd>) {
    match pidfd.try_clone() {
        Ok(pidfd) => wait(pidfd).await,
        Err(_) => wait_by_looking(pidfd).await,
    }
}

/// Waits until a child was executed, or could not be.
pub(crate) async fn exec_outcome(exec_pipe: OwnedFd) -> ExecOutcome {
    let mut pipe = exec_pipe;
    loop {
        pipe = match readable(pipe).await {
            Ok(pipe) => pipe,
            // Not to be waited for: what happened is told by the exit.
            Err(_) => return ExecOutcome::Executed,
        };
        match spawn::read_exec_result(&pipe) {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => {}
            Err(_) => return ExecOutcome::Executed,
        }
    }
}

fn failed(run: Incarnation, error: &SpawnError) -> Box<Event> {
    const TRANSIENT: [i32; 4] = [
        11, /* EAGAIN */
        12, /* ENOMEM */
        23, /* ENFILE */
        24, /* EMFILE */
    ];
    let kind = if TRANSIENT.contains(&error.errno) {
        SpawnFailure::Transient
    } else {
        SpawnFailure::Permanent
    };
    Box::new(Event::SpawnFailed {
        run,
        reason: error.to_string(),
        kind,
    })
}
