//! The daemon's care for its keeper: one that died is replaced by another,
//! which is given everything to hold again.
//!
//! Until then nothing but the next death of the daemon is at stake, so the loop
//! goes on and a thread of its own starts the keeper and waits for its word. It
//! is detached: neither a child of this daemon nor an app, and it is adopted by
//! whoever adopts orphans. It is no ancestor of the apps that run already: when
//! they lose this daemon, the next one is told of their ends by their pidfds,
//! and their exit statuses are unknown.

use super::hub::{ERR, Hub, IN, OUT};
use super::logs::Pipes;
use super::pulse::Pulse;
use super::readable::readable;
use super::{doors::Doors, journal};
use crate::keeper::Backoff;
use crate::keeper::client::{KeeperClient, KeeperMessage};
use crate::paths::Paths;
use crate::roles;
use musher_core::id::Incarnation;
use musher_core::log::Stream;
use musher_os::daemonize;
use musher_os::fd::{self, Blocking};
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Between two looks at a keeper that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What comes of the keeper.
pub(crate) enum KeeperNote {
    /// It says something.
    Said(KeeperMessage),
    /// Its end of the connection is closed.
    Gone(io::Error),
    /// Another one is there, and holds nothing yet.
    Come {
        /// To talk to it.
        keeper: KeeperClient,
        /// To listen to it.
        reader: KeeperClient,
    },
    /// What the log thread has for it.
    Pipes(u64, Pipes),
    /// It is time to ask whether it lives.
    Pulse,
    /// An update has waited long enough.
    Late(u64),
}

/// What is needed to replace a keeper.
pub(crate) struct Keeping {
    /// The control sockets, which the loop holds.
    doors: [(&'static str, OwnedFd); 2],
    pub(super) tell: mpsc::Sender<KeeperNote>,
    /// Whether it answers.
    pub(super) pulse: Pulse,
    starter: Starter,
    backoff: Rc<RefCell<Backoff>>,
    /// When the keeper came, or this daemon.
    since: Instant,
    /// The connection to one that is on its way to the loop.
    coming: Rc<RefCell<Option<KeeperClient>>>,
    /// How many came; tells answers of an earlier round apart.
    round: u64,
    /// Threads that have not yet told all they hold, this round.
    n_awaited: usize,
    /// Descriptors that were not parked, this round.
    n_failed: Cell<usize>,
}

/// Starts keepers.
#[derive(Clone)]
struct Starter {
    executable: OsString,
    home: PathBuf,
    log: PathBuf,
}

impl Keeping {
    /// Watches over `keeper`; what happens is told by `tell`. A daemon that was
    /// started without a keeper stays without.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(crate) fn new(
        keeper: Option<&KeeperClient>,
        doors: &Doors,
        paths: &Paths,
        tell: mpsc::Sender<KeeperNote>,
    ) -> io::Result<Keeping> {
        if let Some(keeper) = keeper {
            listen(second(keeper)?, tell.clone());
            super::pulse::beat(tell.clone());
        }
        Ok(Keeping {
            doors: doors.to_park()?,
            tell,
            pulse: Pulse::default(),
            starter: Starter {
                executable: executable(),
                home: paths.home.clone(),
                log: paths.log_file.clone(),
            },
            backoff: Rc::default(),
            since: Instant::now(),
            coming: Rc::default(),
            round: 0,
            n_awaited: 0,
            n_failed: Cell::new(0),
        })
    }

    /// Tells a keeper that is on its way that the daemon ends for good: it finds
    /// the word in its socket, however late it reads.
    pub(crate) fn quit(&self) {
        if let Some(keeper) = self.coming.borrow().as_ref() {
            // It may have failed to start: then there is nobody to tell.
            let _ = keeper.quit();
        }
    }

    /// Counts descriptors that could not be parked.
    pub(crate) fn failed(&self, n: usize) {
        self.n_failed.set(self.n_failed.get() + n);
    }

    fn replace(&self) {
        let life = self.since.elapsed();
        let (starter, tell) = (self.starter.clone(), self.tell.clone());
        let (backoff, coming) = (Rc::clone(&self.backoff), Rc::clone(&self.coming));
        tokio::task::spawn_local(async move {
            let mut life = life;
            let mut is_said = false;
            loop {
                let pause = backoff.borrow_mut().pause_after(life);
                tokio::time::sleep(pause).await;
                match starter.start(&coming).await {
                    // A closed inbox means that the daemon ends.
                    Ok(come) => return drop(tell.send(come).await),
                    Err(error) => say_once(&mut is_said, &error),
                }
                coming.borrow_mut().take();
                life = Duration::ZERO;
            }
        });
    }
}

/// Returns the executable as the keeper wrote it: `/proc/self/exe` would name a
/// file that was replaced meanwhile. A keeper that has it open only names a
/// descriptor of its own, which ends with it.
fn executable() -> OsString {
    let named = std::env::args_os().next().unwrap_or_default();
    match named.as_encoded_bytes().starts_with(b"/proc/") {
        true => "/proc/self/exe".into(),
        false => named,
    }
}

fn say_once(is_said: &mut bool, error: &io::Error) {
    if !std::mem::replace(is_said, true) {
        journal::error(&format!(
            "no other keeper can be started ({error}); trying again until one can be: \
             meanwhile a death of this daemon cuts its apps off"
        ));
    }
}

impl Starter {
    /// Starts a keeper and waits until it has taken this daemon over, or has
    /// ended: its end of the socket tells.
    async fn start(&self, coming: &RefCell<Option<KeeperClient>>) -> io::Result<KeeperNote> {
        let (ours, theirs) = fd::seqpacket_pair(Blocking::Waits)?;
        let mut keeper = KeeperClient::from_fd(ours)?;
        // All that can fail for lack of descriptors comes before the start: a
        // keeper that is given up would hold the home's lock.
        let reader = second(&keeper)?;
        *coming.borrow_mut() = Some(second(&keeper)?);
        let starter = self.clone();
        let (answer, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                let started = starter
                    .execute(theirs)
                    .and_then(|()| wait_for_word(&mut keeper))
                    .map(|()| KeeperNote::Come { keeper, reader });
                // Nobody waits any more: the daemon ends.
                let _ = answer.send(started);
            })?;
        match result.await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("its thread died")),
        }
    }

    fn execute(&self, socket: OwnedFd) -> io::Result<()> {
        let argv = roles::next_keeper_argv(&self.home, self.executable.clone());
        daemonize::start_holding(&argv, &self.log, &self.home, socket).map_err(io::Error::other)
    }
}

/// Waits for the keeper's END, or for its end, however long it takes: it is
/// slow, but it has the lock.
fn wait_for_word(keeper: &mut KeeperClient) -> io::Result<()> {
    loop {
        match keeper.take_back() {
            // It has just begun: nothing was parked and nobody is its orphan.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(error.kind(), "it ended at once"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tells what the keeper says, and its end.
fn listen(reader: KeeperClient, tell: mpsc::Sender<KeeperNote>) {
    tokio::task::spawn_local(async move {
        loop {
            let (note, is_last) = match reader.try_recv() {
                Ok(Some(message)) => (KeeperNote::Said(message), false),
                Ok(None) => {
                    wait(&reader).await;
                    continue;
                }
                Err(error) => (KeeperNote::Gone(error), true),
            };
            // A closed inbox means that the daemon ends.
            if tell.send(note).await.is_err() || is_last {
                return;
            }
        }
    });
}

pub(super) fn second(keeper: &KeeperClient) -> io::Result<KeeperClient> {
    KeeperClient::from_fd(fd::dup(keeper)?)
}

/// Waits until the keeper says something, or looks again soon where the system
/// has no descriptor left to wait with: that is not the end of the keeper.
async fn wait(reader: &KeeperClient) {
    let is_told = match fd::dup(reader) {
        Ok(socket) => readable(socket).await.is_ok(),
        Err(_) => false,
    };
    if !is_told {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Hub {
    pub(crate) fn on_keeper(&mut self, note: KeeperNote) {
        match note {
            KeeperNote::Said(KeeperMessage::Exited { pid, status }) => {
                if !self.children.orphan_exited(pid, status) {
                    // Nobody of ours: there is nothing to store.
                    self.heard(vec![pid]);
                }
            }
            KeeperNote::Said(KeeperMessage::Pong) => self.keeping.pulse.answered(),
            KeeperNote::Said(KeeperMessage::Go) => self.on_go(),
            KeeperNote::Pulse => self.feel_pulse(),
            KeeperNote::Late(n) => self.on_late(n),
            KeeperNote::Said(KeeperMessage::Refused(name)) => {
                journal::error(&format!("the keeper has no room for {name}"));
            }
            KeeperNote::Gone(error) => {
                self.keeper = None;
                self.refuse_update("the keeper was lost; try again when there is another");
                self.children.keeper_is_gone();
                journal::error(&format!("the keeper is gone ({error}): starting another"));
                self.keeping.replace();
            }
            KeeperNote::Come { keeper, reader } => self.park_all(keeper, reader),
            KeeperNote::Pipes(round, Pipes { fds, n_failed }) => {
                for (run, stream, fd) in fds {
                    let what = match stream {
                        Stream::Out => OUT,
                        Stream::Err => ERR,
                    };
                    // A run that is over is not parked: its `drained` may have
                    // been here already and nobody would drop it.
                    self.park_of(run, what, fd.as_fd());
                }
                self.parked_some(round, n_failed);
            }
        }
    }

    /// Gives a keeper everything. The loop gives what it holds; the threads are
    /// asked, in turn with what they are told, so that nothing is left out.
    fn park_all(&mut self, keeper: KeeperClient, reader: KeeperClient) {
        listen(reader, self.keeping.tell.clone());
        self.keeper = Some(keeper);
        let keeping = &mut self.keeping;
        keeping.pulse = Pulse::default();
        keeping.coming.borrow_mut().take();
        keeping.since = Instant::now();
        keeping.round += 1;
        keeping.n_awaited = 2;
        keeping.n_failed.set(0);
        let round = keeping.round;
        for (name, fd) in &self.keeping.doors {
            self.park(name, fd.as_fd());
        }
        for (name, fd) in self.activation.parked() {
            self.park(&name, fd);
        }
        let runs: Vec<Incarnation> = self.children.iter().map(|(run, _)| run).collect();
        for run in runs {
            if let Some(stdin) = self.children.get(run).and_then(|child| child.stdin()) {
                self.park_of(run, IN, stdin);
            }
        }
        let (pipes, tell) = (self.pump.park_all(), self.keeping.tell.clone());
        tokio::task::spawn_local(async move {
            // Without the log thread there are no pipes to be parked.
            if let Ok(pipes) = pipes.await {
                // A closed inbox means that the daemon ends.
                let _ = tell.send(KeeperNote::Pipes(round, pipes)).await;
            }
        });
        self.balancer.park_all(round);
    }

    /// One of the threads has told all it holds.
    pub(crate) fn parked_some(&mut self, round: u64, n_failed: usize) {
        let keeping = &mut self.keeping;
        if round != keeping.round {
            return;
        }
        keeping.failed(n_failed);
        keeping.n_awaited -= 1;
        if keeping.n_awaited > 0 {
            return;
        }
        match keeping.n_failed.get() {
            0 => journal::line("another keeper holds everything again"),
            n => journal::error(&format!(
                "another keeper is there, but {n} descriptors could not be parked: if this \
                 daemon dies, their apps are cut off (raise `ulimit -n`?)"
            )),
        }
    }
}
