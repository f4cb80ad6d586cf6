//! The balance thread: every IPC channel and every cluster socket.
//!
//! It is a thread of its own because accepting and handing over connections
//! must not wait for anything the loop does. It carries out what
//! [`musher_core::cluster::Primary`] decides and decides nothing itself; it
//! never spawns, reaps or signals. The loop talks to it through [`Balancer`],
//! it talks back through [`BalanceEvent`]s.

mod channel;
mod effects;
mod look;
mod measure;
pub(super) mod names;
mod overview;
mod socket;
mod spread;
mod thread;

use bytes::Bytes;
use musher_core::app::{Balance, Sticky, Upgraded};
use musher_core::cluster::message::Collected;
use musher_core::cluster::probing::Refusal;
use musher_core::id::Incarnation;
use musher_core::supervisor::action::{AppKey, Channel};
use musher_core::supervisor::event::AppMessage;
use musher_core::time::Millis;
use rustix::event::{EventfdFlags, eventfd};
use serde_json::Value;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub(crate) use overview::Address;

/// Set, no eBPF program is loaded: to see what an app gets without privilege.
const NO_EBPF: &str = "MUSHER_NO_EBPF";

/// What the balance thread tells the loop.
#[derive(Debug)]
pub(crate) enum BalanceEvent {
    /// A child said something supervision cares about.
    Said {
        /// Who.
        run: Incarnation,
        /// What.
        message: AppMessage,
    },
    /// A child said something else: one JSON value, as it came. It may hold
    /// lone surrogates, which serde_json refuses.
    Raw {
        /// Who.
        run: Incarnation,
        /// What, without newline.
        line: Bytes,
    },
    /// An agent has run the garbage collector, as [`Balancer::collect`] asked.
    Collected {
        /// Whose.
        run: Incarnation,
        /// With what result.
        collected: Collected,
    },
    /// Keep this duplicate of a listening socket where a later daemon finds it.
    Park {
        /// Under this name, for [`Balancer::restore_listener`].
        name: String,
        /// A duplicate.
        fd: OwnedFd,
    },
    /// The listening socket of this name is closed.
    Unpark {
        /// Its name.
        name: String,
    },
    /// A duplicate of the channel of a run, asked for by [`Balancer::park_all`].
    Channel {
        /// Whose.
        run: Incarnation,
        /// A duplicate.
        fd: OwnedFd,
    },
    /// Everything asked for by [`Balancer::park_all`] was told.
    AllParked {
        /// Which call.
        round: u64,
        /// Descriptors that could not be duplicated (`EMFILE`).
        n_failed: usize,
    },
    /// The event loop of a worker stopped turning, or turns again.
    Hung {
        /// Whose.
        run: Incarnation,
        /// Whether.
        is_hung: bool,
    },
    /// Something for our own log.
    Note(String),
    /// Keep this for [`Balancer::restore_ticket`]: TLS ticket keys.
    Ticket {
        /// Its name.
        name: String,
        /// What.
        data: Value,
    },
}

/// A child with a channel, as the thread is told of it.
#[derive(Debug)]
pub(crate) struct Child {
    /// Which run.
    pub(crate) run: Incarnation,
    /// Whose.
    pub(crate) app: AppKey,
    /// Which slot of listening sockets.
    pub(crate) slot: u32,
    /// How its connections are spread.
    pub(crate) balance: Balance,
    /// What ties a client to one worker.
    pub(crate) sticky: Option<Sticky>,
    /// Cluster worker or plain child.
    pub(crate) channel: Channel,
    /// musher's end of the channel, non-blocking.
    pub(crate) fd: OwnedFd,
}

/// Takes an overview on the thread; must not wait.
struct Answer(Box<dyn FnOnce(Vec<Address>) + Send>);

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

#[derive(Debug)]
enum Command {
    Add(Child),
    Send {
        run: Incarnation,
        json: Vec<u8>,
    },
    Detach(Incarnation),
    Drain {
        run: Incarnation,
        limit: Millis,
        websockets: Upgraded,
    },
    Collect {
        run: Incarnation,
        id: u64,
    },
    Forget(Incarnation),
    Suspend {
        run: Incarnation,
        suspended: bool,
    },
    Overview(Answer),
    KeepSlots {
        app: AppKey,
        live: Vec<u32>,
    },
    RestoreListener {
        name: String,
        fd: OwnedFd,
    },
    RestoreWorker {
        child: Child,
        keys: Vec<String>,
    },
    RestoreTicket {
        name: String,
        data: Value,
    },
    ParkAll {
        round: u64,
    },
    Probe(Probe),
    Leave,
    End,
}

/// A connection for one worker, and who is told what became of it.
#[derive(Debug)]
struct Probe {
    run: Incarnation,
    port: u16,
    fd: OwnedFd,
    answer: oneshot::Sender<Probed>,
}

/// What became of the connection of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// The worker has it.
    Taken,
    /// The worker closed it: its server is being closed, or it has no
    /// descriptors left.
    Closed,
    /// It was not sent.
    Refused(Refusal),
}

/// Hands connections to single workers, for tasks of the loop.
#[derive(Clone, Debug)]
pub(crate) struct Injector {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Injector {
    /// Hands a connection to this worker and no other, as one to `port`, or to
    /// its only port when that is 0. The answer comes when the worker took it;
    /// none comes when the worker goes before.
    pub(crate) fn inject(
        &self,
        run: Incarnation,
        port: u16,
        fd: OwnedFd,
    ) -> oneshot::Receiver<Probed> {
        let (answer, receiver) = oneshot::channel();
        let probe = Probe {
            run,
            port,
            fd,
            answer,
        };
        if self.commands.send(Command::Probe(probe)).is_ok() {
            wake(&self.wake);
        }
        receiver
    }
}

/// The loop's handle of the balance thread. Stopping or dropping it ends the
/// thread, which closes its descriptors and leaves the children alone.
#[derive(Debug)]
pub(crate) struct Balancer {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Starts the thread. `first_seq` is 0, or that of
    /// [`musher_core::cluster::takeover_seq`] in a daemon that takes over.
    /// `on_event` is called on the thread and must not wait.
    ///
    /// # Errors
    /// `EMFILE`, or `EAGAIN` if no thread can be made.
    pub(crate) fn start(
        first_seq: u64,
        on_event: impl FnMut(BalanceEvent) + Send + 'static,
    ) -> io::Result<Balancer> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, inbox) = channel();
        let mut state =
            thread::Thread::new(first_seq, inbox, Arc::clone(&wake), Box::new(on_event))?;
        let thread = std::thread::Builder::new()
            .name("balance".to_owned())
            .spawn(move || state.run())?;
        Ok(Balancer {
            commands,
            wake,
            thread: Some(thread),
        })
    }

    /// Takes the channel of a started child.
    pub(crate) fn add(&self, child: Child) {
        self.tell(Command::Add(child));
    }

    /// Sends one JSON value to a child. Dropped if the child is gone or has
    /// not read the last 16 MiB.
    pub(crate) fn send(&self, run: Incarnation, json: Vec<u8>) {
        self.tell(Command::Send { run, json });
    }

    /// Hands no further connections to a worker.
    pub(crate) fn detach(&self, run: Incarnation) {
        self.tell(Command::Detach(run));
    }

    /// Takes a worker out of balancing without ending it: its queue goes to
    /// the others. A worker that is alone, or accepts from a socket it shares
    /// (`shared`), goes on accepting by itself.
    pub(crate) fn suspend(&self, run: Incarnation) {
        let suspended = true;
        self.tell(Command::Suspend { run, suspended });
    }

    /// Asks for every address of the cluster apps; `answer` is called on the
    /// thread.
    pub(crate) fn overview(&self, answer: impl FnOnce(Vec<Address>) + Send + 'static) {
        self.tell(Command::Overview(Answer(Box::new(answer))));
    }

    /// Takes a suspended worker back into balancing.
    pub(crate) fn resume(&self, run: Incarnation) {
        let suspended = false;
        self.tell(Command::Suspend { run, suspended });
    }

    /// Hands no further connections to a worker, and lets its agent finish
    /// those it has; it says [`AppMessage::Drained`].
    pub(crate) fn drain(&self, run: Incarnation, limit: Millis, websockets: Upgraded) {
        self.tell(Command::Drain {
            run,
            limit,
            websockets,
        });
    }

    /// Lets the agent of a run collect garbage; [`BalanceEvent::Collected`]
    /// with this id follows if there is an agent.
    pub(crate) fn collect(&self, run: Incarnation, id: u64) {
        self.tell(Command::Collect { run, id });
    }

    /// The run is over: what it still said is told, then its channel closed
    /// and its unaccepted connections go to others.
    pub(crate) fn forget(&self, run: Incarnation) {
        self.tell(Command::Forget(run));
    }

    /// Only these slots of the app remain and serve the sockets of the others;
    /// without any the app is stopped or deleted, and its sockets are closed.
    pub(crate) fn keep_slots(&self, app: AppKey, live: Vec<u32>) {
        self.tell(Command::KeepSlots { app, live });
    }

    /// Takes back a parked socket; before the workers of its app.
    pub(crate) fn restore_listener(&self, name: String, fd: OwnedFd) {
        self.tell(Command::RestoreListener { name, fd });
    }

    /// Takes back a living child that listens on these keys, as
    /// `AppMessage::Listening` told them.
    pub(crate) fn restore_worker(&self, child: Child, keys: Vec<String>) {
        self.tell(Command::RestoreWorker { child, keys });
    }

    /// Takes back TLS ticket keys; before the workers of their app.
    pub(crate) fn restore_ticket(&self, name: String, data: Value) {
        self.tell(Command::RestoreTicket { name, data });
    }

    /// Asks for a duplicate of everything another keeper has to hold:
    /// [`BalanceEvent::Channel`] and [`BalanceEvent::Park`] follow, then
    /// [`BalanceEvent::AllParked`].
    pub(crate) fn park_all(&self, round: u64) {
        self.tell(Command::ParkAll { round });
    }

    /// Accepts no more, and ends the thread when the connections it has are
    /// handed over, for which it has a fraction of a second. What it has read is
    /// told by then.
    pub(crate) fn leave(&mut self) {
        self.tell(Command::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Returns what hands connections to single workers.
    pub(crate) fn injector(&self) -> Injector {
        Injector {
            commands: self.commands.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    fn tell(&self, command: Command) {
        // The inbox closes only when the thread has died of a bug; the loop
        // notices by its missing events.
        if self.commands.send(command).is_ok() {
            wake(&self.wake);
        }
    }
}

fn wake(eventfd: &OwnedFd) {
    // EAGAIN means that it is awake already (eventfd(2)).
    let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tell(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
