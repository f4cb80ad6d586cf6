//! How long the queues are from which workers accept by themselves.
//!
//! While nothing arrives nothing is measured: the sockets are in an epoll of
//! their own, and the thread waits for that one only until it has said once
//! that somebody queues. Then the lengths are read every [`TICK`] and told to
//! the primary until all are 0. So an idle app costs nothing, and one under
//! load a few microseconds a tick.

use super::socket::now;
use super::thread::{QUEUES, Thread, token};
use musher_core::cluster::SocketId;
use musher_core::time::{Millis, Mono};
use musher_os::listen;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;

/// How often lengths are read while something is queued.
const TICK: Millis = Millis(2);

/// The sockets that are measured.
pub(super) struct Gauge {
    /// Readable when a connection waits in any of them.
    epoll: OwnedFd,
    sockets: BTreeSet<SocketId>,
    /// When to read next; `None` while the epoll is waited for.
    next: Option<Mono>,
}

impl Gauge {
    pub(super) fn new() -> io::Result<Gauge> {
        Ok(Gauge {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            sockets: BTreeSet::new(),
            next: None,
        })
    }

    /// Registers with the epoll of the thread.
    pub(super) fn register(&self, with: &OwnedFd) -> io::Result<()> {
        let once = EventFlags::IN | EventFlags::ONESHOT;
        Ok(epoll::add(with, &self.epoll, token(QUEUES, 0), once)?)
    }

    /// Returns when to read next.
    pub(super) fn next(&self) -> Option<Mono> {
        self.next
    }

    /// A socket is about to be closed.
    pub(super) fn forget(&mut self, socket: SocketId, fd: &OwnedFd) {
        if self.sockets.remove(&socket) {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Somebody queues.
    pub(super) fn wake(&mut self) {
        self.next = Some(now() + TICK);
    }
}

impl Thread {
    /// Measures a socket, or no longer.
    pub(super) fn measure(&mut self, socket: SocketId, on: bool) {
        let Some(listener) = self.listeners.get(&socket) else {
            return;
        };
        let done = match on {
            true => {
                let data = token(QUEUES, socket.0);
                self.gauge.sockets.insert(socket);
                epoll::add(&self.gauge.epoll, &listener.fd, data, EventFlags::IN)
            }
            false => {
                self.gauge.sockets.remove(&socket);
                epoll::delete(&self.gauge.epoll, &listener.fd)
            }
        };
        // Failing to add needs ENOMEM or the limit of watches: the queue is
        // then read only while another one is.
        let _ = done;
    }

    /// Reads the lengths if it is time.
    pub(super) fn read_queues(&mut self, time: Mono) {
        if self.gauge.next.is_none_or(|at| at > time) {
            return;
        }
        let mut lengths = Vec::with_capacity(self.gauge.sockets.len());
        for socket in &self.gauge.sockets {
            if let Some(listener) = self.listeners.get(socket) {
                let length = listen::queue_length(&listener.fd).unwrap_or(0);
                lengths.push((*socket, length));
            }
        }
        let is_empty = lengths.iter().all(|(_, length)| *length == 0);
        self.decide(|primary, out| primary.queues(&lengths, time, out));
        if is_empty {
            self.gauge.next = None;
            let once = EventFlags::IN | EventFlags::ONESHOT;
            let _ = epoll::modify(&self.epoll, &self.gauge.epoll, token(QUEUES, 0), once);
        } else {
            self.gauge.next = Some(time + TICK);
        }
    }

    /// Accepts connections although their socket has a worker.
    pub(super) fn take_from(&mut self, socket: SocketId, n_connections: u32) {
        for _ in 0..n_connections {
            let Some(listener) = self.listeners.get(&socket) else {
                return;
            };
            let Ok(Some(fd)) = listen::accept(&listener.fd) else {
                return;
            };
            self.took(socket, fd);
        }
    }
}
