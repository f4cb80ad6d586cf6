//! What a primary takes over from the one before it.
//!
//! After the daemon was replaced the sockets, the workers and their channels
//! live on; what the former primary knew comes back from the names they were
//! kept under. It never asks a worker: a worker does not know that anything
//! happened.

use super::group::{Group, Held};
use super::message::{Endpoint, Key, SocketName, SocketOptions};
use super::worker::Open;
use super::{ClusterAction, GroupId, Mono, Primary, SocketId};
use crate::app::Balance;
use crate::id::Incarnation;
use crate::supervisor::action::{AppKey, Channel};
use serde_json::Value;

impl Primary {
    /// Takes back a socket a former daemon had; returns its id. `order` is
    /// what the [`ClusterAction::Bind`] that made it said.
    pub fn restore_socket(
        &mut self,
        app: AppKey,
        slot: u32,
        order: Option<u32>,
        endpoint: Endpoint,
        options: SocketOptions,
        name: Option<SocketName>,
    ) -> SocketId {
        let socket = SocketId(self.next_id());
        let id = match self.find_group(&app, &endpoint.key()) {
            Some(id) => id,
            None => {
                let id = GroupId(self.next_id());
                self.groups.insert(id, Group::new(app, endpoint, options));
                id
            }
        };
        let group = self.groups.get_mut(&id).expect("it was found or made");
        group.name = group.name.take().or(name);
        // Kept until a worker of the slot has it open again.
        group.owed.insert(slot);
        group.sockets.insert(slot, Held::new(socket, order));
        socket
    }

    /// Takes back a worker a former daemon had, listening on these keys. The
    /// app's sockets are to be restored before. Keys without a socket are
    /// passed over.
    #[expect(clippy::too_many_arguments, reason = "a worker is that much")]
    pub fn restore_worker(
        &mut self,
        run: Incarnation,
        app: AppKey,
        slot: u32,
        balance: Balance,
        channel: Channel,
        keys: &[Key],
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        self.add(run, app.clone(), slot, balance, channel);
        for key in keys {
            let Some(id) = self.find_group(&app, key) else {
                continue;
            };
            let group = self.groups.get_mut(&id).expect("it was just found");
            let at = group.slot_for(slot, balance);
            let held = group
                .sockets
                .get(&at)
                .or_else(|| group.sockets.values().next());
            let handed_over = balance == Balance::RoundRobin && !group.endpoint.kind.is_datagram();
            let direct = held.filter(|_| !handed_over).map(|held| held.socket);
            group.members.insert((slot, run));
            group.owed.remove(&slot);
            let worker = self.workers.get_mut(&run).expect("it was just added");
            worker.open.insert(
                id,
                Open {
                    direct,
                    listening: true,
                },
            );
            self.refresh(id, now, out);
        }
    }

    /// Takes back what a [`ClusterAction::KeepTicket`] kept.
    pub fn restore_ticket(&mut self, app: AppKey, key: Key, data: Value) {
        self.tickets.insert((app, key), data);
    }
}
