//! How long sockets live.
//!
//! A listening socket is closed for two reasons only: every slot of the app
//! closed its servers on purpose, or no slot of the app is left. Closing one
//! socket of several resets whatever is in its queue and every handshake under
//! way to it, so a slot that lost its process keeps its socket: musher accepts
//! there and hands over to the others ([`super::balancer`]) until the slot has
//! a process again.

use super::worker::Worker;
use super::{ClusterAction, GroupId, Primary, errno};
use crate::id::Incarnation;
use crate::supervisor::action::AppKey;

impl Primary {
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
            if !others {
                let slots = match owed {
                    true => &mut group.owed,
                    false => &mut group.done,
                };
                slots.insert(slot);
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

    /// Only these slots remain. The sockets of the others stay, and slots that
    /// remain may still ask for what the others listened on. Without any slot
    /// the app is stopped or deleted and its sockets are closed; whoever waits
    /// there is refused. Ticket keys stay for its next start.
    pub fn keep_slots(&mut self, app: &AppKey, live: &[u32], out: &mut Vec<ClusterAction>) {
        for id in self.group_ids(app) {
            if live.is_empty() {
                self.close_group(id, out);
                self.forget_sessions(app);
                continue;
            }
            let group = self.groups.get_mut(&id).expect("it was just listed");
            let n_owed = group.owed.len();
            group.owed.retain(|slot| live.contains(slot));
            if group.owed.len() < n_owed {
                let heirs = live.iter().filter(|slot| !group.done.contains(slot));
                group.owed.extend(heirs);
            }
            self.close_if_unused(id, out);
        }
    }
}
