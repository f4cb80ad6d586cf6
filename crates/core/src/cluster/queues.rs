//! Who is alive, as seen from the queues.
//!
//! A worker that accepts by itself is invisible to the primary, and so is one
//! that stopped doing it: its clients wait. So the queue of each slot is
//! measured while anything is queued. A queue that was not empty for
//! [`STEAL_AFTER`] while another worker is idle is taken from. Its worker is
//! asked for its pulse: it is handed a connection under a key it does not have,
//! which the runtime refuses at once, unseen by the app, if the event loop
//! turns. A worker that does not answer for [`HANG_AFTER`] is hung: it is no
//! longer live for the kernel and musher serves its queue, until it answers.
//! The live list follows from that and from who listens; nothing here measures
//! or waits.

use super::message::{Key, Kind, ToWorker};
use super::worker::Sent;
use super::{Carried, ClusterAction, GroupId, Mono, Primary, SocketId, send};
use crate::id::Incarnation;
use crate::time::Millis;

/// A queue that was not empty for longer is taken from, if somebody is idle.
pub const STEAL_AFTER: Millis = Millis(4);

/// A worker that does not answer for longer is hung.
pub const HANG_AFTER: Millis = Millis(500);

/// The key no server has.
const NO_KEY: &str = "musher:pulse";

/// Whether an event loop turns.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The question that is open, and when it was asked.
    asked: Option<(u64, Mono)>,
    last_asked: Option<Mono>,
    pub(super) is_hung: bool,
}

impl Pulse {
    /// Returns when silence becomes a verdict.
    pub(super) fn next_verdict(&self) -> Option<Mono> {
        let (_, at) = self.asked.filter(|_| !self.is_hung)?;
        Some(at + HANG_AFTER)
    }

    pub(super) fn is_answered_by(&self, ack: u64) -> bool {
        self.asked.is_some_and(|(seq, _)| seq == ack)
    }

    fn may_ask(&self, now: Mono) -> bool {
        let recent = |at: Mono| now.since(at) < HANG_AFTER;
        self.asked.is_none() && !self.last_asked.is_some_and(recent)
    }
}

impl Primary {
    /// Takes the lengths of the queues of measured sockets. Unknown ones change
    /// nothing.
    pub fn queues(&mut self, lengths: &[(SocketId, u32)], now: Mono, out: &mut Vec<ClusterAction>) {
        for (socket, n_queued) in lengths {
            let Some(id) = self.group_of(*socket) else {
                continue;
            };
            let group = self.groups.get_mut(&id).expect("it was just found");
            let mut sockets = group.sockets.values_mut();
            if let Some(held) = sockets.find(|held| held.socket == *socket) {
                held.n_queued = *n_queued;
                held.queued_since = (*n_queued > 0).then(|| held.queued_since.unwrap_or(now));
            }
        }
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.steal(id, now, out);
        }
    }

    /// Takes a worker out of balancing, or back into it, without ending it.
    /// Connections in its queue go to the others; what it has, it keeps.
    pub fn suspend(
        &mut self,
        run: Incarnation,
        suspended: bool,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        if let Some(worker) = self.workers.get_mut(&run) {
            worker.suspended = suspended;
            self.refresh_groups_of(run, now, out);
        }
    }

    /// Accepts from queues that wait for longer than a moment, as many as there
    /// are idle workers, and asks their own workers for their pulse.
    fn steal(&mut self, id: GroupId, now: Mono, out: &mut Vec<ClusterAction>) {
        let group = &self.groups[&id];
        let mut late: Vec<(Mono, SocketId, u32)> = group
            .sockets
            .values()
            .filter(|held| held.measured)
            .filter_map(|held| Some((held.queued_since?, held.socket, held.n_queued)))
            .filter(|(since, ..)| now.since(*since) > STEAL_AFTER)
            .collect();
        if late.is_empty() {
            return;
        }
        late.sort_unstable();
        let idle =
            |run: &&Incarnation| self.workers[*run].room(id) > 0 && !self.is_queued(id, **run);
        let members = group.members.iter().map(|(_, run)| run);
        let mut n_idle = u32::try_from(members.filter(idle).count()).unwrap_or(u32::MAX);
        for (_, socket, n_queued) in late {
            let n_connections = n_queued.min(n_idle);
            n_idle -= n_connections;
            if n_connections > 0 {
                out.push(ClusterAction::Accept {
                    socket,
                    n_connections,
                });
            }
            self.ask_pulse(id, socket, now, out);
        }
    }

    /// True if connections wait in the queue this worker accepts from.
    pub(super) fn is_queued(&self, id: GroupId, run: Incarnation) -> bool {
        let open = self.workers.get(&run).and_then(|w| w.open.get(&id));
        let Some(direct) = open.and_then(|open| open.direct) else {
            return false;
        };
        let sockets = &mut self.groups[&id].sockets.values();
        sockets.any(|held| held.socket == direct && held.measured && held.n_queued > 0)
    }

    fn ask_pulse(
        &mut self,
        id: GroupId,
        socket: SocketId,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        for (_, run) in &self.groups[&id].members {
            let Some(worker) = self.workers.get_mut(run) else {
                continue;
            };
            let direct = worker.open.get(&id).and_then(|open| open.direct);
            if direct != Some(socket) || !worker.takes() || !worker.pulse.may_ask(now) {
                continue;
            }
            let seq = worker.take_seq();
            worker.pulse.asked = Some((seq, now));
            worker.pulse.last_asked = Some(now);
            worker.sent.push_back(Sent::Ping);
            let message = ToWorker::Connection {
                seq,
                key: Key(NO_KEY.to_owned()),
                kind: Kind::Pipe,
            };
            send(*run, message, Carried::Nobody, out);
        }
    }

    /// The event loop of a worker turns.
    pub(super) fn on_pulse(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        worker.pulse.asked = None;
        if std::mem::take(&mut worker.pulse.is_hung) {
            let is_hung = false;
            out.push(ClusterAction::Hung { run, is_hung });
            self.refresh_groups_of(run, now, out);
        }
    }

    /// Takes a worker that was silent for too long out of balancing.
    pub(super) fn judge(&mut self, run: Incarnation, now: Mono, out: &mut Vec<ClusterAction>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        if worker.pulse.next_verdict().is_some_and(|at| at <= now) {
            worker.pulse.is_hung = true;
            let is_hung = true;
            out.push(ClusterAction::Hung { run, is_hung });
            self.refresh_groups_of(run, now, out);
        }
    }

    /// Tells the kernel who is live, and what is to be measured, if that is not
    /// what it was told before. A socket alone needs neither.
    pub(super) fn spread(&mut self, id: GroupId, out: &mut Vec<ClusterAction>) {
        let group = &self.groups[&id];
        let is_shared = group.endpoint.kind.is_tcp() && group.sockets.len() > 1;
        let all_live = self.hands_over(id);
        let mut live: Vec<Option<u32>> = Vec::new();
        let mut measures = Vec::new();
        for held in group.sockets.values() {
            let served = is_shared && self.is_served(id, held.socket);
            if served || all_live {
                live.push(held.order);
            }
            if held.measured != served {
                measures.push((held.socket, served));
            }
        }
        let group = self.groups.get_mut(&id).expect("it was just seen");
        for (socket, on) in measures {
            let mut sockets = group.sockets.values_mut();
            if let Some(held) = sockets.find(|held| held.socket == socket) {
                held.measured = on;
                (held.n_queued, held.queued_since) = (0, None);
            }
            out.push(ClusterAction::Measure { socket, on });
        }
        let Some(socket) = group.first_of_all().filter(|_| is_shared) else {
            return;
        };
        let live: Option<Vec<u32>> = live.into_iter().collect();
        let Some(mut live) = live else { return };
        live.sort_unstable();
        if group.live.as_ref() != Some(&live) {
            group.live = Some(live.clone());
            out.push(ClusterAction::Spread {
                socket,
                n_sockets: u32::try_from(group.sockets.len()).unwrap_or(u32::MAX),
                live,
            });
        }
    }
}
