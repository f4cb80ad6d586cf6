//! What leaves the log thread: texts, reports of loss, and the end of runs.
//!
//! A subscriber that does not keep up loses text and is told how much; the files
//! and the apps never notice. The end of a run is never dropped: it waits here
//! until the daemon takes it.

use super::{LogEvent, LossReason, Shared, Sink};
use bytes::Bytes;
use musher_core::id::{Incarnation, PmId};
use musher_core::log::Stream;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of text that may be under way to subscribers.
pub(super) const SUBSCRIBED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Between two reports of the same loss.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The way out of the log thread.
pub(super) struct Outlet {
    sink: Sink,
    shared: Arc<Shared>,
    /// Bytes of texts that somebody still holds.
    n_under_way: Arc<AtomicUsize>,
    /// Runs whose end the sink has not taken; one entry per run.
    drained: VecDeque<Incarnation>,
}

/// Whose text it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) run: Incarnation,
    pub(super) pm_id: PmId,
    pub(super) stream: Stream,
}

/// Between two offers of a report that was not taken.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// Output of one stream that did not arrive and is not reported yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// To subscribers.
    n_missed: u64,
    /// To files.
    n_unwritten: u64,
    /// Path and error of the last failed write.
    error: String,
    state: State,
    reported_at: Option<Instant>,
}

/// How the last writes of a stream went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Fine,
    Failing,
    /// The first write after a failure worked.
    Recovered,
}

/// A text that counts as under way until the last clone is dropped.
struct Counted {
    text: Box<[u8]>,
    n_under_way: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.n_under_way
            .fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

impl Losses {
    /// Notes that a file failed; `error` names path and reason.
    pub(super) fn failed(&mut self, error: String) {
        self.state = State::Failing;
        self.error = error;
    }

    /// Notes that every file took what it was given.
    pub(super) fn succeeded(&mut self) {
        self.state = match self.state {
            State::Failing => State::Recovered,
            State::Fine | State::Recovered => State::Fine,
        };
    }

    /// Returns when there will be something to report, output or none.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.n_missed > 0 {
            return Some(now + OFFER_AGAIN);
        }
        if self.n_unwritten == 0 {
            return None;
        }
        let due_at = self.reported_at.map_or(now, |at| at + REPORT_EVERY);
        Some(due_at.max(now + OFFER_AGAIN))
    }
}

impl Outlet {
    pub(super) fn new(sink: Sink, shared: Arc<Shared>) -> Outlet {
        Outlet {
            sink,
            shared,
            n_under_way: Arc::default(),
            drained: VecDeque::new(),
        }
    }

    /// Returns true when texts are wanted.
    pub(super) fn is_subscribed(&self) -> bool {
        self.shared.n_subscribers.load(Ordering::Relaxed) > 0
    }

    /// Offers a text to the subscribers.
    pub(super) fn text(&mut self, origin: Origin, text: &[u8], at_ms: i64, losses: &mut Losses) {
        if !self.is_subscribed() {
            losses.n_missed = 0;
            return;
        }
        if text.is_empty() {
            return;
        }
        if !self.offer(origin, text, at_ms, losses) {
            losses.n_missed += text.len() as u64;
        }
    }

    fn offer(&mut self, origin: Origin, text: &[u8], at_ms: i64, losses: &mut Losses) -> bool {
        if losses.n_missed > 0 && !(self.has_room() && self.report_gap(origin.pm_id, losses)) {
            return false;
        }
        if self.n_under_way.load(Ordering::Relaxed) + text.len() > SUBSCRIBED_MAX_BYTES {
            return false;
        }
        self.n_under_way.fetch_add(text.len(), Ordering::Relaxed);
        let counted = Counted {
            text: text.into(),
            n_under_way: Arc::clone(&self.n_under_way),
        };
        let event = LogEvent::Text {
            pm_id: origin.pm_id,
            stream: origin.stream,
            text: Bytes::from_owner(counted),
            at_ms,
        };
        (self.sink)(event).is_ok()
    }

    /// Returns true when a gap may end: half of the room is free again, so that
    /// many small gaps make one report.
    fn has_room(&self) -> bool {
        self.n_under_way.load(Ordering::Relaxed) <= SUBSCRIBED_MAX_BYTES / 2
    }

    /// Notes bytes that did not get into a file.
    pub(super) fn unwritten(&self, losses: &mut Losses, n_bytes: usize) {
        let lost = n_bytes as u64;
        self.shared.lost_bytes.fetch_add(lost, Ordering::Relaxed);
        losses.n_unwritten += lost;
    }

    /// Reports what files lost: at once, then once a minute, and when writing
    /// works again; and what subscribers missed, once they have room.
    pub(super) fn report(&mut self, pm_id: PmId, losses: &mut Losses, now: Instant) {
        if !self.is_subscribed() {
            losses.n_missed = 0;
        }
        if losses.n_missed > 0 && self.has_room() {
            self.report_gap(pm_id, losses);
        }
        let due = match losses.state {
            State::Recovered => true,
            State::Fine | State::Failing => losses
                .reported_at
                .is_none_or(|at| now.duration_since(at) >= REPORT_EVERY),
        };
        if losses.n_unwritten > 0 && due {
            self.report_file_loss(pm_id, losses, now);
        }
    }

    /// Reports everything that is left to report of a stream that ends.
    pub(super) fn report_rest(&mut self, pm_id: PmId, losses: &mut Losses, now: Instant) {
        if losses.n_unwritten > 0 {
            self.report_file_loss(pm_id, losses, now);
        }
        if losses.n_missed > 0 && self.is_subscribed() {
            self.report_gap(pm_id, losses);
        }
    }

    fn report_file_loss(&mut self, pm_id: PmId, losses: &mut Losses, now: Instant) {
        let lost = LogEvent::Lost {
            pm_id,
            bytes: losses.n_unwritten,
            reason: LossReason::File(losses.error.clone()),
        };
        if (self.sink)(lost).is_ok() {
            losses.n_unwritten = 0;
            losses.reported_at = Some(now);
        }
    }

    /// Returns true when the sink took the report.
    fn report_gap(&mut self, pm_id: PmId, losses: &mut Losses) -> bool {
        let gap = LogEvent::Lost {
            pm_id,
            bytes: losses.n_missed,
            reason: LossReason::Subscriber,
        };
        if (self.sink)(gap).is_err() {
            return false;
        }
        losses.n_missed = 0;
        true
    }

    /// Says that a run is over.
    pub(super) fn drained(&mut self, run: Incarnation) {
        self.drained.push_back(run);
        self.flush();
    }

    /// Hands over the ends of runs that wait. Returns true when none is left.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(run) = self.drained.pop_front() {
            if (self.sink)(LogEvent::Drained { run }).is_err() {
                self.drained.push_front(run);
                return false;
            }
        }
        true
    }
}
