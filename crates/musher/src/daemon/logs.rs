//! Pipes to files: the output of every process, on its own thread.
//!
//! The thread exists so that a flood of output or a slow disk never delays a
//! decision. It reads every pipe as long as it lives, whatever happens to the
//! files: an app is never blocked or killed because its log cannot be written.
//! What is lost is counted and reported. It decides nothing about processes and
//! never waits for a subscriber.
//!
//! Memory is bounded: one read buffer and one output buffer for all sources,
//! [`LINE_MAX_BYTES`] of an unfinished line per stream, and
//! [`SUBSCRIBED_MAX_BYTES`] on the way to subscribers.

mod clock;
mod files;
mod outlet;
mod pump;
mod source;
mod splice;
#[cfg(test)]
mod tests;

#[cfg(doc)]
use musher_core::log::LINE_MAX_BYTES;
#[cfg(doc)]
use outlet::SUBSCRIBED_MAX_BYTES;

use bytes::Bytes;
use musher_core::id::{Incarnation, PmId};
use musher_core::log::Stream;
use musher_core::supervisor::Output;
use rustix::event::{EventfdFlags, epoll, eventfd};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// One output stream of a run.
#[derive(Debug)]
pub(crate) struct Source {
    /// The life it belongs to.
    pub(crate) run: Incarnation,
    /// The slot it fills.
    pub(crate) pm_id: PmId,
    /// App name, for JSON records.
    pub(crate) name: Arc<str>,
    /// Which stream.
    pub(crate) stream: Stream,
    /// Reading end of its pipe; made non-blocking.
    pub(crate) fd: OwnedFd,
    /// Where the output of the run goes; the stream picks its file.
    pub(crate) output: Output,
}

/// What the log thread tells the daemon.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// Output as it was written; only while somebody subscribes. Whole lines,
    /// except where a line is very long or its end has not come for half a second.
    Text {
        /// The slot it fills.
        pm_id: PmId,
        /// Which stream.
        stream: Stream,
        /// The bytes of the log file.
        text: Bytes,
        /// When it was read, milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// Output did not arrive; at most one report per stream, reason and minute,
    /// and one when it goes on.
    Lost {
        /// Whose output.
        pm_id: PmId,
        /// How much since the last report.
        bytes: u64,
        /// Where it was lost.
        reason: LossReason,
    },
    /// Everything the run wrote is in its files and its pipes are closed.
    /// Follows [`LogPump::finish`] exactly once.
    Drained {
        /// Which run.
        run: Incarnation,
    },
}

/// Duplicates of the pipes that are read, by run and stream.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    /// Every pipe that is open.
    pub(crate) fds: Vec<(Incarnation, Stream, OwnedFd)>,
    /// Pipes that could not be duplicated (`EMFILE`).
    pub(crate) n_failed: usize,
}

/// Where output was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LossReason {
    /// The subscribers did not keep up; the files are complete.
    Subscriber,
    /// The file could not be written. The text names path and system error.
    File(String),
}

/// Takes an event, or gives it back when its queue is full. Must not block.
pub(crate) type Sink = Box<dyn FnMut(LogEvent) -> Result<(), LogEvent> + Send>;

/// Why the log thread could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The epoll or eventfd descriptor could not be made.
    #[error("could not make the descriptors of the log thread")]
    Descriptors(#[source] rustix::io::Errno),
    /// The thread could not be made.
    #[error("could not start the log thread")]
    Thread(#[source] std::io::Error),
}

/// The handle of the log thread. Dropping it writes what the pipes hold and ends
/// the thread.
#[derive(Debug)]
pub(crate) struct LogPump {
    /// Unbounded, but at most three commands per run and one per request wait.
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What both sides see.
#[derive(Debug)]
struct Shared {
    /// Wakes the thread.
    waker: OwnedFd,
    n_subscribers: AtomicUsize,
    lost_bytes: AtomicU64,
}

#[derive(Debug)]
enum Command {
    Attach(Box<Source>),
    Finish(Incarnation),
    Reopen(mpsc::SyncSender<()>),
    ParkAll(oneshot::Sender<Pipes>),
    Stop,
}

impl LogPump {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`LogError`] when the system has no descriptor or thread left.
    pub(crate) fn start(sink: Sink) -> Result<LogPump, LogError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(LogError::Descriptors)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            waker: eventfd(0, flags).map_err(LogError::Descriptors)?,
            n_subscribers: AtomicUsize::new(0),
            lost_bytes: AtomicU64::new(0),
        });
        let (commands, inbox) = mpsc::channel();
        let pump = pump::Pump::new(epoll, inbox, Arc::clone(&shared), sink)
            .map_err(LogError::Descriptors)?;
        let thread = std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || pump.run())
            .map_err(LogError::Thread)?;
        Ok(LogPump {
            commands,
            shared,
            thread: Some(thread),
        })
    }

    /// Takes over a pipe. Its files are created at once.
    pub(crate) fn attach(&self, source: Source) {
        self.tell(Command::Attach(Box::new(source)));
    }

    /// The process is gone: writes what is left in its pipes, waits up to
    /// [`source::LAST_WORDS`] for descendants that still hold them, closes them,
    /// and says [`LogEvent::Drained`].
    pub(crate) fn finish(&self, run: Incarnation) {
        self.tell(Command::Finish(run));
    }

    /// Opens every file anew by its path (`reloadLogs`, SIGUSR2). The receiver
    /// hears when it is done.
    pub(crate) fn reopen(&self) -> mpsc::Receiver<()> {
        let (done, receiver) = mpsc::sync_channel(1);
        self.tell(Command::Reopen(done));
        receiver
    }

    /// Asks for a duplicate of everything another keeper has to hold. What was
    /// attached before is among it.
    pub(crate) fn park_all(&self) -> oneshot::Receiver<Pipes> {
        let (answer, receiver) = oneshot::channel();
        self.tell(Command::ParkAll(answer));
        receiver
    }

    /// Says how many listen; with 0 no text is copied for them.
    pub(crate) fn set_subscribers(&self, n_subscribers: usize) {
        self.shared
            .n_subscribers
            .store(n_subscribers, Ordering::Relaxed);
    }

    /// Returns the bytes that could not be written to files since the start.
    pub(crate) fn lost_bytes(&self) -> u64 {
        self.shared.lost_bytes.load(Ordering::Relaxed)
    }

    fn tell(&self, command: Command) {
        // The receiver is gone only if the thread panicked; the daemon outlives its logs.
        if self.commands.send(command).is_ok() {
            self.shared.wake();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // EAGAIN means the counter is full: the thread is awake anyway.
        let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
    }
}

impl Drop for LogPump {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
