//! Everything one key of one app has.
//!
//! A [`Group`] is a socket per worker slot that asked (one in all where the
//! kernel does not spread), the workers that listen, and the connections that
//! wait. It is what is remembered and decides nothing.

use super::balancer::Waiting;
use super::message::{Endpoint, Key, Place, Query, SocketName, SocketOptions};
use super::{GroupId, Primary, SocketId};
use crate::app::{Balance, Sticky};
use crate::id::Incarnation;
use crate::supervisor::action::AppKey;
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// One held socket.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: SocketId,
    /// Its index among the group's: the order of listen(2). `None` if a former
    /// daemon did not say.
    pub(super) order: Option<u32>,
    pub(super) watched: bool,
    pub(super) measured: bool,
    /// Connections in its queue, and since when there are any.
    pub(super) n_queued: u32,
    pub(super) queued_since: Option<Mono>,
}

impl Held {
    pub(super) fn new(socket: SocketId, order: Option<u32>) -> Held {
        Held {
            socket,
            order,
            watched: false,
            measured: false,
            n_queued: 0,
            queued_since: None,
        }
    }
}

/// Everything one key of one app has.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) app: AppKey,
    pub(super) key: Key,
    pub(super) endpoint: Endpoint,
    pub(super) options: SocketOptions,
    pub(super) name: Option<SocketName>,
    /// By slot; one in all where the kernel does not spread.
    pub(super) sockets: BTreeMap<u32, Held>,
    /// The socket being made, and its slot.
    pub(super) binding: Option<(SocketId, u32)>,
    /// Who asked while it is made.
    pub(super) waiting: Vec<(Incarnation, Query)>,
    /// False once a further socket could not be made: all use the first.
    pub(super) spreads: bool,
    /// Who listens, by slot: the rotation.
    pub(super) members: BTreeSet<(u32, Incarnation)>,
    /// Slots whose worker went without closing its server on purpose: the
    /// sockets are kept for the next one.
    pub(super) owed: BTreeSet<u32>,
    /// Slots whose worker closed its server on purpose.
    pub(super) done: BTreeSet<u32>,
    pub(super) waiting_room: Waiting,
    /// What ties a client to a worker, as the newest worker has it.
    pub(super) sticky: Option<Sticky>,
    /// The live list the kernel was told last.
    pub(super) live: Option<Vec<u32>>,
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
            done: BTreeSet::new(),
            waiting_room: Waiting::default(),
            sticky: None,
            live: None,
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

    /// Returns the index the next socket will have, if those of all others are
    /// known.
    pub(super) fn next_order(&self) -> Option<u32> {
        let known = self.sockets.values().all(|held| held.order.is_some());
        known.then_some(u32::try_from(self.sockets.len()).ok()?)
    }

    /// Returns the socket that listened first, if the order of all is known: a
    /// gap means that the kernel has moved another into it.
    pub(super) fn first_of_all(&self) -> Option<SocketId> {
        let mut orders: Vec<(u32, SocketId)> = Vec::new();
        for held in self.sockets.values() {
            orders.push((held.order?, held.socket));
        }
        orders.sort_unstable();
        let is_whole = orders.iter().zip(0..).all(|((order, _), at)| *order == at);
        is_whole.then_some(orders.first()?.1)
    }

    /// Returns where its connections come in, as an agent names it.
    pub(super) fn place(&self) -> Place {
        let Endpoint {
            address,
            port,
            kind,
            ..
        } = &self.endpoint;
        let address = address.as_deref().unwrap_or("null");
        let port = match (port, &self.name) {
            (0, Some(name)) => i32::from(name.port),
            (port, _) => *port,
        };
        Place(format!("{address}:{port}:{}", kind.word()))
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

    pub(super) fn group_of(&self, socket: SocketId) -> Option<GroupId> {
        let has = |group: &Group| group.sockets.values().any(|held| held.socket == socket);
        self.groups
            .iter()
            .find(|(_, group)| has(group))
            .map(|(id, _)| *id)
    }
}
