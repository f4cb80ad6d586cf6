//! Which sockets exist for a key, and when they may be closed.
//!
//! A [`Group`] is everything one key of one app has: a socket per worker slot
//! that asked (one in all where the kernel does not spread), the workers that
//! listen, and the connections that wait. It never decides who gets a
//! connection; that is [`super::balancer`].

use super::balancer::Waiting;
use super::message::{Endpoint, Key, Query, SocketName, SocketOptions, ToWorker};
use super::worker::{Open, RESEND_LIMIT, Sent, Stage};
use super::{Carried, ClusterAction, GroupId, Mono, Primary, SocketId, Worker, errno, send};
use crate::app::Balance;
use crate::id::Incarnation;
use crate::supervisor::action::AppKey;
use crate::time::Millis;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How long the socket of a trimmed slot is still served at least: two SYN-ACK
/// retries (1 s and 2 s, tcp(7)), so that handshakes under way come through.
pub const TRIM_PATIENCE: Millis = Millis(3_500);

/// How long a trimmed socket waits to be probed again when it was not empty.
pub const TRIM_RETRY: Millis = Millis(50);

/// One held socket.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: SocketId,
    pub(super) watched: bool,
    /// Set when its slot was trimmed: when to look whether it is empty.
    pub(super) close_at: Option<Mono>,
}

/// Everything one key of one app has.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) app: AppKey,
    pub(super) key: Key,
    pub(super) endpoint: Endpoint,
    options: SocketOptions,
    pub(super) name: Option<SocketName>,
    /// By slot; slot 0 only where one socket serves all.
    pub(super) sockets: BTreeMap<u32, Held>,
    /// The socket being made, and its slot.
    binding: Option<(SocketId, u32)>,
    /// Who asked while it is made.
    pub(super) waiting: Vec<(Incarnation, Query)>,
    /// False once a further socket could not be made: all use the first.
    spreads: bool,
    /// Who listens, by slot: the rotation.
    pub(super) members: BTreeSet<(u32, Incarnation)>,
    /// Slots whose worker went without closing its server on purpose: the
    /// socket is kept for the next one.
    pub(super) owed: BTreeSet<u32>,
    pub(super) waiting_room: Waiting,
}

impl Group {
    pub(super) fn new(app: AppKey, endpoint: Endpoint, options: SocketOptions) -> Group {
        Group {
            app,
            key: endpoint.key(),
            endpoint,
            options,
            name: None,
            sockets: BTreeMap::new(),
            binding: None,
            waiting: Vec::new(),
            spreads: true,
            members: BTreeSet::new(),
            owed: BTreeSet::new(),
            waiting_room: Waiting::default(),
        }
    }

    /// True if a `listening` report with this endpoint speaks of this group:
    /// it names the real port where the query said 0.
    pub(super) fn is_at(&self, reported: &Endpoint) -> bool {
        let mine = &self.endpoint;
        let real = self
            .name
            .as_ref()
            .map_or(mine.port, |name| i32::from(name.port));
        mine.kind == reported.kind
            && mine.address == reported.address
            && (mine.port == reported.port || (mine.port == 0 && real == reported.port))
            && (mine.port != 0 || mine.index == reported.index)
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let trimmed = self.sockets.values().filter_map(|held| held.close_at);
        trimmed.chain(self.waiting_room.next_retry()).min()
    }

    /// Returns the slot whose socket a worker of `slot` is given.
    pub(super) fn slot_for(&self, slot: u32, balance: Balance) -> u32 {
        match balance {
            Balance::Even if self.spreads && self.endpoint.kind.is_tcp() => slot,
            Balance::Even | Balance::Shared | Balance::RoundRobin => {
                self.sockets.keys().next().copied().unwrap_or(0)
            }
        }
    }
}

impl Primary {
    pub(super) fn find_group(&self, app: &AppKey, key: &Key) -> Option<GroupId> {
        let mut groups = self.groups.iter();
        let found = groups.find(|(_, group)| group.app == *app && group.key == *key);
        found.map(|(id, _)| *id)
    }

    pub(super) fn on_query(
        &mut self,
        run: Incarnation,
        query: Query,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get(&run) else {
            return;
        };
        // As Node's primary: a worker that leaves opens nothing any more.
        if worker.stage == Stage::Leaving {
            return;
        }
        let Some(endpoint) = query.endpoint.clone() else {
            return self.refuse(run, query.seq, errno::EBADF, out);
        };
        let (app, slot, balance) = (worker.app.clone(), worker.slot, worker.balance);
        let id = match self.find_group(&app, &endpoint.key()) {
            Some(id) => id,
            None => {
                let id = GroupId(self.next_id());
                self.groups
                    .insert(id, Group::new(app, endpoint, query.options));
                id
            }
        };
        let already_open = self.workers[&run].open.contains_key(&id);
        let group = self.groups.get_mut(&id).expect("it was found or made");
        if already_open || group.waiting.iter().any(|(asker, _)| *asker == run) {
            return self.refuse(run, query.seq, errno::EADDRINUSE, out);
        }
        if group.binding.is_some() {
            group.waiting.push((run, query));
            return;
        }
        let slot = group.slot_for(slot, balance);
        match group.sockets.get_mut(&slot) {
            Some(held) => {
                held.close_at = None;
                self.answer(run, id, slot, &query, now, out);
            }
            None => {
                group.waiting.push((run, query));
                self.bind(id, slot, out);
            }
        }
    }

    fn bind(&mut self, id: GroupId, slot: u32, out: &mut Vec<ClusterAction>) {
        let socket = SocketId(self.next_id());
        let group = self.groups.get_mut(&id).expect("the caller found it");
        group.binding = Some((socket, slot));
        out.push(ClusterAction::Bind {
            socket,
            app: group.app.clone(),
            slot,
            endpoint: group.endpoint.clone(),
            options: group.options,
            joins: group.sockets.values().next().map(|held| held.socket),
        });
    }

    /// Takes the result of a [`ClusterAction::Bind`]: where the socket is bound
    /// (`None` for Unix sockets), or a positive errno. A socket of a group that
    /// was released meanwhile is closed.
    pub fn bound(
        &mut self,
        socket: SocketId,
        result: Result<Option<SocketName>, i32>,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let binding = |group: &Group| group.binding.is_some_and(|(id, _)| id == socket);
        let Some((id, group)) = self.groups.iter_mut().find(|(_, group)| binding(group)) else {
            if result.is_ok() {
                out.push(ClusterAction::CloseSocket { socket });
            }
            return;
        };
        let id = *id;
        let (_, slot) = group.binding.take().expect("it was just matched");
        match result {
            Ok(name) => {
                group.name = group.name.take().or(name);
                let held = Held {
                    socket,
                    watched: false,
                    close_at: None,
                };
                group.sockets.insert(slot, held);
            }
            Err(_) if !group.sockets.is_empty() => group.spreads = false,
            Err(errno) => {
                let refused = std::mem::take(&mut group.waiting);
                for (run, query) in refused {
                    self.refuse(run, query.seq, errno, out);
                }
                self.groups.remove(&id);
                return;
            }
        }
        let again = std::mem::take(&mut group.waiting);
        for (run, query) in again {
            self.on_query(run, query, now, out);
        }
        self.refresh(id, now, out);
        self.close_if_unused(id, out);
    }

    fn answer(
        &mut self,
        run: Incarnation,
        id: GroupId,
        slot: u32,
        query: &Query,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let group = self.groups.get_mut(&id).expect("the caller found it");
        let worker = self.workers.get_mut(&run).expect("the caller found it");
        group.owed.remove(&worker.slot);
        let ticket = (group.app.clone(), group.key.clone());
        if !query.data.is_null() && !self.tickets.contains_key(&ticket) {
            let (app, key) = ticket.clone();
            out.push(ClusterAction::KeepTicket {
                app,
                key,
                data: query.data.clone(),
            });
            self.tickets.insert(ticket.clone(), query.data.clone());
        }
        // Node's primary hands every connection over itself in this mode; a
        // datagram has no connection to hand over.
        let handed_over =
            worker.balance == Balance::RoundRobin && !group.endpoint.kind.is_datagram();
        let direct = (!handed_over).then(|| group.sockets[&slot].socket);
        worker.open.insert(
            id,
            Open {
                direct,
                listening: false,
            },
        );
        match direct {
            Some(_) => self.send_socket(run, id, query.seq, 0, out),
            None => {
                let message = ToWorker::RoundRobin {
                    ack: query.seq,
                    seq: worker.take_seq(),
                    key: group.key.clone(),
                    data: self.tickets.get(&ticket).cloned().unwrap_or(Value::Null),
                    name: group.name.clone(),
                };
                send(run, message, Carried::Nothing, out);
            }
        }
        self.refresh(id, now, out);
    }

    /// Sends the socket a worker has open in answer to query `ack`, or gives up
    /// if it was lost too often.
    pub(super) fn send_socket(
        &mut self,
        run: Incarnation,
        id: GroupId,
        ack: u64,
        tries: u32,
        out: &mut Vec<ClusterAction>,
    ) {
        let (Some(worker), Some(group)) = (self.workers.get_mut(&run), self.groups.get(&id)) else {
            return;
        };
        let Some(socket) = worker.open.get(&id).and_then(|open| open.direct) else {
            return;
        };
        if tries >= RESEND_LIMIT {
            worker.open.remove(&id);
            self.refuse(run, ack, errno::EMFILE, out);
            return self.close_if_unused(id, out);
        }
        let ticket = (group.app.clone(), group.key.clone());
        let message = ToWorker::Shared {
            ack,
            seq: worker.take_seq(),
            key: group.key.clone(),
            kind: group.endpoint.kind,
            data: self.tickets.get(&ticket).cloned().unwrap_or(Value::Null),
        };
        worker.sent.push_back(Sent::Socket {
            group: id,
            ack,
            tries,
        });
        send(run, message, Carried::Socket(socket), out);
    }

    fn refuse(&mut self, run: Incarnation, ack: u64, errno: i32, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let seq = worker.take_seq();
        // Node asserts that no open handle has the key of a reply.
        let key = Key(format!("refused:{seq}"));
        send(
            run,
            ToWorker::Refusal {
                ack,
                seq,
                errno,
                key,
            },
            Carried::Nothing,
            out,
        );
    }

    /// A worker has the group no longer open. `owed` keeps its socket.
    pub(super) fn leave_group(&mut self, id: GroupId, run: Incarnation, slot: u32, owed: bool) {
        let shared = |worker: &Worker| worker.slot == slot && worker.open.contains_key(&id);
        let others = self
            .workers
            .iter()
            .any(|(other, worker)| *other != run && shared(worker));
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.remove(&(slot, run));
            group.owed.remove(&slot);
            if owed && !others {
                group.owed.insert(slot);
            }
        }
    }

    /// Closes a group that no worker has open, waits for or will come back to.
    pub(super) fn close_if_unused(&mut self, id: GroupId, out: &mut Vec<ClusterAction>) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let wanted = !group.owed.is_empty() || !group.waiting.is_empty();
        let open = self
            .workers
            .values()
            .any(|worker| worker.open.contains_key(&id));
        if wanted || open || group.binding.is_some() {
            return;
        }
        self.close_group(id, out);
    }

    fn close_group(&mut self, id: GroupId, out: &mut Vec<ClusterAction>) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        let used = self
            .workers
            .values()
            .any(|worker| worker.open.contains_key(&id));
        for socket in group.sockets.values().map(|held| held.socket) {
            out.push(match used {
                true => ClusterAction::CloseSocket { socket },
                false => ClusterAction::EndSocket { socket },
            });
        }
        let mine: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, c)| c.group == id)
            .collect();
        let mine: Vec<_> = mine
            .into_iter()
            .map(|(connection, _)| *connection)
            .collect();
        for connection in mine {
            self.connections.remove(&connection);
            out.push(ClusterAction::CloseConnection { connection });
        }
        for worker in self.workers.values_mut() {
            worker.open.remove(&id);
        }
        for (run, query) in group.waiting {
            self.refuse(run, query.seq, errno::ECANCELED, out);
        }
    }

    /// The app is stopped or deleted: its sockets are closed, whoever waited
    /// there is refused. Ticket keys stay for its next start.
    pub fn release(&mut self, app: &AppKey, out: &mut Vec<ClusterAction>) {
        for id in self.group_ids(app) {
            self.close_group(id, out);
        }
    }

    /// Only these slots remain: the sockets of the others are served until they
    /// have been empty for a while, then closed. Without any it is
    /// [`Primary::release`].
    pub fn keep_slots(
        &mut self,
        app: &AppKey,
        live: &[u32],
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        if live.is_empty() {
            return self.release(app, out);
        }
        for id in self.group_ids(app) {
            let group = self.groups.get_mut(&id).expect("it was just listed");
            group.owed.retain(|slot| live.contains(slot));
            for (slot, held) in &mut group.sockets {
                if !live.contains(slot) {
                    held.close_at.get_or_insert(now + TRIM_PATIENCE);
                }
            }
            self.refresh(id, now, out);
            self.close_if_unused(id, out);
        }
    }

    pub(super) fn probe_trimmed(&mut self, id: GroupId, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        // The last socket stays, whatever slot made it.
        let last = group.sockets.len() == 1;
        for held in group.sockets.values_mut() {
            if last {
                held.close_at = None;
            } else if held.close_at.is_some_and(|at| at <= now) {
                held.close_at = Some(now + TRIM_RETRY);
                out.push(ClusterAction::Probe {
                    socket: held.socket,
                });
            }
        }
    }

    /// Nothing waits at this socket: the answer to [`ClusterAction::Probe`].
    pub fn emptied(&mut self, socket: SocketId, out: &mut Vec<ClusterAction>) {
        let Some(id) = self.group_of(socket) else {
            return;
        };
        // Also one that is only on its way to listen, or out.
        let uses = |worker: &Worker| worker.open.get(&id).and_then(|open| open.direct);
        if self
            .workers
            .values()
            .any(|worker| uses(worker) == Some(socket))
        {
            return;
        }
        let group = self.groups.get_mut(&id).expect("it was just found");
        let trimmed = |held: &Held| held.socket == socket && held.close_at.is_some();
        let found = group.sockets.iter().find(|(_, held)| trimmed(held));
        if let Some(slot) = found.map(|(slot, _)| *slot)
            && group.sockets.len() > 1
        {
            group.sockets.remove(&slot);
            out.push(ClusterAction::EndSocket { socket });
        }
    }

    pub(super) fn group_of(&self, socket: SocketId) -> Option<GroupId> {
        let has = |group: &Group| group.sockets.values().any(|held| held.socket == socket);
        self.groups
            .iter()
            .find(|(_, group)| has(group))
            .map(|(id, _)| *id)
    }
}
