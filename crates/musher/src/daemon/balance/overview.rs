//! What `describe` shows of cluster apps: who gets connections, and how many
//! wait.

use super::thread::Thread;
use musher_core::app::Balance;
use musher_core::cluster::SocketId;
use musher_core::cluster::overview::Served;
use musher_core::id::{Incarnation, PmId};
use musher_os::listen;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// One address of a cluster app.
#[derive(Debug)]
pub(crate) struct Address {
    served: Served,
    /// What chooses among its sockets.
    chooser: &'static str,
    queued: BTreeMap<SocketId, u32>,
}

impl Address {
    /// Returns it as JSON; `ids` names the processes of the runs.
    pub(crate) fn json(&self, ids: &HashMap<Incarnation, PmId>) -> Value {
        let served = &self.served;
        let workers = served.workers.iter().filter_map(|worker| {
            let queued = worker.socket.and_then(|socket| self.queued.get(&socket));
            Some(json!({
                "pm_id": ids.get(&worker.run)?.0,
                "slot": worker.slot,
                "state": worker.state.word(),
                "queued": queued,
                "handed_over": worker.n_given,
                "unanswered": worker.n_unanswered,
            }))
        });
        json!({
            "name": served.app.name,
            "namespace": served.app.namespace,
            "key": served.key,
            "address": served.name.as_ref().map(|name| &name.address),
            "port": served.name.as_ref().map(|name| name.port),
            "mode": self.mode(),
            "queued": self.queued.values().sum::<u32>(),
            "workers": workers.collect::<Vec<_>>(),
        })
    }

    /// Returns the mode that is really in force.
    fn mode(&self) -> String {
        match (&self.served.sticky, self.served.balance) {
            (Some(sticky), Balance::RoundRobin) => format!("sticky+{}", sticky.name()),
            (_, Balance::Even) if self.served.first.is_some() => {
                format!("{}+{}", Balance::Even.name(), self.chooser)
            }
            (_, balance) => balance.name().to_owned(),
        }
    }
}

impl Thread {
    /// Returns every address with its workers and queues.
    pub(super) fn overview(&self) -> Vec<Address> {
        let address = |served: Served| {
            let first = served.first.and_then(|first| self.listeners.get(&first));
            let queued = served.sockets.iter().filter_map(|(_, socket)| {
                let listener = self.listeners.get(socket)?;
                // Only TCP says how many wait.
                Some((*socket, listen::queue_length(&listener.fd).ok()?))
            });
            Address {
                chooser: first.map_or("hash", |listener| listener.chooser.word()),
                queued: queued.collect(),
                served,
            }
        };
        self.primary.overview().into_iter().map(address).collect()
    }
}
