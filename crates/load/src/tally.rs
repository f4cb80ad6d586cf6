//! What one client counted; the sum of all is what the program prints.

use crate::wire::Fault;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Failures told in full; of the others there is the count.
const MAX_SAMPLES: usize = 8;
/// Different bodies remembered: pids, in the suites.
const MAX_BODIES: usize = 64;

/// Counts of one client or of all.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) n_requests: u64,
    /// Connections opened because the one before had ended with nothing under way.
    pub(crate) n_reconnects: u64,
    /// Messages sent again because a WebSocket was closed by the book before the echo.
    pub(crate) n_resent: u64,
    pub(crate) has_just_failed: bool,
    n_ok: u64,
    slowest: Duration,
    failures: BTreeMap<&'static str, u64>,
    samples: Vec<String>,
    /// When each body was first seen, in ms since the epoch.
    bodies: BTreeMap<String, f64>,
}

fn epoch_ms() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64() * 1000.0
}

impl Tally {
    pub(crate) fn answered(&mut self, after: Duration) {
        self.has_just_failed = false;
        self.n_ok += 1;
        self.slowest = self.slowest.max(after);
    }

    pub(crate) fn failed(&mut self, fault: &Fault, client: u64) {
        self.has_just_failed = true;
        *self.failures.entry(fault.kind()).or_default() += 1;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(format!(
                "{:.3} client {client}: {fault}",
                epoch_ms() / 1000.0
            ));
        }
    }

    /// Remembers who answered, when it is somebody who had not before.
    pub(crate) fn saw(&mut self, body: &str) {
        if self.bodies.len() < MAX_BODIES && !self.bodies.contains_key(body) {
            self.bodies.insert(body.to_owned(), epoch_ms());
        }
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.n_requests += other.n_requests;
        self.n_reconnects += other.n_reconnects;
        self.n_resent += other.n_resent;
        self.n_ok += other.n_ok;
        self.slowest = self.slowest.max(other.slowest);
        for (kind, n) in &other.failures {
            *self.failures.entry(kind).or_default() += n;
        }
        let room = MAX_SAMPLES.saturating_sub(self.samples.len());
        self.samples
            .extend(other.samples.iter().take(room).cloned());
        for (body, at) in &other.bodies {
            let first = self.bodies.entry(body.clone()).or_insert(*at);
            *first = first.min(*at);
        }
    }

    /// Returns one object; `failed` is the sum of `failures`, times are in ms.
    pub(crate) fn to_json(&self, elapsed: Duration) -> Value {
        json!({
            "requests": self.n_requests,
            "ok": self.n_ok,
            "failed": self.failures.values().sum::<u64>(),
            "failures": self.failures,
            "reconnects": self.n_reconnects,
            "resent": self.n_resent,
            "slowest_ms": self.slowest.as_secs_f64() * 1000.0,
            "seconds": elapsed.as_secs_f64(),
            "samples": self.samples,
            "bodies": self.bodies,
        })
    }
}
