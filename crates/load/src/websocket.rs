//! Numbered messages over a WebSocket that echoes them.
//!
//! A server that leaves says so with a Close frame; then the client connects
//! again and sends what was not echoed once more, which is counted and is no
//! failure. A connection that ends without a Close frame is one.

use crate::Client;
use crate::options::Options;
use crate::tally::Tally;
use crate::wire::{Connection, Fault, Idle};
use std::sync::Mutex;

/// The key of the handshake says nothing; the sample of RFC 6455, 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Close frames in a row before a message counts as refused.
const MAX_CLOSES: u32 = 8;
/// Reasons to leave that blame nobody: normal, going away, restart (RFC 6455, 7.4.1).
const ORDERLY: [u16; 3] = [1000, 1001, 1012];

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Keeps one WebSocket and numbers what it sends.
pub(crate) struct WebSocketClient {
    options: Options,
    connection: Option<Connection>,
    client: u64,
    number: u64,
}

/// What became of a message.
enum Sent {
    Echoed,
    /// The server closed by the book before the echo.
    Left,
}

impl WebSocketClient {
    /// Returns a client that is not yet connected; `client` keeps its messages
    /// apart from those of others.
    pub(crate) fn new(options: &Options, client: u64) -> WebSocketClient {
        WebSocketClient {
            options: options.clone(),
            connection: None,
            client,
            number: 0,
        }
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let mut connection = Connection::open(self.options.address, self.options.timeout)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            self.options.path
        );
        connection.send(request.as_bytes())?;
        let head = connection.take_until(b"\r\n\r\n", "in the handshake")?;
        if !head.starts_with(b"HTTP/1.1 101") {
            let first: String = String::from_utf8_lossy(&head).lines().take(1).collect();
            return Err(Fault::Status(first));
        }
        Ok(connection)
    }

    fn exchange(&mut self, message: &str, tally: &Mutex<Tally>) -> Result<Sent, Fault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        match connection.idle() {
            Idle::Quiet => {}
            Idle::Ended => return Err(Fault::Closed("without a Close frame, idle".to_owned())),
            // The server's word comes first; usually that it leaves.
            Idle::Bytes => {
                if !heed(&mut connection)? {
                    return Ok(Sent::Left);
                }
            }
        }
        connection.send(&frame(TEXT, message.as_bytes()))?;
        loop {
            let (opcode, payload) = read_frame(&mut connection)?;
            match opcode {
                TEXT | BINARY => {
                    let text = String::from_utf8_lossy(&payload);
                    let Some(rest) = text.strip_prefix(message) else {
                        return Err(Fault::Body(format!("{text:?} answers {message:?}")));
                    };
                    tally
                        .lock()
                        .expect("no client panics while it counts")
                        .saw(rest.trim());
                    self.connection = Some(connection);
                    return Ok(Sent::Echoed);
                }
                _ if !obey(&mut connection, opcode, &payload)? => return Ok(Sent::Left),
                _ => {}
            }
        }
    }
}

impl Client for WebSocketClient {
    fn ask(&mut self, tally: &Mutex<Tally>) -> Result<(), Fault> {
        self.number += 1;
        let message = format!("{}:{}", self.client, self.number);
        for _ in 0..MAX_CLOSES {
            match self.exchange(&message, tally)? {
                Sent::Echoed => return Ok(()),
                Sent::Left => {
                    let mut sums = tally.lock().expect("no client panics while it counts");
                    sums.n_reconnects += 1;
                    sums.n_resent += 1;
                }
            }
        }
        Err(Fault::Closed(format!("{MAX_CLOSES} Close frames in a row")))
    }
}

/// Reads the frame that waits; returns whether the connection goes on.
fn heed(connection: &mut Connection) -> Result<bool, Fault> {
    let (opcode, payload) = read_frame(connection)?;
    obey(connection, opcode, &payload)
}

/// Answers a control frame; returns whether the connection goes on.
fn obey(connection: &mut Connection, opcode: u8, payload: &[u8]) -> Result<bool, Fault> {
    match opcode {
        PING => connection.send(&frame(PONG, payload)).map(|()| true),
        PONG => Ok(true),
        CLOSE => {
            let code = payload
                .get(..2)
                .map_or(1000, |code| u16::from_be_bytes([code[0], code[1]]));
            // Whether the answer arrives changes nothing: both are leaving.
            let _ = connection.send(&frame(CLOSE, payload));
            if ORDERLY.contains(&code) {
                return Ok(false);
            }
            Err(Fault::Closed(format!("by a Close frame with code {code}")))
        }
        other => Err(Fault::Protocol(format!("a frame of kind {other}"))),
    }
}

/// A masked frame (RFC 6455, 5.2); a mask of zeros leaves the payload as it is.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|n| *n < 126);
    let length = length.expect("messages are numbers, control frames are echoed");
    let mut bytes = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

fn read_frame(connection: &mut Connection) -> Result<(u8, Vec<u8>), Fault> {
    let during = "without a Close frame";
    let head = connection.take(2, during)?;
    let length = match head[1] & 0x7f {
        126 => connection
            .take(2, during)?
            .iter()
            .fold(0, |n, byte| n << 8 | usize::from(*byte)),
        127 => return Err(Fault::Protocol("a frame of more than 64 KiB".to_owned())),
        short => usize::from(short),
    };
    let payload = connection.take(length, during)?;
    // Control frames of 126 bytes and more are against RFC 6455, 5.5.
    if head[0] & 0x08 != 0 && payload.len() > 125 {
        return Err(Fault::Protocol("a long control frame".to_owned()));
    }
    Ok((head[0] & 0x0f, payload))
}
