//! A fake kernel with fake workers and clients; checks at every action that it
//! is one the primary may take.

use crate::app::{Balance, Sticky, Upgraded};
use crate::cluster::message::{
    Endpoint, FromWorker, Key, Kind, Place, Query, SocketName, SocketOptions, ToWorker,
};
use crate::cluster::probing::Refusal;
use crate::cluster::sticky::Seen;
use crate::cluster::{Carried, ClusterAction, ConnectionId, Primary, SocketId};
use crate::id::Incarnation;
use crate::supervisor::action::{AppKey, Channel};
use crate::supervisor::event::AppMessage;
use crate::time::{Millis, Mono};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

pub(super) const PORTS: [i32; 2] = [3000, 3001];
pub(super) const SLOTS: u32 = 3;

/// What port 0 becomes.
const RANDOM_PORT: u16 = 40_000;

/// Turns in which everything must have come to rest.
const SETTLE_LIMIT: usize = 5_000;

pub(super) fn app() -> AppKey {
    AppKey {
        namespace: "default".into(),
        name: "app".into(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// In the kernel's queue.
    Queued,
    /// Accepted by musher.
    Held,
    /// Accepted by a worker.
    Served(Incarnation),
    /// The app closed the port on purpose.
    Refused,
}

#[derive(Default)]
struct FakeWorker {
    slot: u32,
    inbox: VecDeque<(ToWorker, Carried)>,
    /// Ports asked for, by the seq of the query.
    asked: BTreeMap<u64, i32>,
    /// Open servers and the socket they accept from.
    open: BTreeMap<i32, (Key, Option<SocketId>)>,
    told: Vec<AppMessage>,
    refusing: bool,
    leaving: bool,
    detached: bool,
    /// What the word to drain named.
    places: Vec<Place>,
    seq: u64,
    last_seen_seq: Option<u64>,
}

struct FakeSocket {
    port: i32,
    queue: VecDeque<u64>,
    watched: bool,
    measured: bool,
}

pub(super) struct World {
    primary: Primary,
    now: Mono,
    workers: BTreeMap<Incarnation, FakeWorker>,
    sockets: BTreeMap<SocketId, FakeSocket>,
    connections: BTreeMap<ConnectionId, u64>,
    /// Connections of probes, and whom they are for.
    pub(super) probes: BTreeMap<ConnectionId, Incarnation>,
    /// What became of those that were answered.
    pub(super) probed: Vec<(Incarnation, bool)>,
    pub(super) clients: BTreeMap<u64, Fate>,
    ports: BTreeMap<u64, i32>,
    /// How many connections were handed over.
    pub(super) n_moved: usize,
    /// How often each query was answered.
    pub(super) answers: BTreeMap<(Incarnation, u64), u32>,
    /// Ports somebody closed on purpose at some time.
    deliberate: BTreeSet<i32>,
    pub(super) joins_fail: bool,
    /// Sockets are made only at [`World::bind_all`].
    pub(super) binds_wait: bool,
    binds: VecDeque<(SocketId, i32, bool)>,
    /// What the kernel was told of each port.
    live: BTreeMap<i32, Vec<u32>>,
    pub(super) hung: Vec<(Incarnation, bool)>,
    /// What workers are started with.
    pub(super) sticky: Option<Sticky>,
    /// Address and first bytes of the clients to come.
    pub(super) next_client: (IpAddr, String),
    who: BTreeMap<u64, (IpAddr, String)>,
    n: u64,
}

impl World {
    pub(super) fn new() -> World {
        World {
            primary: Primary::new(0),
            now: Mono(1000),
            workers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            connections: BTreeMap::new(),
            probes: BTreeMap::new(),
            probed: Vec::new(),
            clients: BTreeMap::new(),
            ports: BTreeMap::new(),
            n_moved: 0,
            answers: BTreeMap::new(),
            deliberate: BTreeSet::new(),
            joins_fail: false,
            binds_wait: false,
            binds: VecDeque::new(),
            live: BTreeMap::new(),
            hung: Vec::new(),
            sticky: None,
            next_client: (
                IpAddr::from([127, 0, 0, 1]),
                "GET / HTTP/1.1\r\n\r\n".to_owned(),
            ),
            who: BTreeMap::new(),
            n: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.n += 1;
        self.n
    }

    /// Acts on the worker a number picks, if there is any.
    pub(super) fn with(&mut self, pick: usize, act: impl FnOnce(&mut World, Incarnation)) {
        let runs: Vec<Incarnation> = self.workers.keys().copied().collect();
        if !runs.is_empty() {
            act(self, runs[pick % runs.len()]);
        }
    }

    pub(super) fn is_staying(&self, run: Incarnation) -> bool {
        self.workers.get(&run).is_some_and(|worker| !worker.leaving)
    }

    /// Returns how many connections musher still holds.
    pub(super) fn n_held(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn n_sockets(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn inbox_len(&self, run: Incarnation) -> usize {
        self.workers[&run].inbox.len()
    }

    pub(super) fn told(&self, run: Incarnation) -> &[AppMessage] {
        &self.workers[&run].told
    }

    pub(super) fn data_of_answer(&self, run: Incarnation) -> Option<Value> {
        match self.workers[&run].inbox.front()? {
            (ToWorker::Shared { data, .. } | ToWorker::RoundRobin { data, .. }, _) => {
                Some(data.clone())
            }
            _ => None,
        }
    }

    pub(super) fn start(&mut self, slot: u32, balance: Balance) -> Incarnation {
        let run = Incarnation(self.next());
        // What is sticky is handed over: the description says so.
        let balance = match self.sticky {
            Some(_) => Balance::RoundRobin,
            None => balance,
        };
        self.primary.add(run, app(), slot, balance, Channel::Worker);
        self.primary.set_sticky(run, self.sticky.clone());
        let worker = FakeWorker {
            slot,
            ..FakeWorker::default()
        };
        self.workers.insert(run, worker);
        run
    }

    pub(super) fn listen(&mut self, run: Incarnation, port: i32) {
        self.listen_with(run, port, Value::Null);
    }

    pub(super) fn listen_with(&mut self, run: Incarnation, port: i32, data: Value) {
        let worker = self.workers.get_mut(&run).unwrap();
        worker.seq += 1;
        let seq = worker.seq;
        worker.asked.insert(seq, port);
        if worker.detached {
            self.deliberate.insert(port);
        }
        self.answers.insert((run, seq), 0);
        let query = Query {
            seq,
            endpoint: Some(endpoint(port)),
            options: SocketOptions {
                backlog: 511,
                ..SocketOptions::default()
            },
            data,
        };
        self.say(run, FromWorker::Query(query));
    }

    fn say(&mut self, run: Incarnation, message: FromWorker) {
        let now = self.now;
        self.decide(|primary, out| primary.on_message(run, message, false, now, out));
    }

    /// The worker takes the oldest message of its channel.
    pub(super) fn deliver(&mut self, run: Incarnation, arrives: bool) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let Some((message, carried)) = worker.inbox.pop_front() else {
            return;
        };
        if carried != Carried::Nothing {
            let answer = if arrives {
                FromWorker::HandleAck
            } else {
                FromWorker::HandleNack
            };
            self.say(run, answer);
            if !arrives {
                return;
            }
        }
        match (message, carried) {
            (ToWorker::Shared { ack, key, .. }, Carried::Socket(socket)) => {
                self.opened(run, ack, key, Some(socket));
            }
            (ToWorker::RoundRobin { ack, key, .. }, Carried::Nothing) => {
                self.opened(run, ack, key, None);
            }
            (ToWorker::Refusal { ack, .. }, Carried::Nothing) => self.answered(run, ack),
            (ToWorker::Connection { seq, .. }, Carried::Nobody) => {
                let accepted = false;
                self.say(run, FromWorker::Verdict { ack: seq, accepted });
            }
            (ToWorker::Connection { seq, key, .. }, Carried::Connection(connection)) => {
                let worker = &self.workers[&run];
                let open = worker.open.values().any(|(mine, _)| *mine == key);
                let accepted = open && !worker.refusing;
                if let Some(whom) = self.probes.get(&connection) {
                    assert_eq!(*whom, run, "a probe reached another worker");
                } else if accepted {
                    let client = self.connections[&connection];
                    let before = self.clients.insert(client, Fate::Served(run));
                    assert_eq!(before, Some(Fate::Held), "client {client} is served twice");
                }
                self.say(run, FromWorker::Verdict { ack: seq, accepted });
            }
            (ToWorker::MayLeave { .. }, Carried::Nothing) => {
                let keys: Vec<Key> = self.workers[&run]
                    .open
                    .values()
                    .map(|(key, _)| key.clone())
                    .collect();
                self.workers.get_mut(&run).unwrap().open.clear();
                for key in keys {
                    self.say(run, FromWorker::Close(key));
                }
                self.kill(run);
            }
            (ToWorker::Drain { places, .. }, Carried::Nothing) => {
                let worker = self.workers.get_mut(&run).unwrap();
                worker.places = places;
                let open = std::mem::take(&mut worker.open);
                for (key, _) in open.into_values() {
                    self.say(run, FromWorker::Close(key));
                }
            }
            (ToWorker::HandleAck, Carried::Nothing) => {}
            other => panic!("worker {run} was sent {other:?}"),
        }
    }

    fn answered(&mut self, run: Incarnation, ack: u64) {
        *self
            .answers
            .get_mut(&(run, ack))
            .expect("an answer to no query") += 1;
    }

    fn opened(&mut self, run: Incarnation, ack: u64, key: Key, socket: Option<SocketId>) {
        self.answered(run, ack);
        let worker = self.workers.get_mut(&run).unwrap();
        let port = worker.asked[&ack];
        let before = worker.open.insert(port, (key, socket));
        assert!(before.is_none(), "worker {run} was given port {port} twice");
        let mut real = endpoint(port);
        real.port = if port == 0 {
            i32::from(RANDOM_PORT)
        } else {
            port
        };
        self.say(run, FromWorker::Listening(real));
    }

    /// A client connects; the kernel puts it into any of the port's queues.
    pub(super) fn connect(&mut self, port: i32, pick: usize) {
        let client = self.next();
        let at_port = |socket: &&mut FakeSocket| socket.port == port;
        let mut sockets: Vec<_> = self.sockets.values_mut().filter(at_port).collect();
        if !sockets.is_empty() {
            let n = sockets.len();
            sockets[pick % n].queue.push_back(client);
            self.clients.insert(client, Fate::Queued);
            self.who.insert(client, self.next_client.clone());
            self.ports.insert(client, port);
        }
    }

    /// musher's thread finds a watched socket readable.
    pub(super) fn accept(&mut self, pick: usize) {
        let ids: Vec<SocketId> = self.sockets.keys().copied().collect();
        if let Some(socket) = ids.get(pick % ids.len().max(1))
            && self.sockets[socket].watched
            && !self.sockets[socket].queue.is_empty()
        {
            self.accept_all(*socket);
        }
    }

    fn accept_all(&mut self, socket: SocketId) {
        while self.sockets.contains_key(&socket) && self.primary.credit(socket) > 0 {
            if !self.accept_one(socket) {
                return;
            }
        }
    }

    fn accept_one(&mut self, socket: SocketId) -> bool {
        let Some(client) = self.sockets.get_mut(&socket).unwrap().queue.pop_front() else {
            return false;
        };
        let connection = ConnectionId(self.next());
        self.connections.insert(connection, client);
        self.clients.insert(client, Fate::Held);
        let now = self.now;
        self.decide(|primary, out| primary.accepted(socket, connection, now, out));
        true
    }

    /// The thread reads the queues it was told to read.
    pub(super) fn measure(&mut self) {
        let measured = self.sockets.iter().filter(|(_, socket)| socket.measured);
        let lengths: Vec<(SocketId, u32)> = measured
            .map(|(id, socket)| (*id, u32::try_from(socket.queue.len()).unwrap()))
            .collect();
        let now = self.now;
        self.decide(|primary, out| primary.queues(&lengths, now, out));
    }

    /// The thread sees that many bytes of a connection it looks at.
    pub(super) fn look(&mut self, pick: usize, upto: usize) {
        let looking = |id: &&ConnectionId| self.primary.is_looking(**id);
        let looking: Vec<ConnectionId> = self.connections.keys().filter(looking).copied().collect();
        let Some(connection) = looking.get(pick % looking.len().max(1)) else {
            return;
        };
        let (peer, head) = self.who[&self.connections[connection]].clone();
        let seen = Seen {
            peer: Some(peer),
            head: &head.as_bytes()[..upto.min(head.len())],
            is_over: false,
        };
        let now = self.now;
        self.decide(|primary, out| primary.looked(*connection, seen, now, out));
    }

    /// Returns who serves the newest client.
    pub(super) fn server(&self) -> Option<Incarnation> {
        match self.clients.last_key_value()? {
            (_, Fate::Served(run)) => Some(*run),
            _ => None,
        }
    }

    pub(super) fn session(&mut self, run: Incarnation, id: &str, begins: bool) {
        let now = self.now;
        self.decide(|primary, out| primary.session(run, id, begins, now, out));
    }

    pub(super) fn suspend(&mut self, run: Incarnation, suspended: bool) {
        let now = self.now;
        self.decide(|primary, out| primary.suspend(run, suspended, now, out));
    }

    /// Returns the indices the kernel chooses from.
    pub(super) fn live(&self, port: i32) -> Option<&[u32]> {
        self.live.get(&port).map(Vec::as_slice)
    }

    /// A worker accepts from the sockets it was given.
    pub(super) fn worker_accept(&mut self, run: Incarnation) {
        let direct: Vec<SocketId> = self.workers[&run]
            .open
            .values()
            .filter_map(|(_, socket)| *socket)
            .collect();
        for socket in direct {
            let queue = self
                .sockets
                .get_mut(&socket)
                .map(|socket| &mut socket.queue);
            if let Some(client) = queue.and_then(VecDeque::pop_front) {
                self.clients.insert(client, Fate::Served(run));
            }
        }
    }

    /// A probe asks a worker.
    pub(super) fn probe(&mut self, run: Incarnation, port: u16) -> Result<(), Refusal> {
        let connection = ConnectionId(self.next());
        self.probes.insert(connection, run);
        let mut result = Ok(());
        self.decide(|primary, out| result = primary.probe(run, port, connection, out));
        if result.is_err() {
            self.probes.remove(&connection);
        }
        result
    }

    pub(super) fn set_refusing(&mut self, run: Incarnation, refusing: bool) {
        self.workers.get_mut(&run).unwrap().refusing = refusing;
    }

    /// The app closes a server on purpose.
    pub(super) fn close(&mut self, run: Incarnation, port: i32) {
        let worker = self.workers.get_mut(&run).unwrap();
        if let Some((key, _)) = worker.open.remove(&port) {
            self.deliberate.insert(port);
            self.say(run, FromWorker::Close(key));
        }
    }

    pub(super) fn detach(&mut self, run: Incarnation) {
        let now = self.now;
        // What it asked for or will ask for counts as its successor's decision.
        let worker = self.workers.get_mut(&run).unwrap();
        worker.detached = true;
        self.deliberate.extend(worker.asked.values());
        self.decide(|primary, out| primary.detach(run, now, out));
    }

    pub(super) fn drain(&mut self, run: Incarnation) {
        let now = self.now;
        let worker = self.workers.get_mut(&run).unwrap();
        worker.detached = true;
        self.deliberate.extend(worker.asked.values());
        self.decide(|p, out| p.drain(run, Millis(1000), Upgraded::Wait, now, out));
    }

    /// A worker that drains gives a connection back that it may give back.
    pub(super) fn hand_over(&mut self, run: Incarnation) {
        let places = &self.workers[&run].places;
        let place = |client: &u64| Place(format!("null:{}:4", self.ports[client]));
        let found = self
            .clients
            .iter()
            .find(|(client, fate)| **fate == Fate::Served(run) && places.contains(&place(client)));
        let Some((client, place)) = found.map(|(client, _)| (*client, place(client))) else {
            return;
        };
        let connection = ConnectionId(self.next());
        self.connections.insert(connection, client);
        self.clients.insert(client, Fate::Held);
        self.n_moved += 1;
        let now = self.now;
        self.decide(|p, out| p.handed_over(run, connection, &place, now, out));
    }

    /// The worker disconnects by itself: it asks, closes its servers, dies.
    pub(super) fn leave(&mut self, run: Incarnation) {
        let worker = self.workers.get_mut(&run).unwrap();
        worker.leaving = true;
        worker.seq += 1;
        let seq = worker.seq;
        self.deliberate.extend(worker.asked.values());
        self.say(run, FromWorker::Leaving { seq });
    }

    pub(super) fn kill(&mut self, run: Incarnation) {
        let now = self.now;
        self.workers.remove(&run);
        self.decide(|primary, out| primary.gone(run, now, out));
    }

    /// These slots remain, and those that have a worker.
    pub(super) fn keep_slots(&mut self, wished: &[u32]) {
        let mut live: BTreeSet<u32> = self.workers.values().map(|worker| worker.slot).collect();
        live.extend(wished);
        if live.is_empty() {
            self.deliberate.extend(PORTS);
        }
        let live: Vec<u32> = live.into_iter().collect();
        self.decide(|primary, out| primary.keep_slots(&app(), &live, out));
    }

    pub(super) fn sleep(&mut self, millis: u64) {
        self.now = self.now + Millis(millis);
        let now = self.now;
        self.decide(|primary, out| primary.on_time(now, out));
    }

    pub(super) fn deliver_all(&mut self) {
        let runs: Vec<Incarnation> = self.workers.keys().copied().collect();
        for run in runs {
            while self
                .workers
                .get(&run)
                .is_some_and(|worker| !worker.inbox.is_empty())
            {
                self.deliver(run, true);
            }
        }
    }

    /// Everything recovers: each slot gets a worker that listens on every port
    /// and accepts.
    pub(super) fn settle(&mut self, balance: Balance) {
        self.joins_fail = false;
        self.binds_wait = false;
        self.bind_all();
        for worker in self.workers.values_mut() {
            worker.refusing = false;
        }
        let runs: Vec<Incarnation> = self.workers.keys().copied().collect();
        for run in runs {
            self.suspend(run, false);
        }
        for slot in 0..SLOTS {
            let run = self.start(slot, balance);
            for port in PORTS {
                self.listen(run, port);
            }
        }
        self.settle_as_is();
    }

    /// Goes on until nothing waits any more.
    pub(super) fn settle_as_is(&mut self) {
        for _ in 0..SETTLE_LIMIT {
            self.deliver_all();
            for pick in 0..self.sockets.len() {
                self.accept(pick);
            }
            let runs: Vec<Incarnation> = self.workers.keys().copied().collect();
            for run in runs {
                self.worker_accept(run);
            }
            let left = |fate: &Fate| matches!(fate, Fate::Queued | Fate::Held);
            let due = self.primary.next_deadline();
            if !self.clients.values().any(left) && due.is_none() {
                return;
            }
            let wait = due.map_or(0, |at| at.since(self.now).get());
            self.sleep(wait);
        }
    }

    fn decide(&mut self, decision: impl FnOnce(&mut Primary, &mut Vec<ClusterAction>)) {
        let mut out = Vec::new();
        decision(&mut self.primary, &mut out);
        for action in out {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: ClusterAction) {
        match action {
            ClusterAction::Bind {
                socket,
                endpoint,
                joins,
                ..
            } => {
                self.binds
                    .push_back((socket, endpoint.port, joins.is_some()));
                if !self.binds_wait {
                    self.bind_all();
                }
            }
            ClusterAction::Watch { socket, on } => {
                let socket = self
                    .sockets
                    .get_mut(&socket)
                    .expect("an unknown socket is watched");
                assert_ne!(socket.watched, on, "only changes are told");
                socket.watched = on;
            }
            ClusterAction::Measure { socket, on } => {
                let socket = self.sockets.get_mut(&socket).expect("it is known");
                assert_ne!(socket.measured, on, "only changes are told");
                socket.measured = on;
            }
            ClusterAction::Spread {
                socket,
                n_sockets,
                live,
            } => {
                let port = self.sockets[&socket].port;
                let at_port = |other: &&FakeSocket| other.port == port;
                // A socket of a later decision may exist by then.
                assert!(self.sockets.values().filter(at_port).count() >= n_sockets as usize);
                assert!(live.iter().all(|index| *index < n_sockets));
                self.live.insert(port, live);
            }
            ClusterAction::Accept {
                socket,
                n_connections,
            } => {
                for _ in 0..n_connections {
                    self.accept_one(socket);
                }
            }
            ClusterAction::Look { connection } => {
                assert!(self.primary.is_looking(connection));
            }
            ClusterAction::Hung { run, is_hung } => self.hung.push((run, is_hung)),
            ClusterAction::CloseSocket { socket } | ClusterAction::EndSocket { socket } => {
                self.closed(socket);
            }
            ClusterAction::Probed {
                connection,
                is_taken,
            } => self.probed.push((self.probes[&connection], is_taken)),
            ClusterAction::CloseConnection { connection }
                if self.probes.remove(&connection).is_some() => {}
            ClusterAction::CloseConnection { connection } => {
                let client = self.connections.remove(&connection).expect("closed twice");
                if self.clients[&client] == Fate::Held {
                    assert!(!self.deliberate.is_empty(), "client {client} was cut");
                    self.clients.insert(client, Fate::Refused);
                }
            }
            ClusterAction::Send {
                run,
                message,
                carried,
            } => {
                let worker = self
                    .workers
                    .get_mut(&run)
                    .expect("a message to an unknown run");
                if let seq @ Some(_) = seq_of(&message) {
                    assert!(seq > worker.last_seen_seq, "sequence numbers only grow");
                    worker.last_seen_seq = seq;
                }
                if let Carried::Connection(connection) = carried {
                    assert!(
                        self.connections.contains_key(&connection)
                            || self.probes.contains_key(&connection),
                        "a closed connection"
                    );
                }
                worker.inbox.push_back((message, carried));
            }
            ClusterAction::Tell { run, message } => {
                self.workers
                    .get_mut(&run)
                    .expect("an unknown run spoke")
                    .told
                    .push(message);
            }
            ClusterAction::KeepTicket { .. } | ClusterAction::Collected { .. } => {}
        }
    }

    /// The kernel makes the sockets it was asked for.
    pub(super) fn bind_all(&mut self) {
        while let Some((socket, port, joins)) = self.binds.pop_front() {
            let result = if joins && self.joins_fail {
                Err(98)
            } else {
                let made = FakeSocket {
                    port,
                    queue: VecDeque::new(),
                    watched: false,
                    measured: false,
                };
                self.sockets.insert(socket, made);
                let real = u16::try_from(port).unwrap();
                let port = if real == 0 { RANDOM_PORT } else { real };
                Ok(Some(SocketName {
                    address: "::".into(),
                    v6: true,
                    port,
                }))
            };
            let now = self.now;
            self.decide(|primary, out| primary.bound(socket, result, now, out));
        }
    }

    fn closed(&mut self, id: SocketId) {
        let socket = self.sockets.remove(&id).expect("closed twice");
        assert!(
            self.deliberate.contains(&socket.port),
            "a crash closed port {}",
            socket.port
        );
        let others = self.sockets.values().any(|other| other.port == socket.port);
        let used = |w: &FakeWorker| w.open.get(&socket.port).is_some_and(|o| o.1 == Some(id));
        if others && self.workers.values().any(|w| !w.leaving && used(w)) {
            panic!("the socket of a living worker was closed");
        }
        for client in socket.queue {
            self.clients.insert(client, Fate::Refused);
        }
    }
}

fn seq_of(message: &ToWorker) -> Option<u64> {
    match message {
        ToWorker::Refusal { seq, .. }
        | ToWorker::Shared { seq, .. }
        | ToWorker::RoundRobin { seq, .. }
        | ToWorker::Connection { seq, .. }
        | ToWorker::MayLeave { seq, .. } => Some(*seq),
        ToWorker::HandleAck
        | ToWorker::HandleNack
        | ToWorker::SocketsClosed(_)
        | ToWorker::SocketCount(_)
        | ToWorker::Drain { .. }
        | ToWorker::Collect { .. } => None,
    }
}

fn endpoint(port: i32) -> Endpoint {
    Endpoint {
        address: None,
        port,
        kind: Kind::Tcp4,
        index: 0,
    }
}
