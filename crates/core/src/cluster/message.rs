//! The messages of Node's cluster protocol as types.
//!
//! [`super::Primary`] decides on these; `wire::node_ipc` turns them into the
//! JSON lines that Node 18 to 24 speak and back. Nothing here knows bytes.

use crate::app::Upgraded;
use crate::supervisor::event::Drained;
use crate::time::Millis;
use serde_json::{Map, Value};
use std::fmt;

/// Names a listening socket towards the workers; opaque to Node, unique among
/// a worker's open handles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of socket an app asked for; Node's `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `4`: TCP. Without an address it means dual-stack `::`.
    Tcp4,
    /// `6`: TCP over IPv6.
    Tcp6,
    /// `-1`: a stream socket in the Unix domain.
    Pipe,
    /// `"udp4"`.
    Udp4,
    /// `"udp6"`.
    Udp6,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Tcp4, Kind::Tcp6, Kind::Pipe, Kind::Udp4, Kind::Udp6];

    /// Returns Node's word for the kind, as it stands in a key.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Tcp4 => "4",
            Kind::Tcp6 => "6",
            Kind::Pipe => "-1",
            Kind::Udp4 => "udp4",
            Kind::Udp6 => "udp6",
        }
    }

    /// Returns the kind of Node's word.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// True for datagram sockets, which are shared and never accepted from.
    pub const fn is_datagram(self) -> bool {
        match self {
            Kind::Udp4 | Kind::Udp6 => true,
            Kind::Tcp4 | Kind::Tcp6 | Kind::Pipe => false,
        }
    }

    /// True for TCP, the only kind whose connections the kernel can spread
    /// over several sockets without changing what the app sees.
    pub const fn is_tcp(self) -> bool {
        match self {
            Kind::Tcp4 | Kind::Tcp6 => true,
            Kind::Pipe | Kind::Udp4 | Kind::Udp6 => false,
        }
    }
}

/// What an app listens on, in Node's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address, Unix path, or `None` for every address.
    pub address: Option<String>,
    /// Port, 0 for any; -1 for a Unix path.
    pub port: i32,
    /// What kind of socket.
    pub kind: Kind,
    /// Which of a worker's listens on the same address; tells one random port
    /// from the next.
    pub index: u32,
}

impl Endpoint {
    /// Returns `address:port:type:undefined`, with `:index` for a random port:
    /// each worker's first `listen(0)` shares one port, the second another.
    pub fn key(&self) -> Key {
        let address = self.address.as_deref().unwrap_or("null");
        let base = format!("{address}:{}:{}:undefined", self.port, self.kind.word());
        match self.port {
            0 => Key(format!("{base}:{}", self.index)),
            _ => Key(base),
        }
    }

    /// Returns the endpoint of a key made by [`Endpoint::key`].
    pub fn parse(key: &str) -> Option<Endpoint> {
        let (index, base) = match key.strip_suffix(":undefined") {
            Some(base) => (0, base),
            None => {
                let (rest, index) = key.rsplit_once(':')?;
                (index.parse().ok()?, rest.strip_suffix(":undefined")?)
            }
        };
        let (rest, kind) = base.rsplit_once(':')?;
        let (address, port) = rest.rsplit_once(':')?;
        Some(Endpoint {
            address: (address != "null").then(|| address.to_owned()),
            port: port.parse().ok()?,
            kind: Kind::parse(kind)?,
            index,
        })
    }
}

/// How a socket is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// IPv6 only, no IPv4-mapped addresses.
    pub v6_only: bool,
    /// SO_REUSEADDR for datagram sockets; TCP always has it.
    pub reuse_addr: bool,
    /// Length of the accept queue; already at least 1.
    pub backlog: i32,
    /// A Unix socket everyone may read.
    pub readable_all: bool,
    /// A Unix socket everyone may write.
    pub writable_all: bool,
}

/// A worker's request for a socket; it must be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What the answer has to carry as `ack`.
    pub seq: u64,
    /// On what, or `None` for something musher does not have: a descriptor of
    /// the primary, an unknown address type.
    pub endpoint: Option<Endpoint>,
    /// How.
    pub options: SocketOptions,
    /// Null, or the TLS ticket keys of this worker.
    pub data: Value,
}

/// What a worker says to the primary.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// The runtime is up; no user code has run.
    Online,
    /// The app called `listen()` or `bind()`.
    Query(Query),
    /// The server listens; the port is the real one.
    Listening(Endpoint),
    /// The server of this key was closed by the app.
    Close(Key),
    /// The worker will leave by itself; it waits for an answer.
    Leaving {
        /// What the answer has to carry as `ack`.
        seq: u64,
    },
    /// The answer to a connection that was handed over.
    Verdict {
        /// Sequence number of the hand-over.
        ack: u64,
        /// False: the worker closed its copy and did nothing with it.
        accepted: bool,
    },
    /// A message with a descriptor; answered at once, because a Node sender
    /// holds everything else back until then.
    Handle,
    /// The oldest descriptor sent to this worker has arrived.
    HandleAck,
    /// The oldest descriptor sent to this worker did not arrive (EMFILE).
    HandleNack,
    /// A user-level server asks to be told when its sockets are closed.
    SocketsClosedQuery(Value),
    /// A user-level server asks how many sockets are open.
    SocketCountQuery(Value),
    /// The agent is in the process.
    AgentUp {
        /// Node's version, without `v`.
        node_version: String,
    },
    /// The agent's figures, as PM2's metrics.
    Metrics(Map<String, Value>),
    /// The agent has finished a drain.
    Drained(Drained),
    /// The agent gives a connection back that came in at this [`Place`];
    /// carries a descriptor and is answered as a [`FromWorker::Handle`].
    HandOver(Place),
    /// The agent has run the garbage collector.
    Collected(Collected),
    /// Internal to Node, of no interest.
    Other,
}

/// Where a connection came in, in the words of an agent, which knows no keys:
/// `address:port:type` with the real port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub String);

/// What a run of the garbage collector gave, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What the request carried as `id`.
    pub id: u64,
    /// Used heap before and after.
    pub heap: (u64, u64),
    /// Resident memory before and after.
    pub rss: (u64, u64),
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketName {
    /// IP address.
    pub address: String,
    /// True for IPv6.
    pub v6: bool,
    /// Port.
    pub port: u16,
}

/// What the primary says to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// A query failed.
    Refusal {
        /// The query.
        ack: u64,
        /// Own sequence number.
        seq: u64,
        /// Positive Linux errno; Node gets it negated.
        errno: i32,
        /// A key no open handle has.
        key: Key,
    },
    /// Answer (b) of a query: here is the socket, accept from it. Carries a
    /// descriptor.
    Shared {
        /// The query.
        ack: u64,
        /// Own sequence number.
        seq: u64,
        /// The socket's key.
        key: Key,
        /// What kind of descriptor travels along.
        kind: Kind,
        /// TLS ticket keys of the first worker, or null.
        data: Value,
    },
    /// Answer (a) of a query: connections will be handed over.
    RoundRobin {
        /// The query.
        ack: u64,
        /// Own sequence number.
        seq: u64,
        /// The socket's key.
        key: Key,
        /// TLS ticket keys of the first worker, or null.
        data: Value,
        /// Where the socket is bound; `None` for Unix sockets.
        name: Option<SocketName>,
    },
    /// Here is a connection. Carries a descriptor.
    Connection {
        /// Own sequence number; the verdict carries it.
        seq: u64,
        /// The key of the socket it came in by.
        key: Key,
        /// What kind of descriptor travels along.
        kind: Kind,
    },
    /// The answer to [`FromWorker::Leaving`].
    MayLeave {
        /// The request.
        ack: u64,
        /// Own sequence number.
        seq: u64,
    },
    /// The descriptor arrived.
    HandleAck,
    /// No descriptor arrived.
    HandleNack,
    /// The answer to [`FromWorker::SocketsClosedQuery`].
    SocketsClosed(Value),
    /// The answer to [`FromWorker::SocketCountQuery`]: none, musher keeps no
    /// user-level sockets.
    SocketCount(Value),
    /// To the agent: finish what was accepted, accept nothing more.
    Drain {
        /// When it gives up, from here.
        limit: Millis,
        /// What happens to upgraded connections.
        websockets: Upgraded,
        /// Where another worker listens: connections that came in there can be
        /// handed over.
        places: Vec<Place>,
    },
    /// To the agent: run the garbage collector.
    Collect {
        /// The answer carries it.
        id: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_gives_its_endpoint_back(
            address in prop::option::of("[a-z0-9:./%_-]{1,40}"),
            port in -1..65536i32,
            kind in prop::sample::select(Kind::ALL.to_vec()),
            index in 0..9u32,
        ) {
            prop_assume!(address.as_deref() != Some("null"));
            let index = if port == 0 { index } else { 0 };
            let endpoint = Endpoint { address, port, kind, index };
            prop_assert_eq!(Endpoint::parse(&endpoint.key().0), Some(endpoint));
        }
    }
}
