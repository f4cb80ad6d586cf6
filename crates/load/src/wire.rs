//! A connection with a buffer, and the ways an answer can be missing.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer longer than this is a failure, not a reason to go on reading.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const CHUNK: usize = 16 * 1024;

/// Why a request has no good answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nobody listened.
    Refused,
    /// The connection was reset.
    Reset(String),
    /// The connection ended before the answer did.
    Closed(String),
    /// No whole answer in time.
    Timeout(String),
    /// An answer, and not a good one.
    Status(String),
    /// A good answer that says the wrong thing.
    Body(String),
    /// Bytes that are no answer.
    Protocol(String),
    /// The machine ran out of something.
    Other(String),
}

impl Fault {
    /// Returns the word this kind is counted under.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Fault::Refused => "refused",
            Fault::Reset(_) => "reset",
            Fault::Closed(_) => "closed",
            Fault::Timeout(_) => "timeout",
            Fault::Status(_) => "status",
            Fault::Body(_) => "body",
            Fault::Protocol(_) => "protocol",
            Fault::Other(_) => "other",
        }
    }

    fn of(error: &std::io::Error, during: &str) -> Fault {
        match error.kind() {
            ErrorKind::ConnectionRefused => Fault::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Fault::Reset(during.to_owned())
            }
            // A timeout of the socket is one or the other, read(2) and SO_RCVTIMEO.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Fault::Timeout(during.to_owned()),
            _ => Fault::Other(format!("{during}: {error}")),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Refused => write!(f, "refused"),
            Fault::Reset(what)
            | Fault::Closed(what)
            | Fault::Timeout(what)
            | Fault::Status(what)
            | Fault::Body(what)
            | Fault::Protocol(what)
            | Fault::Other(what) => write!(f, "{}: {what}", self.kind()),
        }
    }
}

/// What an idle connection shows before the next request.
pub(crate) enum Idle {
    Quiet,
    /// The other side ended it while nothing was under way.
    Ended,
    /// Bytes nobody asked for wait in it.
    Bytes,
}

/// A TCP connection and the bytes read from it that nobody has taken yet.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    timeout: Duration,
    deadline: Instant,
}

impl Connection {
    /// Connects within the time one answer may take.
    pub(crate) fn open(address: SocketAddr, timeout: Duration) -> Result<Connection, Fault> {
        let stream = TcpStream::connect_timeout(&address, timeout)
            .map_err(|error| Fault::of(&error, "connecting"))?;
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_write_timeout(Some(timeout)));
        set.map_err(|error| Fault::of(&error, "connecting"))?;
        let deadline = Instant::now() + timeout;
        Ok(Connection {
            stream,
            buffer: Vec::new(),
            timeout,
            deadline,
        })
    }

    /// Looks at the connection without waiting.
    pub(crate) fn idle(&self) -> Idle {
        if !self.buffer.is_empty() {
            return Idle::Bytes;
        }
        let seen = self
            .stream
            .set_nonblocking(true)
            .and_then(|()| self.stream.peek(&mut [0]));
        if self.stream.set_nonblocking(false).is_err() {
            return Idle::Ended;
        }
        match seen {
            Ok(0) => Idle::Ended,
            Ok(_) => Idle::Bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Idle::Quiet,
            Err(_) => Idle::Ended,
        }
    }

    /// Sends a request; the time for its answer begins.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.deadline = Instant::now() + self.timeout;
        self.stream
            .write_all(bytes)
            .map_err(|error| Fault::of(&error, "sending"))
    }

    /// Reads on; returns whether there was more.
    fn fill(&mut self, during: &str) -> Result<bool, Fault> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Timeout(during.to_owned()));
        }
        let set = self.stream.set_read_timeout(Some(left));
        set.map_err(|error| Fault::of(&error, during))?;
        let mut chunk = [0; CHUNK];
        let n = self
            .stream
            .read(&mut chunk)
            .map_err(|error| Fault::of(&error, during))?;
        self.buffer.extend_from_slice(&chunk[..n]);
        if self.buffer.len() > MAX_ANSWER {
            return Err(Fault::Protocol(format!(
                "{during}: more than {MAX_ANSWER} bytes"
            )));
        }
        Ok(n > 0)
    }

    /// Takes exactly `n` bytes.
    pub(crate) fn take(&mut self, n: usize, during: &str) -> Result<Vec<u8>, Fault> {
        while self.buffer.len() < n {
            if !self.fill(during)? {
                return Err(Fault::Closed(format!(
                    "{during}, after {} of {n} bytes",
                    self.buffer.len()
                )));
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Takes everything up to and with `end`.
    pub(crate) fn take_until(&mut self, end: &[u8], during: &str) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.fill(during)? {
                return Err(Fault::Closed(format!(
                    "{during}, after {} bytes",
                    self.buffer.len()
                )));
            }
        }
    }

    /// Takes everything up to the end of the connection.
    pub(crate) fn take_all(&mut self, during: &str) -> Result<Vec<u8>, Fault> {
        while self.fill(during)? {}
        Ok(std::mem::take(&mut self.buffer))
    }
}
