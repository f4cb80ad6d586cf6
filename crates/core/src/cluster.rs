//! A Node cluster primary without sockets.
//!
//! [`Primary`] is what Node's own primary process would be: it answers the
//! `listen()` of every worker, decides who gets a connection, and knows which
//! connection a dead worker had not taken yet. Descriptors are opaque numbers;
//! messages go in as types and out as [`ClusterAction`]s, which the balance
//! thread carries out in order. Nothing here reads a clock or touches a
//! socket, so a fake kernel can try every order of events.
//!
//! Three things hold whatever happens. An accepted connection is closed only
//! after a worker said `accepted:true`; a refusal, a lost descriptor or a death
//! puts it back at the head of the queue. A listening socket is closed only
//! when every slot of the app closed its server on purpose, or none is left;
//! never because its worker died or its slot was taken away. A worker that does
//! not leave has every query answered exactly once.

mod action;
pub mod balancer;
mod drain;
mod group;
mod lifetime;
pub mod message;
pub mod overview;
pub mod probing;
pub mod queues;
mod sockets;
pub mod sticky;
mod takeover;
mod worker;

pub use action::{Carried, ClusterAction};

use crate::app::Balance;
use crate::id::Incarnation;
use crate::supervisor::action::{AppKey, Channel};
use crate::supervisor::event::AppMessage;
use crate::time::Mono;
use balancer::Connection;
use group::Group;
use message::{Endpoint, FromWorker, Key, ToWorker};
use serde_json::Value;
use std::collections::BTreeMap;
use worker::{Sent, Stage, Worker};

/// A listening (or datagram) socket the balance thread holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A connection the balance thread has accepted and no worker has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// All sockets of one key of one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(u64);

/// Linux errno values of refusals (errno(3)).
mod errno {
    pub(super) const EBADF: i32 = 9;
    pub(super) const EMFILE: i32 = 24;
    pub(super) const EADDRINUSE: i32 = 98;
    pub(super) const ECANCELED: i32 = 125;
}

/// The primary of every cluster app, and the other end of every forked child.
#[derive(Debug)]
pub struct Primary {
    workers: BTreeMap<Incarnation, Worker>,
    groups: BTreeMap<GroupId, Group>,
    connections: BTreeMap<ConnectionId, Connection>,
    tickets: BTreeMap<(AppKey, Key), Value>,
    sessions: BTreeMap<AppKey, sticky::Sessions>,
    first_seq: u64,
    last_id: u64,
}

/// Messages to one worker within a millisecond that [`takeover_seq`] allows for.
const SEQS_PER_MS: u64 = 1 << 12;

/// Returns where sequence numbers start in a daemon that takes over workers at
/// this time: above anything any daemon before it can have used, so that a late
/// answer to one of theirs is never taken for an answer to one of its own.
///
/// Exact as a JavaScript number (below 2^53) for the first 69 years after boot.
pub const fn takeover_seq(now: Mono) -> u64 {
    now.0.saturating_mul(SEQS_PER_MS)
}

impl Primary {
    /// Returns a primary without workers whose messages count from `first_seq`.
    pub fn new(first_seq: u64) -> Primary {
        Primary {
            workers: BTreeMap::new(),
            groups: BTreeMap::new(),
            connections: BTreeMap::new(),
            tickets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            first_seq,
            last_id: 0,
        }
    }

    /// Takes a started child.
    pub fn add(
        &mut self,
        run: Incarnation,
        app: AppKey,
        slot: u32,
        balance: Balance,
        channel: Channel,
    ) {
        let worker = Worker::new(app, slot, balance, channel, self.first_seq);
        self.workers.insert(run, worker);
    }

    /// Takes a message of a child; `handle_arrived` says whether a descriptor
    /// came with a [`FromWorker::Handle`]. An unknown run changes nothing.
    pub fn on_message(
        &mut self,
        run: Incarnation,
        message: FromWorker,
        handle_arrived: bool,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let answer = match message {
            FromWorker::Handle if handle_arrived => ToWorker::HandleAck,
            // What did arrive is for `handed_over`.
            FromWorker::Handle | FromWorker::HandOver(_) => ToWorker::HandleNack,
            FromWorker::SocketsClosedQuery(key) => ToWorker::SocketsClosed(key),
            FromWorker::SocketCountQuery(key) => ToWorker::SocketCount(key),
            FromWorker::HandleAck => {
                worker.sent.pop_front();
                return;
            }
            FromWorker::Other => return,
            FromWorker::AgentUp { node_version } => {
                tell(run, AppMessage::AgentUp, out);
                return tell(run, AppMessage::NodeVersion(node_version), out);
            }
            FromWorker::Metrics(metrics) => return tell(run, AppMessage::Monitor(metrics), out),
            FromWorker::Drained(drained) => return tell(run, AppMessage::Drained(drained), out),
            FromWorker::Collected(collected) => {
                return out.push(ClusterAction::Collected { run, collected });
            }
            FromWorker::Online
            | FromWorker::Query(_)
            | FromWorker::Listening(_)
            | FromWorker::Close(_)
            | FromWorker::Leaving { .. }
            | FromWorker::Verdict { .. }
            | FromWorker::HandleNack
                if worker.channel == Channel::Fork =>
            {
                return;
            }
            FromWorker::Online => return tell(run, AppMessage::Online, out),
            FromWorker::Query(query) => return self.on_query(run, query, now, out),
            FromWorker::Listening(endpoint) => return self.on_listening(run, &endpoint, now, out),
            FromWorker::Close(key) => return self.on_close(run, &key, now, out),
            FromWorker::Leaving { seq } => return self.on_leaving(run, seq, now, out),
            FromWorker::Verdict { ack, accepted } => {
                return self.on_verdict(run, ack, accepted, now, out);
            }
            FromWorker::HandleNack => return self.on_nack(run, now, out),
        };
        send(run, answer, Carried::Nothing, out);
    }

    /// The worker gets no further connections from musher.
    pub fn detach(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        if worker.stage == Stage::Serving {
            worker.stage = Stage::Detached;
            self.refresh_groups_of(run, now, out);
        }
    }

    /// The child is dead, or its channel closed, and everything it said has
    /// been handed in: what it had not accepted goes to others.
    pub fn gone(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.remove(&run) else {
            return;
        };
        let succeeded = worker.stage != Stage::Serving && self.has_proven(&worker.app, worker.slot);
        probing::on_gone(&worker, out);
        for connection in worker.unacked.values().rev() {
            self.take_back(*connection, None);
        }
        for group in worker.open.keys() {
            self.leave_group(*group, run, worker.slot, !succeeded);
        }
        for group in self.groups.values_mut() {
            let before = group.waiting.len();
            group.waiting.retain(|(asker, _)| *asker != run);
            if group.waiting.len() < before {
                group.owed.insert(worker.slot);
            }
        }
        for group in self.group_ids(&worker.app) {
            self.refresh(group, now, out);
            self.close_if_unused(group, out);
        }
    }

    fn on_leaving(&mut self, run: Incarnation, ack: u64, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        worker.stage = Stage::Leaving;
        let seq = worker.take_seq();
        send(run, ToWorker::MayLeave { ack, seq }, Carried::Nothing, out);
        tell(run, AppMessage::Disconnecting, out);
        self.refresh_groups_of(run, now, out);
    }

    fn on_listening(
        &mut self,
        run: Incarnation,
        endpoint: &Endpoint,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let groups = &self.groups;
        let found = worker
            .open
            .iter_mut()
            .find(|(id, open)| !open.listening && groups[id].is_at(endpoint));
        let Some((id, open)) = found else {
            // Bun binds by itself and only reports it.
            let key = endpoint.key().0;
            return tell(run, AppMessage::Listening { key }, out);
        };
        open.listening = true;
        let (id, slot) = (*id, worker.slot);
        let group = self.groups.get_mut(&id).expect("an open key has its group");
        group.members.insert((slot, run));
        let key = group.key.0.clone();
        tell(run, AppMessage::Listening { key }, out);
        self.refresh(id, now, out);
    }

    fn on_close(&mut self, run: Incarnation, key: &Key, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let (app, slot, stage) = (worker.app.clone(), worker.slot, worker.stage);
        let Some(group) = self.find_group(&app, key) else {
            return;
        };
        if let Some(worker) = self.workers.get_mut(&run)
            && worker.open.remove(&group).is_none()
        {
            return;
        }
        if stage == Stage::Serving {
            let key = key.0.clone();
            tell(run, AppMessage::Closed { key }, out);
        }
        // A worker that was asked to leave closes its servers because of that,
        // not because the app is done with the port.
        let owed = stage != Stage::Serving && !self.has_proven(&app, slot);
        self.leave_group(group, run, slot, owed);
        self.refresh(group, now, out);
        self.close_if_unused(group, out);
    }

    fn on_nack(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        match worker.sent.pop_front() {
            Some(Sent::Connection { seq }) => self.on_verdict(run, seq, false, now, out),
            Some(Sent::Ping) => self.on_pulse(run, now, out),
            Some(Sent::Socket { group, ack, tries }) => {
                worker.lost.push((
                    now + worker::RESEND_AFTER,
                    Sent::Socket { group, ack, tries },
                ));
            }
            None => (),
        }
    }

    /// Returns when [`Primary::on_time`] has to be called next.
    pub fn next_deadline(&self) -> Option<Mono> {
        let groups = &self.groups;
        let parked = groups
            .values()
            .filter_map(|g| g.waiting_room.next_deadline());
        let lost = self
            .workers
            .values()
            .flat_map(|worker| worker.lost.iter().map(|(at, _)| *at));
        let workers = self.workers.values();
        let pulses = workers.filter_map(|worker| worker.pulse.next_verdict());
        parked.chain(lost).chain(pulses).min()
    }

    /// Does what is due: parked connections are offered again, lost sockets
    /// sent once more.
    pub fn on_time(&mut self, now: Mono, out: &mut Vec<ClusterAction>) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in ids {
            self.retry_parked(group, now, out);
            self.give_up_looking_at(group, now, out);
        }
        let runs: Vec<Incarnation> = self.workers.keys().copied().collect();
        for run in runs {
            self.resend_lost(run, now, out);
            self.judge(run, now, out);
        }
    }

    fn resend_lost(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let (due, later) = std::mem::take(&mut worker.lost)
            .into_iter()
            .partition(|l| l.0 <= now);
        worker.lost = later;
        let due: Vec<(Mono, Sent)> = due;
        for (_, sent) in due {
            if let Sent::Socket { group, ack, tries } = sent {
                self.send_socket(run, group, ack, tries + 1, out);
            }
        }
    }

    fn group_ids(&self, app: &AppKey) -> Vec<GroupId> {
        let mine = self.groups.iter().filter(|(_, group)| group.app == *app);
        mine.map(|(id, _)| *id).collect()
    }

    fn refresh_groups_of(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get(&run) else {
            return;
        };
        let groups: Vec<GroupId> = worker.open.keys().copied().collect();
        for group in groups {
            self.refresh(group, now, out);
        }
    }

    /// True when a worker of this slot serves and has proven itself by
    /// listening: what it does not listen on, the slot does not need.
    fn has_proven(&self, app: &AppKey, slot: u32) -> bool {
        self.workers.values().any(|worker| {
            worker.app == *app
                && worker.slot == slot
                && worker.stage == Stage::Serving
                && worker.open.values().any(|open| open.listening)
        })
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

fn tell(run: Incarnation, message: AppMessage, out: &mut Vec<ClusterAction>) {
    out.push(ClusterAction::Tell { run, message });
}

fn send(run: Incarnation, message: ToWorker, carried: Carried, out: &mut Vec<ClusterAction>) {
    out.push(ClusterAction::Send {
        run,
        message,
        carried,
    });
}

#[cfg(test)]
mod tests;
