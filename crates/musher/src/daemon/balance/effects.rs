//! What the primary decides becomes calls on sockets and channels.
//!
//! [`Thread::decide`] is the only way to the primary's decisions that have
//! consequences; they are carried out in the order given before anything else
//! is read.

use super::channel::Writable;
use super::names::{self, ListenerName};
use super::socket::{Listener, errno_of, make, name_of, now, path_of};
use super::spread::Chooser;
use super::thread::{CHANNEL, LISTENER, Thread, token};
use super::{BalanceEvent, Probed};
use musher_core::cluster::message::{SocketOptions, ToWorker};
use musher_core::cluster::{Carried, ClusterAction, ConnectionId, Primary, SocketId};
use musher_core::id::Incarnation;
use musher_core::time::Millis;
use musher_core::wire::node_ipc;
use musher_os::{fd, listen};
use rustix::event::epoll::{self, EventFlags};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Patience after an accept that failed (EMFILE): the socket stays readable.
const ACCEPT_PAUSE: Millis = Millis(100);

impl Thread {
    /// Lets the primary decide, then carries out everything that follows.
    pub(super) fn decide(&mut self, decision: impl FnOnce(&mut Primary, &mut Vec<ClusterAction>)) {
        let mut out = Vec::new();
        decision(&mut self.primary, &mut out);
        self.actions.extend(out);
        while let Some(action) = self.actions.pop_front() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: ClusterAction) {
        match action {
            ClusterAction::Bind {
                socket,
                app,
                slot,
                order,
                endpoint,
                options,
                joins,
            } => {
                let place = ListenerName {
                    app,
                    slot,
                    order,
                    backlog: options.backlog,
                    endpoint,
                };
                self.bind(socket, &place, options, joins);
            }
            ClusterAction::Watch { socket, on } => self.watch(socket, on),
            ClusterAction::Measure { socket, on } => self.measure(socket, on),
            ClusterAction::Spread {
                socket,
                n_sockets,
                live,
            } => self.spread(socket, n_sockets, &live),
            ClusterAction::Accept {
                socket,
                n_connections,
            } => self.take_from(socket, n_connections),
            ClusterAction::Hung { run, is_hung } => {
                (self.on_event)(BalanceEvent::Hung { run, is_hung });
            }
            ClusterAction::CloseSocket { socket } => self.close_socket(socket),
            ClusterAction::EndSocket { socket } => self.end_socket(socket),
            ClusterAction::Look { connection } => self.look(connection),
            ClusterAction::Probed {
                connection,
                is_taken,
            } => {
                let probed = match is_taken {
                    true => Probed::Taken,
                    false => Probed::Closed,
                };
                self.answer_probe(connection, probed);
            }
            ClusterAction::CloseConnection { connection } => {
                self.stop_looking(connection);
                self.connections.remove(&connection);
                self.probes.remove(&connection);
            }
            ClusterAction::Send {
                run,
                message,
                carried,
            } => self.send(run, &message, carried),
            ClusterAction::Tell { run, message } => {
                (self.on_event)(BalanceEvent::Said { run, message });
            }
            ClusterAction::Collected { run, collected } => {
                (self.on_event)(BalanceEvent::Collected { run, collected });
            }
            ClusterAction::KeepTicket { app, key, data } => {
                let name = names::write_ticket(&app, &key);
                (self.on_event)(BalanceEvent::Ticket { name, data });
            }
        }
    }

    fn end_socket(&mut self, socket: SocketId) {
        if let Some(listener) = self.listeners.get(&socket) {
            // Fails for datagram sockets, which have no queue.
            let _ = rustix::net::shutdown(&listener.fd, rustix::net::Shutdown::Both);
        }
        self.close_socket(socket);
    }

    fn bind(
        &mut self,
        socket: SocketId,
        place: &ListenerName,
        options: SocketOptions,
        joins: Option<SocketId>,
    ) {
        let member = joins.and_then(|socket| self.listeners.get(&socket));
        let made = make(
            &place.endpoint,
            options,
            member.map(|listener| &listener.fd),
        );
        let result = made.as_ref().map(name_of).map_err(errno_of);
        if let Ok(fd) = made {
            let name = place.write();
            if let (Some(name), Ok(fd)) = (name.clone(), fd::dup(&fd)) {
                (self.on_event)(BalanceEvent::Park { name, fd });
            }
            let listener = Listener {
                fd: Arc::new(fd),
                name,
                path: path_of(&place.endpoint),
                watched: false,
                chooser: Chooser::Hash,
            };
            self.listeners.insert(socket, listener);
        }
        let mut out = Vec::new();
        self.primary.bound(socket, result, now(), &mut out);
        self.actions.extend(out);
    }

    /// Tells a duplicate of every channel and every socket that is kept.
    pub(super) fn park_all(&mut self, round: u64) {
        let mut n_failed = 0;
        let mut tell =
            |fd: std::io::Result<OwnedFd>, event: &dyn Fn(OwnedFd) -> BalanceEvent| match fd {
                Ok(fd) => (self.on_event)(event(fd)),
                Err(_) => n_failed += 1,
            };
        for (run, link) in &self.links {
            let run = *run;
            tell(fd::dup(&link.fd), &|fd| BalanceEvent::Channel { run, fd });
        }
        for listener in self.listeners.values() {
            let Some(name) = &listener.name else { continue };
            tell(fd::dup(&listener.fd), &|fd| BalanceEvent::Park {
                name: name.clone(),
                fd,
            });
        }
        (self.on_event)(BalanceEvent::AllParked { round, n_failed });
    }

    fn watch(&mut self, socket: SocketId, on: bool) {
        let Some(listener) = self.listeners.get_mut(&socket) else {
            return;
        };
        let data = token(LISTENER, socket.0);
        let done = match on {
            true => epoll::add(&self.epoll, &listener.fd, data, EventFlags::IN),
            false => epoll::delete(&self.epoll, &listener.fd),
        };
        // The primary tells only of changes, so this fails for lack of memory.
        if done.is_ok() {
            listener.watched = on;
        }
    }

    pub(super) fn accept(&mut self, socket: SocketId) {
        self.accept_into(socket);
        self.decide(|_, _| ());
    }

    fn accept_into(&mut self, socket: SocketId) {
        while let Some(listener) = self.listeners.get(&socket)
            && self.leave_by.is_none()
            && self.primary.credit(socket) > 0
        {
            match listen::accept(&listener.fd) {
                Ok(Some(fd)) => self.took(socket, fd),
                Ok(None) => return,
                Err(_) => return self.pause(socket),
            }
        }
    }

    /// A connection was accepted.
    pub(super) fn took(&mut self, socket: SocketId, fd: OwnedFd) {
        let connection = self.take_connection(fd);
        let mut out = Vec::new();
        self.primary.accepted(socket, connection, now(), &mut out);
        self.actions.extend(out);
    }

    /// Gives a connection its id.
    pub(super) fn take_connection(&mut self, fd: OwnedFd) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        self.connections.insert(connection, Arc::new(fd));
        connection
    }

    fn pause(&mut self, socket: SocketId) {
        self.set_interest(socket, EventFlags::empty());
        self.paused.push_back((now() + ACCEPT_PAUSE, socket));
    }

    pub(super) fn set_interest(&self, socket: SocketId, flags: EventFlags) {
        if let Some(listener) = self.listeners.get(&socket).filter(|l| l.watched) {
            let _ = epoll::modify(&self.epoll, &listener.fd, token(LISTENER, socket.0), flags);
        }
    }

    fn close_socket(&mut self, socket: SocketId) {
        let Some(listener) = self.listeners.remove(&socket) else {
            return;
        };
        if listener.watched {
            let _ = epoll::delete(&self.epoll, &listener.fd);
        }
        self.gauge.forget(socket, &listener.fd);
        if let Some(path) = listener.path {
            let _ = std::fs::remove_file(path);
        }
        if let Some(name) = listener.name {
            (self.on_event)(BalanceEvent::Unpark { name });
        }
    }

    fn send(&mut self, run: Incarnation, message: &ToWorker, carried: Carried) {
        if let Carried::Connection(connection) = carried {
            self.stop_looking(connection);
        }
        let fd = match carried {
            Carried::Nothing => None,
            Carried::Socket(socket) => self.listeners.get(&socket).map(|l| Arc::clone(&l.fd)),
            Carried::Connection(connection) => self.connections.get(&connection).cloned(),
            Carried::Nobody => Some(Arc::clone(&self.nobody)),
        };
        let Some(link) = self.links.get_mut(&run) else {
            return;
        };
        let line = node_ipc::write(message, link.bun);
        link.push(line, fd);
        self.flush(run);
    }

    pub(super) fn flush(&mut self, run: Incarnation) {
        let Some(link) = self.links.get_mut(&run) else {
            return;
        };
        let (wants_out, stalled_until) = match link.flush(now()) {
            Writable::Done => (false, None),
            Writable::Blocked => (true, None),
            Writable::At(at) => (false, Some(at)),
        };
        link.stalled_until = stalled_until;
        if link.wants_out != wants_out {
            link.wants_out = wants_out;
            let mut flags = EventFlags::IN | EventFlags::RDHUP;
            flags.set(EventFlags::OUT, wants_out);
            let _ = epoll::modify(&self.epoll, &link.fd, token(CHANNEL, run.0), flags);
        }
    }
}
