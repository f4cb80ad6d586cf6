//! What the primary wants done with sockets, connections and channels.

use super::message::{Collected, Endpoint, Key, SocketOptions, ToWorker};
use super::{ConnectionId, SocketId};
use crate::id::Incarnation;
use crate::supervisor::action::AppKey;
use crate::supervisor::event::AppMessage;
use serde_json::Value;

/// Which descriptor travels with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// None.
    Nothing,
    /// A listening socket.
    Socket(SocketId),
    /// A connection.
    Connection(ConnectionId),
    /// One end of a connection nobody uses: a question that needs a
    /// descriptor to be answered.
    Nobody,
}

/// One thing for the balance thread to do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterAction {
    /// Make a socket; answered by [`super::Primary::bound`].
    Bind {
        /// Its id from here on.
        socket: SocketId,
        /// Whose it is.
        app: AppKey,
        /// Which slot of the app it serves.
        slot: u32,
        /// Its index in the group it joins, by order of listen(2); to be given
        /// to [`super::Primary::restore_socket`] if this daemon dies.
        order: Option<u32>,
        /// Where.
        endpoint: Endpoint,
        /// How.
        options: SocketOptions,
        /// The socket whose exact address it shares (SO_REUSEPORT, socket(7)).
        /// `None` binds without it, so that a foreign listener is noticed.
        joins: Option<SocketId>,
    },
    /// Tell, or stop telling, by [`super::Primary::accepted`] what arrives there.
    Watch {
        /// Where.
        socket: SocketId,
        /// Whether.
        on: bool,
    },
    /// Tell, or stop telling, by [`super::Primary::queues`] how many wait there.
    Measure {
        /// Where.
        socket: SocketId,
        /// Whether.
        on: bool,
    },
    /// Let the kernel spread the connections of a group over these of its
    /// sockets only; over all if none is named.
    Spread {
        /// The first socket of the group.
        socket: SocketId,
        /// How many there are.
        n_sockets: u32,
        /// Indices in the order of listen(2), ascending.
        live: Vec<u32>,
    },
    /// Accept up to this many connections here, whoever else accepts.
    Accept {
        /// Where.
        socket: SocketId,
        /// How many.
        n_connections: u32,
    },
    /// A worker's event loop stopped turning, or turns again.
    Hung {
        /// Whose.
        run: Incarnation,
        /// Whether.
        is_hung: bool,
    },
    /// Close musher's copy of a socket some worker may still accept from, and
    /// unlink its path if it has one.
    CloseSocket {
        /// Which.
        socket: SocketId,
    },
    /// As `CloseSocket`, but nobody uses it: take it out of the kernel at once
    /// with shutdown(2), whatever duplicates are kept elsewhere. Otherwise
    /// connections would go on to a queue that nobody empties.
    EndSocket {
        /// Which.
        socket: SocketId,
    },
    /// Look who it is without consuming anything, and tell by
    /// [`super::Primary::looked`]; again when more arrives while
    /// [`super::Primary::is_looking`].
    Look {
        /// At whom.
        connection: ConnectionId,
    },
    /// A worker took the connection of a probe, or refused it.
    Probed {
        /// Which.
        connection: ConnectionId,
        /// Which of the two.
        is_taken: bool,
    },
    /// Close musher's copy of a connection.
    CloseConnection {
        /// Which.
        connection: ConnectionId,
    },
    /// Send a message to a worker.
    Send {
        /// To whom.
        run: Incarnation,
        /// What.
        message: ToWorker,
        /// With which descriptor.
        carried: Carried,
    },
    /// Tell the supervisor what a worker said.
    Tell {
        /// Who.
        run: Incarnation,
        /// What.
        message: AppMessage,
    },
    /// An agent has run the garbage collector.
    Collected {
        /// Whose.
        run: Incarnation,
        /// With what result.
        collected: Collected,
    },
    /// Keep this for a later daemon: TLS ticket keys must outlive restarts, or
    /// every client's session ticket is void.
    KeepTicket {
        /// Whose.
        app: AppKey,
        /// Of which socket.
        key: Key,
        /// What.
        data: Value,
    },
}
