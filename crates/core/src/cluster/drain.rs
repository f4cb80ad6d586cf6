//! A worker that is asked to finish what it has.
//!
//! Its agent closes the listening sockets, lets requests under way end, and
//! gives idle keep-alive connections back, unread bytes and all: they go to
//! the other workers of the app as any connection musher accepted does, and
//! are held to the same promise. What cannot be moved stays with the worker.

use super::balancer::Connection;
use super::message::{Place, ToWorker};
use super::sticky::Aim;
use super::worker::Stage;
use super::{Carried, ClusterAction, ConnectionId, GroupId, Mono, Primary, send};
use crate::app::Upgraded;
use crate::id::Incarnation;
use crate::time::Millis;

impl Primary {
    /// The worker gets no further connections and is to finish what it
    /// accepted within `limit`. An unknown run changes nothing.
    pub fn drain(
        &mut self,
        run: Incarnation,
        limit: Millis,
        websockets: Upgraded,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get(&run) else {
            return;
        };
        let open = worker.open.keys().filter(|id| self.has_heir(**id, run));
        let places = open.map(|id| self.groups[id].place()).collect();
        // Before it closes a server: what it closes from here on, it was told to.
        self.detach(run, now, out);
        let message = ToWorker::Drain {
            limit,
            websockets,
            places,
        };
        send(run, message, Carried::Nothing, out);
    }

    /// Asks the agent of a run to run the garbage collector; answered by
    /// [`ClusterAction::Collected`] if it has one.
    pub fn collect(&self, run: Incarnation, id: u64, out: &mut Vec<ClusterAction>) {
        if self.workers.contains_key(&run) {
            send(run, ToWorker::Collect { id }, Carried::Nothing, out);
        }
    }

    /// Takes a connection that a worker gives back. One of a place where the
    /// app does not listen is closed.
    pub fn handed_over(
        &mut self,
        run: Incarnation,
        connection: ConnectionId,
        place: &Place,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get_mut(&run) else {
            out.push(ClusterAction::CloseConnection { connection });
            return;
        };
        // Under a daemon that took over: the drain was asked for by another.
        if worker.stage == Stage::Serving {
            worker.stage = Stage::Detached;
        }
        let (app, slot) = (worker.app.clone(), worker.slot);
        send(run, ToWorker::HandleAck, Carried::Nothing, out);
        self.refresh_groups_of(run, now, out);
        let mut groups = self.groups.iter();
        let found = groups.find(|(_, group)| group.app == app && group.place() == *place);
        let Some(id) = found.map(|(id, _)| *id) else {
            out.push(ClusterAction::CloseConnection { connection });
            return;
        };
        let mut held = Connection::new(id, now);
        if self.groups[&id].sticky.is_some() {
            // Whose client it is was found out when it came.
            held.aim = Aim::Slot(slot);
        }
        self.hold(connection, held, now, out);
    }

    /// True when another worker that serves listens there too.
    fn has_heir(&self, id: GroupId, run: Incarnation) -> bool {
        self.groups[&id].members.iter().any(|(_, other)| {
            let serves = |stage| stage == Stage::Serving;
            *other != run && self.workers.get(other).is_some_and(|w| serves(w.stage))
        })
    }
}
