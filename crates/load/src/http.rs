//! HTTP/1.1 requests: many on a connection, or one.

use crate::Client;
use crate::options::Options;
use crate::tally::Tally;
use crate::wire::{Connection, Fault, Idle};
use std::sync::Mutex;

/// Asks with GET and judges status and body.
pub(crate) struct HttpClient {
    options: Options,
    request: Vec<u8>,
    is_kept: bool,
    connection: Option<Connection>,
}

impl HttpClient {
    /// Returns a client that keeps its connection as long as the server does.
    pub(crate) fn keep_alive(options: &Options) -> HttpClient {
        HttpClient::new(options, true, "keep-alive")
    }

    /// Returns a client that opens a connection for each request.
    pub(crate) fn fresh(options: &Options) -> HttpClient {
        HttpClient::new(options, false, "close")
    }

    fn new(options: &Options, is_kept: bool, connection: &str) -> HttpClient {
        let path = &options.path;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        HttpClient {
            options: options.clone(),
            request: request.into_bytes(),
            is_kept,
            connection: None,
        }
    }

    /// Returns the connection to ask on; one that ended while it was idle is
    /// replaced, as every client does that looks before it writes.
    fn connection(&mut self, tally: &Mutex<Tally>) -> Result<Connection, Fault> {
        if let Some(connection) = self.connection.take() {
            match connection.idle() {
                Idle::Quiet => return Ok(connection),
                Idle::Bytes => return Err(Fault::Protocol("bytes without a request".to_owned())),
                Idle::Ended => reconnected(tally),
            }
        }
        Connection::open(self.options.address, self.options.timeout)
    }
}

fn reconnected(tally: &Mutex<Tally>) {
    tally
        .lock()
        .expect("no client panics while it counts")
        .n_reconnects += 1;
}

impl Client for HttpClient {
    fn ask(&mut self, tally: &Mutex<Tally>) -> Result<(), Fault> {
        let mut connection = self.connection(tally)?;
        connection.send(&self.request)?;
        let answer = Answer::read(&mut connection)?;
        if !(200..300).contains(&answer.status) {
            let body = String::from_utf8_lossy(&answer.body);
            let start: String = body.chars().take(80).collect();
            return Err(Fault::Status(format!("{} {start}", answer.status)));
        }
        let body = String::from_utf8_lossy(&answer.body);
        if !body.starts_with(&self.options.expect) {
            return Err(Fault::Body(body.chars().take(80).collect()));
        }
        tally
            .lock()
            .expect("no client panics while it counts")
            .saw(&body);
        match (self.is_kept, answer.ends_connection) {
            (true, false) => self.connection = Some(connection),
            // The server asked for it in time: the next one opens another.
            (true, true) => reconnected(tally),
            (false, _) => {}
        }
        Ok(())
    }
}

/// A whole answer.
struct Answer {
    status: u16,
    ends_connection: bool,
    body: Vec<u8>,
}

impl Answer {
    fn read(connection: &mut Connection) -> Result<Answer, Fault> {
        let head = connection.take_until(b"\r\n\r\n", "before the answer")?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| Fault::Protocol(first.chars().take(80).collect()))?;
        let header = |name: &str| {
            let line = head
                .split("\r\n")
                .skip(1)
                .filter_map(|line| line.split_once(':'));
            let mut named = line.filter(|(n, _)| n.eq_ignore_ascii_case(name));
            named
                .next()
                .map(|(_, value)| value.trim().to_ascii_lowercase())
        };
        let is_old = first.starts_with("HTTP/1.0");
        let said = header("connection").unwrap_or_default();
        let mut ends_connection =
            said.contains("close") || (is_old && !said.contains("keep-alive"));
        let body = if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            chunked(connection)?
        } else if let Some(length) = header("content-length") {
            let n = length
                .parse()
                .map_err(|_| Fault::Protocol(format!("content-length {length}")))?;
            connection.take(n, "in the body")?
        } else {
            ends_connection = true;
            connection.take_all("in the body")?
        };
        Ok(Answer {
            status,
            ends_connection,
            body,
        })
    }
}

/// RFC 9112, 7.1; trailers are not expected.
fn chunked(connection: &mut Connection) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    loop {
        let line = connection.take_until(b"\r\n", "in a chunk")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| Fault::Protocol(format!("chunk of {size}")))?;
        let chunk = connection.take(size.saturating_add(2), "in a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
