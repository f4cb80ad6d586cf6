//! `rpc.sock`: frames in, calls to the loop, replies out.
//!
//! A connection is one task: it decodes, hands each call over with a way to
//! answer it, and writes the answers in the order they are given. It decides
//! nothing and never makes the loop wait: an answer goes into a bounded queue,
//! and a client that does not read loses its connection. A malformed frame
//! costs only the connection it came on.

#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes, BytesMut};
use musher_core::app::AppSpec;
use musher_core::id::RequestId;
use musher_core::wire::rpc::{Call, error_body, methods_body, parse_call};
use musher_core::wire::{amp, axon};
use rustix::io::Errno;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// Connections at the same time; one more is closed as soon as it is accepted.
const MAX_CONNECTIONS: usize = 1024;

/// Calls of one connection without an answer; further ones stay in the socket.
const MAX_IN_FLIGHT: usize = 256;

/// Answers a client has not read; at this many bytes its connection is closed.
const MAX_UNREAD_BYTES: usize = 32 * 1024 * 1024;

/// Room for at least this much is made before each read.
const READ_BYTES: usize = 64 * 1024;

/// How long accepting rests when the system has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a connection on the last descriptor may take: others wait.
const LAST_LIFE: Duration = Duration::from_secs(1);

/// How long a connection that ends may still take to write what was answered.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Makes apps of descriptions: `app::description` with the daemon's defaults.
pub(crate) type Describe =
    Arc<dyn Fn(&Map<String, Value>) -> Result<AppSpec, String> + Send + Sync>;

/// What the socket brings to the loop.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A client calls.
    Call {
        /// The call's number, for `Event::Request`.
        id: RequestId,
        /// What it wants.
        call: Box<Call>,
        /// How to answer; dropped without an answer, the client gets none.
        reply: ReplyTo,
    },
    /// A client left before these calls were answered: `Event::Abandoned` for
    /// each. Some may never have been handed over as requests.
    Gone(Vec<RequestId>),
}

/// The way back to one call.
#[derive(Debug)]
pub(crate) struct ReplyTo {
    id: RequestId,
    /// The client's own id, returned byte for byte.
    wire_id: Bytes,
    connection: Arc<Connection>,
    /// Counts as in flight until dropped.
    _permit: OwnedSemaphorePermit,
}

/// The part of a connection that answers share with its task.
#[derive(Debug, Default)]
struct Connection {
    state: Mutex<State>,
    /// Rings when there is something to write, or an overflow.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    replies: VecDeque<Bytes>,
    n_unread_bytes: usize,
    /// The client does not read, or is gone: nothing is queued any more.
    is_closed: bool,
    unanswered: BTreeSet<RequestId>,
}

impl ReplyTo {
    /// Answers with `body`: `{"args":[…]}` or `{"error",…}`, see `wire::rpc`.
    /// Never waits. The answer is dropped if the client is gone.
    pub(crate) fn send(self, body: &Value) {
        if !self.connection.state().is_closed {
            self.connection.push(axon::reply_frame(body, &self.wire_id));
        }
    }

    /// As [`ReplyTo::send`], with a body that is JSON text already.
    pub(crate) fn send_text(self, body: &str) {
        if !self.connection.state().is_closed {
            self.connection
                .push(axon::reply_frame_of_text(body, &self.wire_id));
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.connection.state().unanswered.remove(&self.id);
    }
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; the state is whole anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Vec<u8>) {
        let mut state = self.state();
        // One answer may be larger than the bound: it alone is always taken.
        let is_alone = state.n_unread_bytes == 0;
        state.n_unread_bytes += frame.len();
        if state.n_unread_bytes > MAX_UNREAD_BYTES && !is_alone {
            state.is_closed = true;
            state.replies.clear();
        } else if !state.is_closed {
            state.replies.push_back(frame.into());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The next answer to write; the one before is written.
    fn next(&self, n_written: usize) -> Option<Bytes> {
        let mut state = self.state();
        state.n_unread_bytes = state.n_unread_bytes.saturating_sub(n_written);
        state.replies.pop_front()
    }
}

/// Serves `listener` until `inbox` is closed. Peers of another user than the
/// daemon's and root are turned away. `ids` numbers the calls; other doors may
/// share it. Dropping the future closes every connection.
pub(crate) async fn serve(
    listener: UnixListener,
    describe: Describe,
    ids: Arc<AtomicU64>,
    inbox: mpsc::Sender<Incoming>,
) {
    let mut connections = JoinSet::new();
    let mut reserve = Reserve::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => {
                reserve.fill();
                continue;
            }
            () = inbox.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let is_last = !reserve.fill();
                if connections.len() < MAX_CONNECTIONS && is_allowed(&stream) {
                    let (describe, ids, inbox) = (describe.clone(), ids.clone(), inbox.clone());
                    let talk = converse(stream, describe, ids, inbox);
                    connections.spawn(async move {
                        let limit = if is_last { LAST_LIFE } else { Duration::MAX };
                        // Cut off, it makes room for the next.
                        drop(tokio::time::timeout(limit, talk).await);
                    });
                }
            }
            Err(error) if is_lack(&error) && reserve.give_up() => {}
            // accept(2): a dead peer or no descriptors; neither ends the service.
            Err(_) => tokio::time::sleep(ACCEPT_REST).await,
        }
    }
}

/// A descriptor kept for the client that comes when none is left: a person
/// who wants to know why.
struct Reserve(Option<OwnedFd>);

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve(musher_os::fd::dev_null().ok())
    }
}

impl Reserve {
    /// Closes it, if it is there: the next accept has room.
    fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Opens it again if there is room; returns whether it is there.
    fn fill(&mut self) -> bool {
        if self.0.is_none() {
            *self = Reserve::default();
        }
        self.0.is_some()
    }
}

fn is_lack(error: &std::io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|errno| lacks.contains(&errno))
}

/// Returns true for a peer that may control this daemon: same user, or root.
pub(super) fn is_allowed(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// The life of one connection.
async fn converse(
    mut stream: UnixStream,
    describe: Describe,
    ids: Arc<AtomicU64>,
    inbox: mpsc::Sender<Incoming>,
) {
    let connection = Arc::new(Connection::default());
    let talk = Talk {
        connection: connection.clone(),
        describe,
        ids,
        inbox: inbox.clone(),
    };
    // Whatever ended it, the end is the same: the client is gone.
    let _ = talk.run(&mut stream).await;
    let gone: Vec<RequestId> = {
        let mut state = connection.state();
        state.is_closed = true;
        state.unanswered.iter().copied().collect()
    };
    if !gone.is_empty() {
        let _ = inbox.send(Incoming::Gone(gone)).await;
    }
}

struct Talk {
    connection: Arc<Connection>,
    describe: Describe,
    ids: Arc<AtomicU64>,
    inbox: mpsc::Sender<Incoming>,
}

impl Talk {
    async fn run(&self, stream: &mut UnixStream) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let mut input = BytesMut::new();
        let mut request: Option<axon::Incoming> = None;
        let mut output = Bytes::new();
        let mut n_written = 0;
        loop {
            if request.is_none() {
                request = next_request(&mut input)?;
            }
            if output.is_empty() {
                output = self.connection.next(n_written).unwrap_or_default();
                n_written = output.len();
            }
            if self.connection.state().is_closed {
                return Ok(());
            }
            // A client may send ahead, but not more than one frame is kept.
            let has_room = request.is_none() || input.len() < READ_BYTES;
            tokio::select! {
                permit = in_flight.clone().acquire_owned(), if request.is_some() => {
                    let permit = permit.map_err(io::Error::other)?;
                    let request = request.take().expect("the branch is on with a request");
                    self.take(request, permit).await?;
                }
                n_read = read_some(&mut reader, &mut input), if has_room => {
                    if n_read? == 0 {
                        return self.say_last_words(&mut writer, output).await;
                    }
                }
                result = writer.write_buf(&mut output), if output.has_remaining() => {
                    result?;
                }
                () = self.connection.wake.notified() => {}
            }
        }
    }

    /// Hands one request to the loop, or answers it where that needs no loop.
    async fn take(&self, request: axon::Incoming, permit: OwnedSemaphorePermit) -> io::Result<()> {
        let id = RequestId(self.ids.fetch_add(1, Ordering::Relaxed));
        let reply = ReplyTo {
            id,
            wire_id: request.id,
            connection: self.connection.clone(),
            _permit: permit,
        };
        match parse_call(&request.body, &*self.describe) {
            Ok(Call::Methods) => reply.send(&methods_body()),
            Ok(call) => {
                if call.is_answered() {
                    self.connection.state().unanswered.insert(id);
                }
                let call = Box::new(call);
                let incoming = Incoming::Call { id, call, reply };
                return self.inbox.send(incoming).await.map_err(io::Error::other);
            }
            Err(error) => reply.send(&error_body(&error.to_string())),
        }
        Ok(())
    }

    /// The client sends no more; what was answered before is still written.
    async fn say_last_words(
        &self,
        writer: &mut (impl AsyncWriteExt + Unpin),
        mut output: Bytes,
    ) -> io::Result<()> {
        let write = async {
            loop {
                writer.write_all_buf(&mut output).await?;
                match self.connection.next(0) {
                    Some(next) => output = next,
                    None => return Ok(()),
                }
            }
        };
        tokio::time::timeout(LAST_WORDS, write)
            .await
            .unwrap_or_else(|late| Err(late.into()))
    }
}

async fn read_some(
    reader: &mut (impl AsyncReadExt + Unpin),
    input: &mut BytesMut,
) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}

/// The next complete request, or an error that ends the connection.
fn next_request(input: &mut BytesMut) -> io::Result<Option<axon::Incoming>> {
    let Some(args) = amp::decode(input).map_err(io::Error::other)? else {
        return Ok(None);
    };
    axon::request(&args).map(Some).map_err(io::Error::other)
}
