//! Which worker a client belongs to.
//!
//! In a sticky app a connection is handed to the worker that has its client's
//! session. Before it is handed over its client is looked at: the peer's
//! address, or the head of its first request, which is peeked at and never
//! consumed. Owners are slots, not processes, chosen by rendezvous hashing: a
//! reload keeps every client where it was, one more slot takes over only its
//! share. Session ids are made by the workers, which tell them as the package
//! `@socket.io/sticky` does. What cannot be told (TLS, a head too long or too
//! slow) falls back to the address.

use super::balancer::Pick;
use super::{ClusterAction, ConnectionId, GroupId, Mono, Primary};
use crate::app::Sticky;
use crate::id::Incarnation;
use crate::supervisor::action::AppKey;
use crate::time::Millis;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The most bytes of a head that are looked at.
pub const HEAD_LIMIT: usize = 8 << 10;

/// Patience for the head of a request.
pub const LOOK_LIMIT: Millis = Millis(5_000);

/// Patience for a worker to tell of a session a client knows already: the
/// client's next request may overtake the worker's message.
pub const SESSION_PATIENCE: Millis = Millis(100);

/// Connections of a key that are looked at at the same time; beyond, the
/// oldest goes by its address.
pub const LOOKING_LIMIT: usize = 1024;

/// Sessions of an app that are remembered; the one not used for longest goes.
pub const SESSION_LIMIT: usize = 65_536;

/// The longest session id that is remembered, bytes.
const SESSION_ID_LIMIT: usize = 64;

/// First byte of a TLS handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Who is to get a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// It is looked at until then; the session it names, if a worker has yet
    /// to tell of it.
    Looking {
        until: Mono,
        peer: Option<IpAddr>,
        session: Option<Arc<str>>,
    },
    /// Whose turn it is.
    Anyone,
    /// The slot this number belongs to.
    Hash(u64),
    /// This slot, while it has a worker.
    Slot(u32),
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Who connected; `None` for Unix sockets.
    pub peer: Option<IpAddr>,
    /// The bytes that wait, up to [`HEAD_LIMIT`].
    pub head: &'a [u8],
    /// No more will come.
    pub is_over: bool,
}

/// What workers said of the sessions of an app.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Slot and last use.
    slots: BTreeMap<Arc<str>, (u32, u64)>,
    by_use: BTreeMap<u64, Arc<str>>,
    n_uses: u64,
}

impl Sessions {
    fn learn(&mut self, id: &str, slot: u32) {
        self.forget(id);
        if self.slots.len() >= SESSION_LIMIT
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.slots.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.n_uses += 1;
        self.by_use.insert(self.n_uses, Arc::clone(&id));
        self.slots.insert(id, (slot, self.n_uses));
    }

    fn forget(&mut self, id: &str) {
        if let Some((_, used)) = self.slots.remove(id) {
            self.by_use.remove(&used);
        }
    }

    /// Returns the slot of a session, which counts as a use.
    fn slot(&mut self, id: &str) -> Option<u32> {
        let (slot, used) = self.slots.get_mut(id)?;
        let name = self.by_use.remove(used)?;
        self.n_uses += 1;
        *used = self.n_uses;
        self.by_use.insert(self.n_uses, name);
        Some(*slot)
    }
}

impl Primary {
    /// Makes the app of a worker sticky, or no longer; before it listens, or
    /// right after it was restored.
    pub fn set_sticky(&mut self, run: Incarnation, sticky: Option<Sticky>) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        for id in worker.open.keys() {
            if let Some(group) = self.groups.get_mut(id) {
                group.sticky.clone_from(&sticky);
            }
        }
        worker.sticky = sticky;
    }

    /// True if an app's messages about sessions are of interest.
    pub fn is_sticky(&self, run: Incarnation) -> bool {
        self.workers
            .get(&run)
            .is_some_and(|worker| worker.sticky.is_some())
    }

    /// Returns the other living workers of a worker's app.
    pub fn colleagues(&self, run: Incarnation) -> Vec<Incarnation> {
        let Some(app) = self.workers.get(&run).map(|worker| &worker.app) else {
            return Vec::new();
        };
        let others = self.workers.iter();
        others
            .filter(|(other, worker)| **other != run && worker.app == *app)
            .map(|(other, _)| *other)
            .collect()
    }

    /// A worker made a session, or ended it.
    pub fn session(
        &mut self,
        run: Incarnation,
        id: &str,
        begins: bool,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(worker) = self.workers.get(&run).filter(|w| w.sticky.is_some()) else {
            return;
        };
        let (app, slot) = (worker.app.clone(), worker.slot);
        let sessions = self.sessions.entry(app.clone()).or_default();
        if !begins || id.len() > SESSION_ID_LIMIT {
            return sessions.forget(id);
        }
        sessions.learn(id, slot);
        let is_awaited = |connection: &ConnectionId, primary: &Primary| {
            matches!(&primary.connections[connection].aim,
                Aim::Looking { session: Some(awaited), .. } if **awaited == *id)
        };
        for group in self.group_ids(&app) {
            let looking = self.groups[&group].waiting_room.looking.iter();
            let looking: Vec<ConnectionId> = looking
                .map(|(_, connection)| *connection)
                .filter(|connection| is_awaited(connection, self))
                .collect();
            for connection in looking {
                self.aim(connection, Aim::Slot(slot), now, out);
            }
        }
    }

    /// Begins to look at a connection.
    pub(super) fn look_at(
        &mut self,
        id: GroupId,
        connection: ConnectionId,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let until = now + LOOK_LIMIT;
        let held = self.connections.get_mut(&connection).expect("it is held");
        held.aim = Aim::Looking {
            until,
            peer: None,
            session: None,
        };
        let group = self.groups.get_mut(&id).expect("it is the connection's");
        let looking = &mut group.waiting_room.looking;
        looking.insert((until, connection));
        if looking.len() > LOOKING_LIMIT
            && let Some((_, oldest)) = looking.first().copied()
        {
            self.give_up_looking(oldest, now, out);
        }
        out.push(ClusterAction::Look { connection });
    }

    /// True while more of a connection's head is wanted.
    pub fn is_looking(&self, connection: ConnectionId) -> bool {
        let held = self.connections.get(&connection);
        held.is_some_and(|held| matches!(held.aim, Aim::Looking { session: None, .. }))
    }

    /// Takes what is known of a connection that is looked at. Any other changes
    /// nothing.
    pub fn looked(
        &mut self,
        connection: ConnectionId,
        seen: Seen<'_>,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        if !self.is_looking(connection) {
            return;
        }
        let held = self
            .connections
            .get_mut(&connection)
            .expect("it is looked at");
        if let Aim::Looking { peer, .. } = &mut held.aim {
            *peer = seen.peer;
        }
        let group = self
            .groups
            .get(&held.group)
            .expect("it holds the connection");
        let (app, sticky) = (group.app.clone(), group.sticky.clone());
        match sticky.map_or(Found::Nothing, |sticky| find(&sticky, seen)) {
            Found::Nothing => self.aim(connection, Aim::Anyone, now, out),
            Found::Number(number) => self.aim(connection, Aim::Hash(number), now, out),
            Found::NotYet => {}
            Found::Session(id) => {
                let sessions = self.sessions.entry(app).or_default();
                match sessions.slot(id) {
                    Some(slot) => self.aim(connection, Aim::Slot(slot), now, out),
                    None => self.await_session(connection, id.into(), now),
                }
            }
        }
    }

    fn await_session(&mut self, connection: ConnectionId, id: Arc<str>, now: Mono) {
        let held = self
            .connections
            .get_mut(&connection)
            .expect("it is looked at");
        let group = self.groups.get_mut(&held.group).expect("it holds it");
        if let Aim::Looking { until, session, .. } = &mut held.aim {
            group.waiting_room.looking.remove(&(*until, connection));
            *until = now + SESSION_PATIENCE;
            *session = Some(id);
            group.waiting_room.looking.insert((*until, connection));
        }
    }

    /// A connection has waited for too long.
    fn give_up_looking(
        &mut self,
        connection: ConnectionId,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        let Some(held) = self.connections.get(&connection) else {
            return;
        };
        let aim = match &held.aim {
            Aim::Looking {
                session: Some(id), ..
            } => Aim::Hash(number_of(id.as_bytes())),
            Aim::Looking {
                peer: Some(peer), ..
            } => Aim::Hash(number_of_peer(*peer)),
            Aim::Looking { .. } | Aim::Anyone | Aim::Hash(_) | Aim::Slot(_) => Aim::Anyone,
        };
        self.aim(connection, aim, now, out);
    }

    pub(super) fn give_up_looking_at(
        &mut self,
        id: GroupId,
        now: Mono,
        out: &mut Vec<ClusterAction>,
    ) {
        while let Some(group) = self.groups.get(&id)
            && let Some((until, connection)) = group.waiting_room.looking.first().copied()
            && until <= now
        {
            self.give_up_looking(connection, now, out);
        }
    }

    /// It is known who is to get a connection.
    fn aim(&mut self, connection: ConnectionId, aim: Aim, now: Mono, out: &mut Vec<ClusterAction>) {
        let held = self
            .connections
            .get_mut(&connection)
            .expect("it is looked at");
        let before = std::mem::replace(&mut held.aim, aim);
        let id = held.group;
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if let Aim::Looking { until, .. } = before {
            group.waiting_room.looking.remove(&(until, connection));
            group.waiting_room.queue.push_back(connection);
        }
        self.refresh(id, now, out);
    }

    /// Returns whom a connection with an owner goes to; `None` if it has none.
    pub(super) fn pick_owner(&self, id: GroupId, connection: ConnectionId) -> Option<Pick> {
        let held = &self.connections[&connection];
        let takes = |(_, run): &&(u32, Incarnation)| {
            self.workers.get(run).is_some_and(|worker| worker.takes())
        };
        let serving: Vec<(u32, Incarnation)> = self.groups[&id]
            .members
            .iter()
            .filter(takes)
            .copied()
            .collect();
        let accepts = |member: &&(u32, Incarnation)| !held.refused_by.contains(&member.1);
        let candidates = serving.iter().filter(accepts);
        // Two of one slot: the newer one is the successor.
        let owner = match held.aim {
            Aim::Looking { .. } | Aim::Anyone => return None,
            Aim::Slot(slot) => Some(candidates.filter(|member| member.0 == slot).max()?),
            Aim::Hash(number) => candidates.max_by_key(|(slot, run)| (weight(number, *slot), *run)),
        };
        Some(match owner {
            Some((_, run)) if self.workers[run].room(id) > 0 => Pick::Give(*run),
            Some(_) => Pick::Wait,
            None if serving.is_empty() => Pick::Wait,
            None => Pick::Park,
        })
    }

    pub(super) fn forget_sessions(&mut self, app: &AppKey) {
        self.sessions.remove(app);
    }
}

/// What a look at a connection says.
enum Found<'a> {
    /// Nothing that ties it to a worker.
    Nothing,
    NotYet,
    Number(u64),
    Session(&'a str),
}

fn find<'a>(sticky: &Sticky, seen: Seen<'a>) -> Found<'a> {
    let by_peer = || {
        let number = seen.peer.map(number_of_peer);
        number.map_or(Found::Nothing, Found::Number)
    };
    if matches!(sticky, Sticky::Ip) || seen.head.first() == Some(&TLS_HANDSHAKE) {
        return by_peer();
    }
    let head = match header_end(seen.head) {
        Some(end) => &seen.head[..end],
        None if seen.is_over || seen.head.len() >= HEAD_LIMIT => seen.head,
        None => return Found::NotYet,
    };
    let Ok(head) = std::str::from_utf8(head) else {
        return Found::Nothing;
    };
    match sticky {
        Sticky::Ip => by_peer(),
        Sticky::Sid => session_id(head).map_or(Found::Nothing, Found::Session),
        Sticky::Cookie(name) => cookie(head, name).map_or(Found::Nothing, |value| {
            Found::Number(number_of(value.as_bytes()))
        }),
    }
}

fn header_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n")
}

/// Returns `sid` of the query of the request line.
fn session_id(head: &str) -> Option<&str> {
    let target = head.lines().next()?.split(' ').nth(1)?;
    let (_, query) = target.split_once('?')?;
    let query = query.split('#').next()?;
    let id = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("sid="))?;
    (!id.is_empty() && id.len() <= SESSION_ID_LIMIT).then_some(id)
}

/// Returns the value of a cookie (RFC 6265, 5.4).
fn cookie<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let cookies = headers.filter(|(header, _)| header.eq_ignore_ascii_case("cookie"));
    let mut pairs = cookies.flat_map(|(_, value)| value.split(';'));
    pairs.find_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    })
}

/// Returns the number of a client's network: an IPv4 address, or the 64 bits of
/// an IPv6 address that one customer has (RFC 6177).
fn number_of_peer(peer: IpAddr) -> u64 {
    match peer {
        IpAddr::V4(v4) => number_of(&v4.octets()),
        IpAddr::V6(v6) => match Ipv6Addr::to_ipv4_mapped(&v6) {
            Some(v4) => number_of(&v4.octets()),
            None => number_of(&v6.octets()[..8]),
        },
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv), with a finaliser: without it near
/// keys get near weights, measured as 22, 29 and 49 of 100.
fn number_of(bytes: &[u8]) -> u64 {
    let mut number = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        number = (number ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    mixed(number)
}

/// How much a slot wants a client: the one that wants it most has it.
fn weight(number: u64, slot: u32) -> u64 {
    mixed(number ^ mixed(u64::from(slot).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
