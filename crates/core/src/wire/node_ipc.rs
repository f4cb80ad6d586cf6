//! Node's IPC channel: one JSON value per line, in both directions.
//!
//! [`Lines`] cuts bytes into lines, [`read`] says what a line means, [`write`]
//! makes a line. Descriptors travel beside the bytes, one per
//! [`FromWorker::Handle`], in order; whoever owns the socket keeps them in a
//! queue. Lines of the app are opaque: they may be many megabytes, and may
//! hold lone surrogates that no strict JSON parser takes, so they are never
//! parsed here and never lead to an error. An empty line is never written: it
//! would kill the worker (`JSON.parse('')`).

use super::agent;
use crate::cluster::message::{Endpoint, FromWorker, Key, Kind, Query, SocketOptions, ToWorker};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Map, Value, json};

/// The longest line taken, bytes. A longer one is dropped whole and counted.
pub const LINE_LIMIT: usize = 64 << 20;

/// libuv's accept queue when the app names none.
const DEFAULT_BACKLOG: i32 = 511;

/// Flag of a query: IPV6_V6ONLY (UV_TCP_IPV6ONLY, UV_UDP_IPV6ONLY).
const FLAG_V6_ONLY: u64 = 1;

/// Flag of a datagram query: SO_REUSEADDR (UV_UDP_REUSEADDR).
const FLAG_REUSE_ADDR: u64 = 4;

/// Bun puts this byte before its internal messages and expects it before ours.
const BUN_MARK: u8 = 2;

/// Cuts a byte stream into lines, however it is chunked.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no newline.
    searched: usize,
    limit: usize,
    skipping: bool,
    n_dropped: u64,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::with_limit(LINE_LIMIT)
    }
}

impl Lines {
    /// Returns a cutter that drops lines longer than `limit` bytes.
    pub fn with_limit(limit: usize) -> Lines {
        Lines {
            buffer: BytesMut::new(),
            searched: 0,
            limit,
            skipping: false,
            n_dropped: 0,
        }
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete line without its newline; empty lines are
    /// passed over.
    pub fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let fresh = &self.buffer[self.searched..];
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                self.drop_if_too_long();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.len() > self.limit {
                self.n_dropped += 1;
                continue;
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    /// Returns how many lines were dropped for their length.
    pub fn n_dropped(&self) -> u64 {
        self.n_dropped
    }

    fn drop_if_too_long(&mut self) {
        if self.skipping {
            self.buffer.clear();
            self.searched = 0;
        } else if self.buffer.len() > self.limit {
            self.buffer = BytesMut::new();
            self.searched = 0;
            self.skipping = true;
            self.n_dropped += 1;
        }
    }
}

/// What a line means.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// The string `"ready"`.
    Ready,
    /// Any other message of the app, not looked into.
    User,
    /// A message of the runtime.
    Internal {
        /// What it says.
        message: FromWorker,
        /// True when the sender marks internal messages as Bun does.
        bun: bool,
    },
}

/// Returns what a line means. Never fails: what cannot be understood is the
/// app's own business, or [`FromWorker::Other`].
pub fn read(line: &[u8]) -> Line {
    let (bun, body) = match line.split_first() {
        Some((&BUN_MARK, body)) => (true, body),
        Some(_) | None => (false, line),
    };
    if !bun && body == br#""ready""# {
        return Line::Ready;
    }
    // Node writes `cmd` first, so everything else is the app's. A message is
    // internal only if its `cmd` goes on after the prefix.
    if !body.starts_with(br#"{"cmd":"NODE_"#) || body.starts_with(br#"{"cmd":"NODE_""#) {
        return Line::User;
    }
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|value| internal(&value))
        .unwrap_or(FromWorker::Other);
    Line::Internal { message, bun }
}

fn internal(value: &Value) -> Option<FromWorker> {
    Some(match value["cmd"].as_str()? {
        "NODE_CLUSTER" => cluster(value)?,
        "NODE_HANDLE" if value["msg"]["cmd"] == agent::CMD => {
            agent::read(&value["msg"], true).unwrap_or(FromWorker::Handle)
        }
        "NODE_HANDLE" => FromWorker::Handle,
        agent::CMD => agent::read(value, false)?,
        "NODE_HANDLE_ACK" => FromWorker::HandleAck,
        "NODE_HANDLE_NACK" => FromWorker::HandleNack,
        "NODE_SOCKET_NOTIFY_CLOSE" => FromWorker::SocketsClosedQuery(value["key"].clone()),
        "NODE_SOCKET_GET_COUNT" => FromWorker::SocketCountQuery(value["key"].clone()),
        _ => FromWorker::Other,
    })
}

fn cluster(value: &Value) -> Option<FromWorker> {
    if let Some(ack) = value["ack"].as_u64() {
        let accepted = value["accepted"].as_bool() == Some(true);
        return Some(FromWorker::Verdict { ack, accepted });
    }
    Some(match value["act"].as_str()? {
        "online" => FromWorker::Online,
        "queryServer" => FromWorker::Query(query(value)?),
        "listening" => FromWorker::Listening(endpoint(value)?),
        "close" => FromWorker::Close(Key(value["key"].as_str()?.to_owned())),
        "exitedAfterDisconnect" => FromWorker::Leaving {
            seq: value["seq"].as_u64()?,
        },
        _ => FromWorker::Other,
    })
}

fn query(value: &Value) -> Option<Query> {
    let flags = value["flags"].as_u64().unwrap_or(0);
    let foreign = value["fd"].as_i64().is_some_and(|fd| fd >= 0);
    let backlog = value["backlog"]
        .as_i64()
        .and_then(|n| i32::try_from(n).ok());
    Some(Query {
        seq: value["seq"].as_u64()?,
        endpoint: if foreign { None } else { endpoint(value) },
        options: SocketOptions {
            v6_only: flags & FLAG_V6_ONLY != 0,
            reuse_addr: flags & FLAG_REUSE_ADDR != 0,
            backlog: backlog.filter(|n| *n > 0).unwrap_or(DEFAULT_BACKLOG),
            readable_all: value["readableAll"].as_bool() == Some(true),
            writable_all: value["writableAll"].as_bool() == Some(true),
        },
        data: value["data"].clone(),
    })
}

fn endpoint(value: &Value) -> Option<Endpoint> {
    let kind = match &value["addressType"] {
        Value::String(word) => Kind::parse(word)?,
        Value::Number(number) => Kind::parse(&number.to_string())?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let port = value["port"].as_i64().unwrap_or(0);
    Some(Endpoint {
        address: value["address"].as_str().map(str::to_owned),
        port: i32::try_from(port).ok().filter(|port| *port <= 0xffff)?,
        kind,
        index: value["index"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
    })
}

/// Returns the line of a message with its newline, marked for Bun if asked.
pub fn write(message: &ToWorker, bun: bool) -> Vec<u8> {
    let value = match message {
        ToWorker::HandleAck => json!({"cmd": "NODE_HANDLE_ACK"}),
        ToWorker::HandleNack => json!({"cmd": "NODE_HANDLE_NACK"}),
        ToWorker::SocketsClosed(key) => json!({"cmd": "NODE_SOCKET_ALL_CLOSED", "key": key}),
        ToWorker::SocketCount(key) => json!({"cmd": "NODE_SOCKET_COUNT", "key": key, "count": 0}),
        ToWorker::MayLeave { ack, seq } => json!({"cmd": "NODE_CLUSTER", "ack": ack, "seq": seq}),
        ToWorker::Refusal {
            ack,
            seq,
            errno,
            key,
        } => json!({
            "cmd": "NODE_CLUSTER", "errno": -errno, "key": key.0, "ack": ack,
            "data": null, "seq": seq,
        }),
        ToWorker::RoundRobin {
            ack,
            seq,
            key,
            data,
            name,
        } => {
            // `errno` must be null here and 0 in a shared reply.
            let mut reply = json!({
                "cmd": "NODE_CLUSTER", "errno": null, "key": key.0, "ack": ack, "data": data,
            });
            if let Some(name) = name {
                let family = if name.v6 { "IPv6" } else { "IPv4" };
                reply["sockname"] =
                    json!({"address": name.address, "family": family, "port": name.port});
            }
            reply["seq"] = json!(seq);
            reply
        }
        ToWorker::Shared {
            ack,
            seq,
            key,
            kind,
            data,
        } => with_handle(
            *kind,
            SOCKET_TYPE_LISTENER,
            json!({
                "cmd": "NODE_CLUSTER", "errno": 0, "key": key.0, "ack": ack, "data": data,
                "seq": seq,
            }),
        ),
        ToWorker::Connection { seq, key, kind } => with_handle(
            *kind,
            SOCKET_TYPE_CONNECTION,
            json!({"cmd": "NODE_CLUSTER", "act": "newconn", "key": key.0, "seq": seq}),
        ),
        ToWorker::Drain { .. } | ToWorker::Collect { .. } => {
            agent::write(message).expect("these are words to the agent")
        }
    };
    let mut line = Vec::with_capacity(192);
    if bun {
        line.push(BUN_MARK);
    }
    line.extend_from_slice(value.to_string().as_bytes());
    line.push(b'\n');
    line
}

/// Deno's `socketType` of a connection and of a listening socket; Node ignores
/// it and `nativeKind`, Deno 2.8 and later need both.
const SOCKET_TYPE_CONNECTION: u8 = 0;
const SOCKET_TYPE_LISTENER: u8 = 1;

fn with_handle(kind: Kind, socket_type: u8, inner: Value) -> Value {
    let mut outer = Map::new();
    outer.insert("cmd".into(), json!("NODE_HANDLE"));
    let native = if kind.is_datagram() {
        "dgram.Native"
    } else {
        "net.Native"
    };
    outer.insert("type".into(), json!(native));
    outer.insert("socketType".into(), json!(socket_type));
    let native_kind = if kind == Kind::Pipe { "pipe" } else { "tcp" };
    outer.insert("nativeKind".into(), json!(native_kind));
    outer.insert("msg".into(), inner);
    Value::Object(outer)
}

/// Returns a user message as a line with its newline, or `None` for what must
/// never be written: an empty message, or one that holds a raw newline.
pub fn user_line(json: &[u8]) -> Option<Vec<u8>> {
    let json = json.trim_ascii();
    if json.is_empty() || json.contains(&b'\n') {
        return None;
    }
    let mut line = Vec::with_capacity(json.len() + 1);
    line.extend_from_slice(json);
    line.push(b'\n');
    Some(line)
}

#[cfg(test)]
mod tests;
