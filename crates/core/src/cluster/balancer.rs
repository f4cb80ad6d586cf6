//! Who gets a connection.
//!
//! Strict rotation over the workers that listen, by slot, each with a window
//! of connections it has not answered. A worker whose oldest unanswered
//! connection is older than [`STALE_AFTER`] is passed over unless all are:
//! rotation alone is even but blind to load, "next free worker" alone is not
//! even. Whether musher accepts at all is decided by [`Primary::refresh`]: in
//! round-robin always, otherwise only from a socket whose own worker is gone.

use super::group::Group;
use super::message::ToWorker;
use super::sticky::Aim;
use super::worker::Sent;
use super::{
    Carried, ClusterAction, ConnectionId, GroupId, Mono, Primary, SocketId, probing, send,
};
use crate::id::Incarnation;
use crate::time::Millis;
use std::collections::{BTreeSet, VecDeque};

/// A worker that has not answered a connection for longer is busy.
pub const STALE_AFTER: Millis = Millis(3);

/// Connections musher holds for one key before it leaves further ones to the
/// kernel's queue.
pub const HELD_LIMIT: usize = 64;

/// Patience before a connection every worker refused is offered again.
pub const RETRY_AFTER: Millis = Millis(50);

/// How long a connection is offered before it is closed.
pub const OFFER_LIMIT: Millis = Millis(60_000);

/// A connection no worker has taken.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) group: GroupId,
    accepted_at: Mono,
    /// When it was handed to the worker that has it.
    handed_at: Mono,
    /// Who refused it since it was last parked.
    pub(super) refused_by: Vec<Incarnation>,
    pub(super) aim: Aim,
}

impl Connection {
    /// Returns a connection of a group that arrived at this moment.
    pub(super) fn new(group: GroupId, now: Mono) -> Connection {
        Connection {
            group,
            accepted_at: now,
            handed_at: now,
            refused_by: Vec::new(),
            aim: Aim::Anyone,
        }
    }
}

/// The connections of a key that no worker has.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(super) queue: VecDeque<ConnectionId>,
    /// Looked at, and until when.
    pub(super) looking: BTreeSet<(Mono, ConnectionId)>,
    /// Refused by every worker, and when to try again; in that order.
    parked: VecDeque<(Mono, ConnectionId)>,
    /// Who had the last turn.
    turn: Option<(u32, Incarnation)>,
}

impl Waiting {
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let retry = self.parked.front().map(|(at, _)| *at);
        let look = self.looking.first().map(|(until, _)| *until);
        retry.into_iter().chain(look).min()
    }
}

/// What can be done with the connection at the head of a queue.
pub(super) enum Pick {
    Give(Incarnation),
    /// Every window is full, or nobody listens.
    Wait,
    /// Everybody refused it.
    Park,
}

impl Primary {
    /// Returns how many connections to accept from this socket at this moment.
    pub fn credit(&self, socket: SocketId) -> usize {
        match self.group_of(socket) {
            Some(group) if self.is_adopted(group, socket) => self.room(group),
            Some(_) | None => 0,
        }
    }

    /// Takes a connection accepted from `socket`. One of an unknown socket is
    /// closed.
    pub fn accepted(
        &mut self,
        socket: SocketId,
        connection: ConnectionId,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(id) = self.group_of(socket) else {
            out.push(ClusterAction::CloseConnection { connection });
            return;
        };
        self.hold(connection, Connection::new(id, now), now, out);
    }

    /// Takes a connection into the queue of its group, which exists.
    pub(super) fn hold(
        &mut self,
        connection: ConnectionId,
        held: Connection,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let id = held.group;
        let is_new = held.aim == Aim::Anyone;
        self.connections.insert(connection, held);
        let group = self.groups.get_mut(&id).expect("the caller found it");
        if group.sticky.is_some() && is_new {
            return self.look_at(id, connection, now, out);
        }
        group.waiting_room.queue.push_back(connection);
        self.refresh(id, now, out);
    }

    /// Takes a worker's answer to a connection.
    pub(super) fn on_verdict(
        &mut self,
        run: Incarnation,
        ack: u64,
        accepted: bool,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        if worker.pulse.is_answered_by(ack) {
            return self.on_pulse(run, now, out);
        }
        if probing::on_verdict(worker, ack, accepted, out) {
            return;
        }
        let Some(connection) = worker.unacked.remove(&ack) else {
            return;
        };
        worker.n_given += u64::from(accepted);
        if !accepted {
            self.take_back(connection, Some(run));
        } else if self.connections.remove(&connection).is_some() {
            out.push(ClusterAction::CloseConnection { connection });
        }
        self.refresh_groups_of(run, now, out);
        // A worker that closed its server refuses what was under way to it,
        // and has that group no longer open.
        if let Some(group) = self.connections.get(&connection).map(|c| c.group) {
            self.refresh(group, now, out);
        }
    }

    /// Puts a connection back at the head of its queue.
    pub(super) fn take_back(&mut self, id: ConnectionId, refused_by: Option<Incarnation>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.refused_by.extend(refused_by);
        if let Some(group) = self.groups.get_mut(&connection.group) {
            group.waiting_room.queue.push_front(id);
        }
    }

    /// Hands out what waits, then decides which sockets musher accepts from.
    pub(super) fn refresh(&mut self, id: GroupId, now: Mono, out: &mut Vec<ClusterAction>) {
        self.dispatch(id, now, out);
        if !self.groups.contains_key(&id) || self.groups[&id].endpoint.kind.is_datagram() {
            return;
        }
        let room = self.room(id);
        let sockets: Vec<SocketId> = self.groups[&id]
            .sockets
            .values()
            .map(|held| held.socket)
            .collect();
        for socket in sockets {
            let on = room > 0 && self.is_adopted(id, socket);
            let group = self.groups.get_mut(&id).expect("it was just seen");
            let held = group
                .sockets
                .values_mut()
                .find(|held| held.socket == socket);
            if let Some(held) = held
                && held.watched != on
            {
                held.watched = on;
                out.push(ClusterAction::Watch { socket, on });
            }
        }
        self.spread(id, out);
    }

    /// True if musher accepts from this socket: nobody else does, or the group
    /// has workers that connections are handed to.
    fn is_adopted(&self, id: GroupId, socket: SocketId) -> bool {
        !self.is_served(id, socket) || self.hands_over(id)
    }

    /// True if some worker of the group takes what is handed over, and accepts
    /// nothing itself.
    pub(super) fn hands_over(&self, id: GroupId) -> bool {
        self.groups[&id].members.iter().any(|(_, run)| {
            self.workers.get(run).is_some_and(|worker| {
                let open = worker.open.get(&id);
                worker.takes() && open.is_some_and(|open| open.direct.is_none())
            })
        })
    }

    /// True if a worker accepts from this socket itself.
    pub(super) fn is_served(&self, id: GroupId, socket: SocketId) -> bool {
        self.groups[&id].members.iter().any(|(_, run)| {
            self.workers.get(run).is_some_and(|worker| {
                let open = worker.open.get(&id);
                worker.takes() && open.is_some_and(|o| o.direct == Some(socket))
            })
        })
    }

    fn room(&self, id: GroupId) -> usize {
        let group = &self.groups[&id];
        let members = group
            .members
            .iter()
            .filter_map(|(_, run)| self.workers.get(run));
        let windows: usize = members.map(|worker| worker.room(id)).sum();
        let n_held = group.waiting_room.queue.len() + group.waiting_room.parked.len();
        windows.min(HELD_LIMIT).saturating_sub(n_held)
    }

    fn dispatch(&mut self, id: GroupId, now: Mono, out: &mut Vec<ClusterAction>) {
        let mut at = 0;
        while let Some(group) = self.groups.get(&id)
            && let Some(connection) = group.waiting_room.queue.get(at).copied()
        {
            let is_sticky = group.sticky.is_some();
            let pick = self.pick(id, connection, now);
            let room = &mut self
                .groups
                .get_mut(&id)
                .expect("it was just seen")
                .waiting_room;
            match pick {
                // Another one's owner may have room.
                Pick::Wait if is_sticky => at += 1,
                Pick::Wait => return,
                Pick::Park => {
                    room.queue.remove(at);
                    room.parked.push_back((now + RETRY_AFTER, connection));
                }
                Pick::Give(run) => {
                    room.queue.remove(at);
                    self.give(run, connection, now, out);
                }
            }
        }
    }

    fn pick(&mut self, id: GroupId, connection: ConnectionId, now: Mono) -> Pick {
        if let Some(pick) = self.pick_owner(id, connection) {
            return pick;
        }
        let group = &self.groups[&id];
        let refused_by = &self.connections[&connection].refused_by;
        let serving = |(_, run): &&(u32, Incarnation)| {
            self.workers.get(run).is_some_and(|worker| worker.takes())
        };
        let mut n_serving = 0;
        let mut n_refused = 0;
        let (mut fresh, mut stale) = (None, None);
        for member in in_turn(group).filter(serving) {
            n_serving += 1;
            if refused_by.contains(&member.1) {
                n_refused += 1;
                continue;
            }
            if self.workers[&member.1].room(id) == 0 {
                continue;
            }
            if !self.is_stale(member.1, now) && !self.is_queued(id, member.1) {
                fresh = Some(*member);
                break;
            }
            stale = stale.or(Some(*member));
        }
        let Some((slot, run)) = fresh.or(stale) else {
            return match n_serving > 0 && n_serving == n_refused {
                true => Pick::Park,
                false => Pick::Wait,
            };
        };
        let group = self.groups.get_mut(&id).expect("it was just seen");
        group.waiting_room.turn = Some((slot, run));
        Pick::Give(run)
    }

    fn is_stale(&self, run: Incarnation, now: Mono) -> bool {
        let oldest = self.workers[&run].unacked.values().next();
        let oldest = oldest.and_then(|connection| self.connections.get(connection));
        oldest.is_some_and(|connection| now.since(connection.handed_at) > STALE_AFTER)
    }

    fn give(
        &mut self,
        run: Incarnation,
        id: ConnectionId,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let worker = self.workers.get_mut(&run).expect("it was just picked");
        let connection = self.connections.get_mut(&id).expect("the queue holds it");
        connection.handed_at = now;
        let group = &self.groups[&connection.group];
        let seq = worker.take_seq();
        worker.unacked.insert(seq, id);
        worker.sent.push_back(Sent::Connection { seq });
        let (key, kind) = (group.key.clone(), group.endpoint.kind);
        let message = ToWorker::Connection { seq, key, kind };
        send(run, message, Carried::Connection(id), out);
    }

    pub(super) fn retry_parked(&mut self, id: GroupId, now: Mono, out: &mut Vec<ClusterAction>) {
        let mut retried = false;
        while let Some(group) = self.groups.get_mut(&id)
            && let Some((at, connection)) = group.waiting_room.parked.front().copied()
            && at <= now
        {
            retried = true;
            group.waiting_room.parked.pop_front();
            let held = self
                .connections
                .get_mut(&connection)
                .expect("the queue holds it");
            held.refused_by.clear();
            if now.since(held.accepted_at) > OFFER_LIMIT {
                self.connections.remove(&connection);
                out.push(ClusterAction::CloseConnection { connection });
            } else {
                group.waiting_room.queue.push_back(connection);
            }
        }
        if retried {
            self.refresh(id, now, out);
        }
    }
}

/// Returns the members of a group, beginning after the one that had the last
/// turn.
fn in_turn(group: &Group) -> impl Iterator<Item = &(u32, Incarnation)> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let (after, upto) = match group.waiting_room.turn {
        Some(turn) => ((Excluded(turn), Unbounded), (Unbounded, Included(turn))),
        None => (
            (Unbounded, Unbounded),
            (Unbounded, Excluded((0, Incarnation(0)))),
        ),
    };
    group.members.range(after).chain(group.members.range(upto))
}
