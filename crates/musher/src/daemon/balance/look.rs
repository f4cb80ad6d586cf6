//! Looking at connections of sticky apps, and hearing of their sessions.
//!
//! A connection is peeked at (MSG_PEEK of recv(2)) whenever more of it arrives,
//! until the primary knows whose it is. Nothing is consumed: its worker reads it
//! from the first byte. Workers tell of sessions in the words of
//! `@socket.io/sticky`; what `@socket.io/cluster-adapter` says to its primary is
//! passed on to the other workers, as its primary does.

use super::socket::now;
use super::thread::{CONNECTION, Thread, token};
use bytes::Bytes;
use musher_core::cluster::ConnectionId;
use musher_core::cluster::sticky::{HEAD_LIMIT, Seen};
use musher_core::id::Incarnation;
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{RecvFlags, getpeername, recv};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// How a message about a session begins: Node writes the fields in the order
/// the package has them.
const SESSION: &[u8] = br#"{"type":"sticky:"#;

/// What a message between the adapters says of itself, near its beginning or
/// its end.
const ADAPTER: &[u8] = br#""source":"_sio_adapter""#;

/// How far from either end that is looked for, bytes.
const ADAPTER_DEPTH: usize = 512;

/// A message about a session.
#[derive(Deserialize)]
struct SessionNote<'a> {
    r#type: &'a str,
    data: &'a str,
}

impl Thread {
    /// Peeks at a connection, and goes on when more arrives if that is not
    /// enough.
    pub(super) fn look(&mut self, connection: ConnectionId) {
        let Some(fd) = self.connections.get(&connection) else {
            return;
        };
        let mut head = [0_u8; HEAD_LIMIT];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (len, is_over) = match recv(fd, &mut head, flags) {
            Ok((len, _)) => (len, len == 0),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => (0, false),
            // Its worker is to learn of it.
            Err(_) => (0, true),
        };
        let seen = Seen {
            peer: peer_of(fd),
            head: &head[..len],
            is_over,
        };
        let mut out = Vec::new();
        self.primary.looked(connection, seen, now(), &mut out);
        let is_looking = self.primary.is_looking(connection);
        if is_looking && self.looking.insert(connection) {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            // Failing needs ENOMEM or the limit of watches; patience ends it.
            let _ = epoll::add(&self.epoll, fd, token(CONNECTION, connection.0), flags);
        }
        self.actions.extend(out);
    }

    /// A connection that is looked at has more to see.
    pub(super) fn on_connection(&mut self, connection: ConnectionId) {
        self.look(connection);
        self.decide(|_, _| ());
    }

    /// The connection is about to leave the thread. Its registration would stay
    /// with whoever gets it (epoll(7), Q6).
    pub(super) fn stop_looking(&mut self, connection: ConnectionId) {
        if self.looking.remove(&connection)
            && let Some(fd) = self.connections.get(&connection)
        {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Takes what a worker of a sticky app says about sessions.
    pub(super) fn hear(&mut self, run: Incarnation, line: &Bytes) {
        if line.starts_with(SESSION) && self.primary.is_sticky(run) {
            let Ok(note) = serde_json::from_slice::<SessionNote<'_>>(line) else {
                return;
            };
            let begins = match note.r#type {
                "sticky:connection" => true,
                "sticky:disconnection" => false,
                _ => return,
            };
            self.decide(|primary, out| primary.session(run, note.data, begins, now(), out));
        } else if self.primary.is_sticky(run) && is_of_adapter(line) {
            for colleague in self.primary.colleagues(run) {
                if let Some(link) = self.links.get_mut(&colleague) {
                    link.push_user(line);
                    self.flush(colleague);
                }
            }
        }
    }
}

fn is_of_adapter(line: &[u8]) -> bool {
    let says_so = |part: &[u8]| part.windows(ADAPTER.len()).any(|window| window == ADAPTER);
    let depth = ADAPTER_DEPTH.min(line.len());
    says_so(&line[..depth]) || says_so(&line[line.len() - depth..])
}

fn peer_of(fd: impl std::os::fd::AsFd) -> Option<IpAddr> {
    let peer = SocketAddr::try_from(getpeername(fd).ok().flatten()?).ok()?;
    Some(peer.ip())
}
