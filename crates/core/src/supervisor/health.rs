//! What the probes of a run have told so far, and when to ask again.
//!
//! The rules are Kubernetes': failures in a row make a run fail, answers in a
//! row make it well, and while a startup probe has not succeeded nothing else
//! is asked. It keeps count and decides nothing about the run.

use crate::app::probe::{Probe, ProbeKind, Probes};
use crate::time::Mono;

/// The order in which probes are looked at.
const KINDS: [ProbeKind; 3] = [
    ProbeKind::Startup,
    ProbeKind::Readiness,
    ProbeKind::Liveness,
];

/// What the probes of one run have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    tracks: [Track; 3],
}

/// What an answer has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// Enough answers in a row: it is well.
    Well,
    /// Enough failures in a row, this one the last; said at each further one.
    Failing(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Track {
    /// When to ask next; `None` while an answer is awaited, or never.
    next: Option<Mono>,
    n_well: u32,
    n_failed: u32,
    state: State,
    last_failure: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Untold,
    Well,
    Failing,
}

impl Health {
    /// Returns the health of a run that was just executed.
    pub fn begin(probes: &Probes, now: Mono) -> Health {
        let mut health = Health::default();
        match &probes.startup {
            Some(probe) if !planted!(StartupOverlooked) => {
                health.schedule(ProbeKind::Startup, probe, now);
            }
            Some(_) => health.begin_others(probes, now),
            None => health.begin_others(probes, now),
        }
        health
    }

    /// Returns the health of a run that is known to have started.
    pub fn resume(probes: &Probes, now: Mono) -> Health {
        let mut health = Health::default();
        health.track_mut(ProbeKind::Startup).state = State::Well;
        health.begin_others(probes, now);
        health
    }

    /// Returns when a question is due next.
    pub fn deadline(&self) -> Option<Mono> {
        self.tracks.iter().filter_map(|track| track.next).min()
    }

    /// Returns the questions that are due; each waits for its answer then.
    pub fn take_due(&mut self, now: Mono) -> Vec<ProbeKind> {
        let mut due = Vec::new();
        for kind in KINDS {
            let track = self.track_mut(kind);
            if track.next.take_if(|at| *at <= now).is_some() {
                due.push(kind);
            }
        }
        due
    }

    /// Takes in an answer.
    pub fn hear(
        &mut self,
        kind: ProbeKind,
        outcome: Result<(), String>,
        probes: &Probes,
        now: Mono,
    ) -> Heard {
        let Some(probe) = probes.get(kind) else {
            return Heard::Nothing;
        };
        let track = self.track_mut(kind);
        track.next = Some(now + probe.period);
        match outcome {
            Ok(()) => {
                track.n_failed = 0;
                track.n_well = track.n_well.saturating_add(1);
                if track.state == State::Well || track.n_well < probe.success_threshold {
                    return Heard::Nothing;
                }
                track.state = State::Well;
                if kind == ProbeKind::Startup {
                    track.next = None;
                    self.begin_others(probes, now);
                }
                Heard::Well
            }
            Err(reason) => {
                track.n_well = 0;
                track.n_failed = track.n_failed.saturating_add(1);
                track.last_failure = Some(reason.clone());
                if track.n_failed < probe.failure_threshold {
                    return Heard::Nothing;
                }
                track.state = State::Failing;
                Heard::Failing(reason)
            }
        }
    }

    /// Returns what is missing for the run to take traffic: the probe, and how
    /// it failed last.
    pub fn owes(&self, probes: &Probes) -> Option<(ProbeKind, Option<&str>)> {
        [ProbeKind::Startup, ProbeKind::Readiness]
            .into_iter()
            .filter(|kind| probes.get(*kind).is_some())
            .map(|kind| (kind, self.track(kind)))
            .find(|(_, track)| track.state != State::Well)
            .map(|(kind, track)| (kind, track.last_failure.as_deref()))
    }

    /// Returns how a probe failed last, if it says that the run is not well.
    pub fn failure(&self, kind: ProbeKind) -> Option<&str> {
        let track = self.track(kind);
        let failure = track.last_failure.as_deref().unwrap_or("no answer");
        (track.state == State::Failing).then_some(failure)
    }

    /// Returns whether any probe says that the run is not well.
    pub fn is_failing(&self) -> bool {
        self.tracks
            .iter()
            .any(|track| track.state == State::Failing)
    }

    fn begin_others(&mut self, probes: &Probes, now: Mono) {
        for kind in [ProbeKind::Readiness, ProbeKind::Liveness] {
            if let Some(probe) = probes.get(kind) {
                self.schedule(kind, probe, now);
            }
        }
    }

    fn schedule(&mut self, kind: ProbeKind, probe: &Probe, now: Mono) {
        self.track_mut(kind).next = Some(now + probe.initial_delay);
    }

    const fn track(&self, kind: ProbeKind) -> &Track {
        &self.tracks[kind as usize]
    }

    const fn track_mut(&mut self, kind: ProbeKind) -> &mut Track {
        &mut self.tracks[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::probe::Check;
    use crate::time::Millis;

    fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
        Probe {
            check: Check::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 1,
            },
            initial_delay: Millis(50),
            period: Millis(100),
            timeout: Millis(10),
            success_threshold,
            failure_threshold,
        }
    }

    fn failed() -> Result<(), String> {
        Err("connection refused".to_owned())
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let probes = Probes {
            readiness: Some(probe(2, 3)),
            ..Probes::default()
        };
        let mut health = Health::begin(&probes, Mono(0));
        let mut hear = |outcome| health.hear(ProbeKind::Readiness, outcome, &probes, Mono(0));
        let failing = Heard::Failing("connection refused".to_owned());
        assert_eq!(hear(Ok(())), Heard::Nothing);
        assert_eq!(hear(failed()), Heard::Nothing);
        assert_eq!(hear(Ok(())), Heard::Nothing);
        assert_eq!(hear(Ok(())), Heard::Well);
        assert_eq!(hear(failed()), Heard::Nothing);
        assert_eq!(hear(failed()), Heard::Nothing);
        assert_eq!(hear(failed()), failing);
        assert_eq!(hear(failed()), failing);
        assert_eq!(hear(Ok(())), Heard::Nothing);
        assert_eq!(hear(Ok(())), Heard::Well);
    }

    #[test]
    fn nothing_else_is_asked_before_the_start_is_over() {
        let probes = Probes {
            startup: Some(probe(1, 30)),
            liveness: Some(probe(1, 3)),
            ..Probes::default()
        };
        let mut health = Health::begin(&probes, Mono(0));
        assert_eq!(health.deadline(), Some(Mono(50)));
        assert_eq!(health.take_due(Mono(49)), []);
        assert_eq!(health.take_due(Mono(50)), [ProbeKind::Startup]);
        assert_eq!(health.deadline(), None, "an answer is awaited");
        health.hear(ProbeKind::Startup, failed(), &probes, Mono(60));
        assert_eq!(health.take_due(Mono(160)), [ProbeKind::Startup]);
        let owed = health.owes(&probes);
        assert_eq!(owed, Some((ProbeKind::Startup, Some("connection refused"))));
        let heard = health.hear(ProbeKind::Startup, Ok(()), &probes, Mono(170));
        assert_eq!(heard, Heard::Well);
        assert_eq!(health.owes(&probes), None);
        assert_eq!(health.take_due(Mono(220)), [ProbeKind::Liveness]);
    }
}
