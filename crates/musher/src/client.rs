//! A client of the daemon: blocking calls over `rpc.sock`.
//!
//! Commands live for milliseconds, so there is no runtime here: a socket, a
//! buffer and a deadline per wait. Several calls may be in flight on one
//! connection. It never retries a call that may have changed something; one that
//! only reads is asked again of the next daemon if the first one left.

mod launch;
mod subscriber;

pub(crate) use launch::{connect, ensure_daemon};
pub(crate) use subscriber::Subscriber;

use crate::paths::Paths;
use bytes::{Bytes, BytesMut};
use musher_core::wire::{amp, axon};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for an answer the daemon has at hand.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for an action: longer than any sensible `kill_timeout` plus
/// `listen_timeout`. A daemon that dies ends the wait at once.
const ACTION_DEADLINE: Duration = Duration::from_secs(3600);

/// Pause before knocking again at a socket whose queue is full; for
/// [`READ_DEADLINE`] in all.
const QUEUE_PAUSE: Duration = Duration::from_millis(2);

/// Pause before a question is asked again of the next daemon.
const NEXT_DAEMON_PAUSE: Duration = Duration::from_millis(5);

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why a call was not answered with a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// The daemon refused; its text.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error(
        "the daemon closed the connection before it answered {method}; the apps run on, look with \
         `musher ls` and repeat the command"
    )]
    Closed {
        /// What was asked last.
        method: String,
    },
    /// No answer in time.
    #[error("the daemon did not answer {method} within {} s", limit.as_secs())]
    TimedOut {
        /// What was asked.
        method: String,
        /// The deadline.
        limit: Duration,
    },
    /// Something that is not PM2's wire.
    #[error("the daemon answered something unreadable: {0}")]
    Unreadable(String),
    /// The socket failed.
    #[error("could not talk to the daemon: {0}")]
    Io(#[from] io::Error),
}

/// A call in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallId(u64);

/// One connection to the daemon.
#[derive(Debug)]
pub(crate) struct Client {
    path: PathBuf,
    stream: UnixStream,
    buffer: BytesMut,
    n_calls: u64,
}

impl Client {
    /// Connects to the daemon of a home; `None` when nobody listens.
    ///
    /// # Errors
    /// The socket is there but may not be used (`EACCES`).
    pub(crate) fn connect(paths: &Paths) -> io::Result<Option<Client>> {
        Ok(open(&paths.rpc_sock)?.map(|stream| Client {
            path: paths.rpc_sock.clone(),
            stream,
            buffer: BytesMut::new(),
            n_calls: 0,
        }))
    }

    /// Asks for something the daemon has at hand.
    ///
    /// # Errors
    /// [`RpcError`].
    pub(crate) fn read(&mut self, method: &str, argument: Value) -> Result<Value, RpcError> {
        self.read_of_any(method, |client| {
            client.call_within(method, std::slice::from_ref(&argument), READ_DEADLINE)
        })
    }

    /// Asks again as long as the daemon leaves and another one comes: reading
    /// changes nothing.
    fn read_of_any<T>(
        &mut self,
        method: &str,
        mut ask: impl FnMut(&mut Client) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let deadline = Instant::now() + READ_DEADLINE;
        loop {
            match ask(self) {
                Err(RpcError::Closed { .. }) if Instant::now() < deadline => {
                    let Some(stream) = open(&self.path)? else {
                        let method = method.to_owned();
                        return Err(RpcError::Closed { method });
                    };
                    (self.stream, self.buffer) = (stream, BytesMut::new());
                    std::thread::sleep(NEXT_DAEMON_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    /// As [`Client::read`], with the answer as the JSON text it came as: a list
    /// of a hundred processes is printed and not looked at.
    ///
    /// # Errors
    /// [`RpcError`].
    pub(crate) fn read_text(&mut self, method: &str, argument: Value) -> Result<String, RpcError> {
        self.read_of_any(method, |client| {
            client.text_once(method, std::slice::from_ref(&argument))
        })
    }

    fn text_once(&mut self, method: &str, arguments: &[Value]) -> Result<String, RpcError> {
        let wanted = self.send(method, arguments)?;
        let deadline = Instant::now() + READ_DEADLINE;
        loop {
            let args = self.next_frame(method, READ_DEADLINE, deadline)?;
            if let Some(text) = text_of(&args, wanted) {
                return Ok(text);
            }
            let (id, answer) = parse_reply(&args)?;
            if id == wanted {
                return answer.map(|value| value.to_string());
            }
        }
    }

    /// Asks for an action and waits until it is done.
    ///
    /// # Errors
    /// [`RpcError`].
    pub(crate) fn call(&mut self, method: &str, argument: Value) -> Result<Value, RpcError> {
        self.call_within(method, &[argument], ACTION_DEADLINE)
    }

    fn call_within(
        &mut self,
        method: &str,
        arguments: &[Value],
        limit: Duration,
    ) -> Result<Value, RpcError> {
        let wanted = self.send(method, arguments)?;
        let deadline = Instant::now() + limit;
        loop {
            let (id, answer) = self.next_answer(method, limit, deadline)?;
            if id == wanted {
                return answer;
            }
        }
    }

    /// Sends a call without waiting for its answer.
    ///
    /// # Errors
    /// Of the socket.
    pub(crate) fn send(&mut self, method: &str, arguments: &[Value]) -> Result<CallId, RpcError> {
        let id = CallId(self.n_calls);
        self.n_calls += 1;
        let body = json!({"type": "call", "method": method, "args": arguments});
        let name = format!("{}:{}", std::process::id(), id.0);
        let frame = axon::request_frame(&body, &name);
        match self.stream.write_all(&frame) {
            Ok(()) => Ok(id),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(RpcError::Closed {
                method: method.to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the answer of any call in flight.
    ///
    /// # Errors
    /// The outer one ends the connection, the inner one is the call's own.
    pub(crate) fn wait_any(
        &mut self,
        method: &str,
    ) -> Result<(CallId, Result<Value, RpcError>), RpcError> {
        self.next_answer(method, ACTION_DEADLINE, Instant::now() + ACTION_DEADLINE)
    }

    /// Waits until the daemon closes the connection, which it does when it ends.
    /// Returns false when it is still there after `limit`.
    pub(crate) fn wait_closed(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_answer("killMe", limit, deadline) {
                Ok(_) => (),
                Err(RpcError::TimedOut { .. }) => return false,
                Err(_) => return true,
            }
        }
    }

    fn next_answer(
        &mut self,
        method: &str,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(CallId, Result<Value, RpcError>), RpcError> {
        parse_reply(&self.next_frame(method, limit, deadline)?)
    }

    fn next_frame(
        &mut self,
        method: &str,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Vec<Bytes>, RpcError> {
        loop {
            let frame = amp::decode_within(&mut self.buffer, amp::MAX_REPLY_BYTES)
                .map_err(|error| RpcError::Unreadable(error.to_string()))?;
            if let Some(args) = frame {
                return Ok(args);
            }
            match fill(&mut self.stream, &mut self.buffer, deadline)? {
                Filled::Bytes => (),
                Filled::Closed => {
                    return Err(RpcError::Closed {
                        method: method.to_owned(),
                    });
                }
                Filled::TimedOut => {
                    return Err(RpcError::TimedOut {
                        method: method.to_owned(),
                        limit,
                    });
                }
            }
        }
    }
}

/// What reading from the daemon gave.
enum Filled {
    Bytes,
    Closed,
    TimedOut,
}

fn open(path: &Path) -> io::Result<Option<UnixStream>> {
    let deadline = Instant::now() + READ_DEADLINE;
    loop {
        match musher_os::control::connect(path) {
            Ok(socket) => {
                let stream = UnixStream::from(socket);
                // Waits here have deadlines of their own.
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => return Ok(None),
                // Many clients at once: the queue of the socket is full until
                // the daemon has accepted some (unix(7)).
                ErrorKind::WouldBlock if Instant::now() < deadline => {
                    std::thread::sleep(QUEUE_PAUSE);
                }
                _ => return Err(error),
            },
        }
    }
}

fn fill(stream: &mut UnixStream, buffer: &mut BytesMut, deadline: Instant) -> io::Result<Filled> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(Filled::TimedOut);
    }
    stream.set_read_timeout(Some(left))?;
    let old = buffer.len();
    buffer.resize(old + READ_BYTES, 0);
    let read = stream.read(&mut buffer[old..]);
    buffer.truncate(old + *read.as_ref().unwrap_or(&0));
    match read {
        Ok(0) => Ok(Filled::Closed),
        Ok(_) => Ok(Filled::Bytes),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(Filled::TimedOut),
            ErrorKind::Interrupted => Ok(Filled::Bytes),
            ErrorKind::ConnectionReset => Ok(Filled::Closed),
            _ => Err(error),
        },
    }
}

type Answer = (CallId, Result<Value, RpcError>);

/// Returns the text of the one value a reply carries, if it is the reply to
/// this call and written without spaces, as musher writes it.
fn text_of(args: &[Bytes], wanted: CallId) -> Option<String> {
    let [body, id] = args else { return None };
    let id = std::str::from_utf8(id).ok()?.rsplit(':').next()?;
    if id.parse() != Ok(wanted.0) {
        return None;
    }
    let body = std::str::from_utf8(body).ok()?;
    let value = body.strip_prefix("j:{\"args\":[")?.strip_suffix("]}")?;
    Some(value.to_owned())
}

fn parse_reply(args: &[Bytes]) -> Result<Answer, RpcError> {
    let reply = axon::reply(args).map_err(|error| RpcError::Unreadable(error.to_string()))?;
    let id = std::str::from_utf8(&reply.id)
        .ok()
        .and_then(|id| id.rsplit(':').next()?.parse().ok())
        .ok_or_else(|| RpcError::Unreadable("an answer without the id of a call".to_owned()))?;
    let mut body = reply.body;
    if let Some(error) = body.get("error") {
        let text = error
            .as_str()
            .map_or_else(|| error.to_string(), str::to_owned);
        return Ok((CallId(id), Err(RpcError::Refused(text))));
    }
    let value = body.get_mut("args").and_then(|args| args.get_mut(0));
    Ok((CallId(id), Ok(value.map_or(Value::Null, Value::take))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use musher_os::listen::{self, PathAccess};

    #[test]
    fn a_full_queue_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("rpc.sock");
        let listener = listen::unix(&path, PathAccess::default(), 1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(connection) = musher_os::control::connect(&path) {
            waiting.push(connection);
        }
        let (tell, told) = std::sync::mpsc::channel();
        // Outlives the thread: a closed listener refuses who still waits.
        let listener = &listener;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                told.recv().unwrap();
                for _ in waiting {
                    listen::accept(listener).unwrap().unwrap();
                }
            });
            tell.send(()).unwrap();
            assert!(open(&path).unwrap().is_some());
        });
    }
}
