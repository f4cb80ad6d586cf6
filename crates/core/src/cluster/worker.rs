//! What the primary remembers of one child.

use super::queues::Pulse;
use super::{ConnectionId, GroupId, SocketId};
use crate::app::{Balance, Sticky};
use crate::supervisor::action::{AppKey, Channel};
use crate::time::{Millis, Mono};
use std::collections::{BTreeMap, VecDeque};

/// Connections a worker of a round-robin app may have unanswered.
pub(super) const WINDOW: usize = 64;

/// The same for a worker that accepts by itself: a whole orphaned queue pushed
/// at it would wait behind its own, measured at 2.5 s against 1 s.
pub(super) const WINDOW_BESIDE_OWN: usize = 1;

/// Patience before a lost listening socket is sent again.
pub(super) const RESEND_AFTER: Millis = Millis(100);

/// How often a lost listening socket is sent before the query is refused.
pub(super) const RESEND_LIMIT: u32 = 20;

/// How far a child is on its way out; only forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It gets connections.
    Serving,
    /// It gets none from musher.
    Detached,
    /// It said that it will leave.
    Leaving,
}

/// A key a worker has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// The socket it accepts from; `None` when connections are handed over.
    pub(super) direct: Option<SocketId>,
    /// It said that it listens.
    pub(super) listening: bool,
}

/// A descriptor sent and not yet acknowledged by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A connection, by its sequence number.
    Connection { seq: u64 },
    /// A question whether the event loop turns.
    Ping,
    /// A socket in answer to a query.
    Socket {
        group: GroupId,
        ack: u64,
        tries: u32,
    },
}

/// One child with a channel.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) app: AppKey,
    pub(super) slot: u32,
    pub(super) balance: Balance,
    pub(super) sticky: Option<Sticky>,
    pub(super) channel: Channel,
    pub(super) stage: Stage,
    pub(super) open: BTreeMap<GroupId, Open>,
    /// Connections handed over and not answered, by sequence number.
    pub(super) unacked: BTreeMap<u64, ConnectionId>,
    /// The same of probes.
    pub(super) probes: BTreeMap<u64, ConnectionId>,
    /// Descriptors sent and not acknowledged: the answers carry no id, so
    /// their order is all there is.
    pub(super) sent: VecDeque<Sent>,
    /// Taken out of balancing although it lives.
    pub(super) suspended: bool,
    /// Whether its event loop turns, as far as was asked.
    pub(super) pulse: Pulse,
    /// Connections handed over and accepted.
    pub(super) n_given: u64,
    /// Listening sockets that did not arrive, and when to send them again.
    pub(super) lost: Vec<(Mono, Sent)>,
    seq: u64,
}

impl Worker {
    pub(super) fn new(
        app: AppKey,
        slot: u32,
        balance: Balance,
        channel: Channel,
        first_seq: u64,
    ) -> Worker {
        Worker {
            app,
            slot,
            balance,
            sticky: None,
            channel,
            stage: Stage::Serving,
            open: BTreeMap::new(),
            unacked: BTreeMap::new(),
            probes: BTreeMap::new(),
            sent: VecDeque::new(),
            suspended: false,
            pulse: Pulse::default(),
            n_given: 0,
            lost: Vec::new(),
            seq: first_seq,
        }
    }

    /// Returns the next sequence number.
    pub(super) fn take_seq(&mut self) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        seq
    }

    /// True if it may get connections at all.
    pub(super) fn takes(&self) -> bool {
        self.stage == Stage::Serving && !self.suspended && !self.pulse.is_hung
    }

    /// Returns how many more connections of this group it may have unanswered.
    pub(super) fn room(&self, group: GroupId) -> usize {
        let Some(open) = self.open.get(&group) else {
            return 0;
        };
        if !self.takes() || !open.listening {
            return 0;
        }
        let window = match open.direct {
            Some(_) => WINDOW_BESIDE_OWN,
            None => WINDOW,
        };
        window.saturating_sub(self.unacked.len())
    }
}
