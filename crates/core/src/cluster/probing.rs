//! A connection for one worker and no other: that of a probe.
//!
//! Workers share their ports, so a connection made to a port may be answered by
//! any of them. musher makes one itself and hands it to the worker that is
//! asked, like any connection it balances; but nobody else is offered it when
//! the worker refuses or dies, and it takes no room in the worker's window.

use super::message::ToWorker;
use super::worker::{Sent, Worker};
use super::{Carried, ClusterAction, ConnectionId, GroupId, Primary, send};
use crate::id::Incarnation;

/// Connections of probes a worker may have untaken. One that hangs takes none:
/// they would pile up in its channel.
pub const UNTAKEN_LIMIT: usize = 4;

/// Why a worker is not handed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such worker: it is gone, or no cluster worker.
    Gone,
    /// It listens by itself on a port of its own, if it listens at all: no
    /// worker of the app asked musher for one.
    Unknown,
    /// Workers of the app listen there by musher's sockets, and this one does
    /// not yet, or no longer.
    NotListening,
    /// It listens on several ports and none was named.
    Ambiguous,
    /// It has not taken the last ones.
    Stuck,
}

impl Primary {
    /// Hands a connection to this worker, as one to `port`, or to its only port
    /// when that is 0. [`ClusterAction::Probed`] says later whether it was
    /// taken; a worker that goes is silent.
    ///
    /// # Errors
    /// Why it is not even sent; the connection stays the caller's.
    pub fn probe(
        &mut self,
        run: Incarnation,
        port: u16,
        connection: ConnectionId,
        out: &mut Vec<ClusterAction>,
    ) -> Result<(), Refusal> {
        let group = self.group_for(run, port)?;
        let worker = self.workers.get_mut(&run).ok_or(Refusal::Gone)?;
        if worker.probes.len() >= UNTAKEN_LIMIT {
            return Err(Refusal::Stuck);
        }
        let seq = worker.take_seq();
        worker.probes.insert(seq, connection);
        worker.sent.push_back(Sent::Connection { seq });
        let group = &self.groups[&group];
        let (key, kind) = (group.key.clone(), group.endpoint.kind);
        let message = ToWorker::Connection { seq, key, kind };
        send(run, message, Carried::Connection(connection), out);
        Ok(())
    }

    fn group_for(&self, run: Incarnation, port: u16) -> Result<GroupId, Refusal> {
        let worker = self.workers.get(&run).ok_or(Refusal::Gone)?;
        let open = worker.open.iter().filter(|(_, open)| open.listening);
        let mut open = open
            .map(|(id, _)| *id)
            .filter(|id| self.groups[id].endpoint.kind.is_tcp());
        if port == 0 {
            return match (open.next(), open.next()) {
                (Some(only), None) => Ok(only),
                (Some(_), Some(_)) => Err(Refusal::Ambiguous),
                (None, _) => Err(Refusal::NotListening),
            };
        }
        if let Some(id) = open.find(|id| self.is_at_port(*id, port)) {
            return Ok(id);
        }
        let mut groups = self.group_ids(&worker.app).into_iter();
        match groups.any(|id| self.is_at_port(id, port)) {
            true => Err(Refusal::NotListening),
            false => Err(Refusal::Unknown),
        }
    }

    fn is_at_port(&self, id: GroupId, port: u16) -> bool {
        let group = &self.groups[&id];
        let named = group.name.as_ref().map(|name| name.port);
        group.endpoint.kind.is_tcp()
            && (named == Some(port) || group.endpoint.port == i32::from(port))
    }
}

/// Takes a worker's answer to a probe's connection. Returns false if it was not
/// one.
pub(super) fn on_verdict(
    worker: &mut Worker,
    ack: u64,
    is_taken: bool,
    out: &mut Vec<ClusterAction>,
) -> bool {
    let Some(connection) = worker.probes.remove(&ack) else {
        return false;
    };
    out.push(ClusterAction::Probed {
        connection,
        is_taken,
    });
    out.push(ClusterAction::CloseConnection { connection });
    true
}

/// The worker is gone, and with it what it was asked.
pub(super) fn on_gone(worker: &Worker, out: &mut Vec<ClusterAction>) {
    for connection in worker.probes.values().copied() {
        out.push(ClusterAction::CloseConnection { connection });
    }
}
