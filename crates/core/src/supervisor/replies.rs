//! Open requests: each is answered exactly once, when its last process is settled.

use super::action::Action;
use super::request::{Reply, RequestError};
use crate::id::{PmId, RequestId};
use crate::view::ProcessView;
use std::collections::BTreeMap;

/// Requests that wait for processes.
#[derive(Debug, Default)]
pub struct Requests {
    open: BTreeMap<RequestId, Open>,
    parts: BTreeMap<RequestId, (RequestId, PmId)>,
    settled: Vec<SettledPart>,
    n_parts: u64,
}

/// A part of a roll that is settled: the roll, the process, what became of it.
pub type SettledPart = (RequestId, PmId, Result<ProcessView, RequestError>);

/// Ids of parts are above those of clients, which count from 1.
const FIRST_PART: u64 = 1 << 63;

/// How an answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// [`Reply::Processes`].
    Many,
    /// [`Reply::Process`].
    One,
}

#[derive(Debug)]
struct Open {
    shape: Shape,
    n_unsettled: usize,
    views: Vec<ProcessView>,
    error: Option<RequestError>,
}

impl Requests {
    /// Registers a request that waits for `n_processes`, at least one.
    pub fn open(&mut self, id: RequestId, shape: Shape, n_processes: usize) {
        debug_assert!(n_processes > 0);
        let open = Open {
            shape,
            n_unsettled: n_processes,
            views: Vec::with_capacity(n_processes),
            error: None,
        };
        self.open.insert(id, open);
    }

    /// Books what became of one process of a request; answers with the last one.
    ///
    /// The first error decides the answer. An abandoned request is ignored.
    pub fn settle(
        &mut self,
        id: RequestId,
        outcome: Result<ProcessView, RequestError>,
        out: &mut Vec<Action>,
    ) {
        if let Some((roll, pm_id)) = self.parts.remove(&id) {
            self.settled.push((roll, pm_id, outcome));
            return;
        }
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        match outcome {
            Ok(view) => open.views.push(view),
            Err(error) => {
                open.error.get_or_insert(error);
            }
        }
        open.n_unsettled -= 1;
        if open.n_unsettled > 0 {
            return;
        }
        if let Some(open) = self.open.remove(&id) {
            out.push(Action::Reply(id, open.answer()));
        }
    }

    /// Returns a request of the supervisor's own: one process of a roll.
    pub fn open_part(&mut self, roll: RequestId, pm_id: PmId) -> RequestId {
        let id = RequestId(FIRST_PART + self.n_parts);
        self.n_parts += 1;
        self.parts.insert(id, (roll, pm_id));
        id
    }

    /// Takes the parts settled since the last call.
    pub fn take_parts(&mut self) -> Vec<SettledPart> {
        std::mem::take(&mut self.settled)
    }

    /// Forgets a request whose client is gone.
    pub fn abandon(&mut self, id: RequestId) {
        self.open.remove(&id);
    }

    /// Returns how many requests are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns whether no request is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Open {
    fn answer(mut self) -> Result<Reply, RequestError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.views.sort_by_key(|view| view.pm_id);
        match self.shape {
            Shape::Many => Ok(Reply::Processes(self.views)),
            Shape::One => match self.views.pop() {
                Some(view) => Ok(Reply::Process(Box::new(view))),
                None => Ok(Reply::Done),
            },
        }
    }
}
