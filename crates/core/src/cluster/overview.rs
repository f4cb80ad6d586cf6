//! The plain picture of who serves what, for a person who asks.

use super::message::SocketName;
use super::worker::Stage;
use super::{Primary, SocketId};
use crate::app::{Balance, Sticky};
use crate::id::Incarnation;
use crate::supervisor::action::AppKey;

/// One address an app listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Whose.
    pub app: AppKey,
    /// The app's own words for the address.
    pub key: String,
    /// Where it is bound; `None` for Unix sockets.
    pub name: Option<SocketName>,
    /// Its sockets, by slot.
    pub sockets: Vec<(u32, SocketId)>,
    /// The socket that listened first, if more than one share the address.
    pub first: Option<SocketId>,
    /// How connections are spread, as the newest worker has it.
    pub balance: Balance,
    /// What ties a client to a worker.
    pub sticky: Option<Sticky>,
    /// Who listens, by slot.
    pub workers: Vec<Serving>,
}

/// One worker that listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Which.
    pub run: Incarnation,
    /// Its slot.
    pub slot: u32,
    /// The socket it accepts from; `None` if connections are handed to it.
    pub socket: Option<SocketId>,
    /// Connections musher has handed to it in its life under this daemon.
    pub n_given: u64,
    /// Connections handed to it and not yet answered.
    pub n_unanswered: usize,
    /// Whether it gets connections.
    pub state: ServingState,
}

/// Whether a worker gets connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// It does.
    Live,
    /// It was taken out of balancing.
    Suspended,
    /// Its event loop does not turn.
    Hung,
    /// It is on its way out.
    Leaving,
}

impl ServingState {
    /// Returns the word that is shown.
    pub const fn word(self) -> &'static str {
        match self {
            ServingState::Live => "live",
            ServingState::Suspended => "suspended",
            ServingState::Hung => "hung",
            ServingState::Leaving => "leaving",
        }
    }
}

impl Primary {
    /// Returns every address with its sockets and workers, oldest first.
    pub fn overview(&self) -> Vec<Served> {
        let served = |(id, group): (&super::GroupId, &super::group::Group)| {
            let workers = group.members.iter().filter_map(|(slot, run)| {
                let worker = self.workers.get(run)?;
                let state = match worker.stage {
                    Stage::Serving if worker.pulse.is_hung => ServingState::Hung,
                    Stage::Serving if worker.suspended => ServingState::Suspended,
                    Stage::Serving => ServingState::Live,
                    Stage::Detached | Stage::Leaving => ServingState::Leaving,
                };
                Some(Serving {
                    run: *run,
                    slot: *slot,
                    socket: worker.open.get(id)?.direct,
                    n_given: worker.n_given,
                    n_unanswered: worker.unacked.len(),
                    state,
                })
            });
            let sockets = group.sockets.iter();
            let newest = group.members.iter().map(|(_, run)| run).max();
            let newest = newest.and_then(|run| self.workers.get(run));
            Served {
                balance: newest.map_or(Balance::default(), |worker| worker.balance),
                sticky: group.sticky.clone(),
                app: group.app.clone(),
                key: group.key.0.clone(),
                name: group.name.clone(),
                sockets: sockets.map(|(slot, held)| (*slot, held.socket)).collect(),
                first: group.first_of_all().filter(|_| group.sockets.len() > 1),
                workers: workers.collect(),
            }
        };
        self.groups.iter().map(served).collect()
    }
}
