//! From a worker's `listen()` to a socket it may accept from.
//!
//! Every query is answered once: with a socket, with a promise to hand the
//! connections over, or with an errno. A socket is made when the first worker
//! of a slot asks and is the slot's from then on, whatever process it has.
//! When sockets are closed is decided in [`super::lifetime`].

use super::group::{Group, Held};
use super::message::{Key, Query, SocketName, ToWorker};
use super::worker::{Open, RESEND_LIMIT, Sent, Stage};
use super::{Carried, ClusterAction, GroupId, Mono, Primary, SocketId, errno, send};
use crate::app::Balance;
use crate::id::Incarnation;
use serde_json::Value;

impl Primary {
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
        if group.sockets.contains_key(&slot) {
            self.answer(run, id, slot, &query, now, out);
        } else {
            group.waiting.push((run, query));
            self.bind(id, slot, out);
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
            order: group.next_order(),
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
                let order = group.next_order();
                group.sockets.insert(slot, Held::new(socket, order));
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
        group.sticky.clone_from(&worker.sticky);
        group.owed.remove(&worker.slot);
        group.done.remove(&worker.slot);
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

    pub(super) fn refuse(
        &mut self,
        run: Incarnation,
        ack: u64,
        errno: i32,
        out: &mut Vec<ClusterAction>,
    ) {
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
}
