//! The restart policy: one small pure function, after OTP's `do_restart`.
//!
//! The rules are PM2's crash-loop rules, so that an app that gave up under PM2
//! gives up here at the same count. Nothing here starts or stops anything.

use crate::app::RestartPolicy;
use crate::exit::ExitStatus;
use crate::supervisor::event::SpawnFailure;
use crate::time::{Millis, Mono, Wall};

/// PM2 caps the exponential back-off at 15 s.
pub const BACKOFF_CAP: Millis = Millis(15_000);
/// A run longer than this resets the back-off; PM2's EXP_BACKOFF_RESET_TIMER.
pub const BACKOFF_RESET: Millis = Millis(30_000);

/// Between two tries of a start for which the machine lacks something. A slot
/// that is young gives up after `max_restarts` of them, an old one never.
pub const SHORTAGE_PAUSE: Millis = Millis(1000);

/// What a process slot remembers of its runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Restarts as PM2 counts them.
    pub restart_time: u32,
    /// Unstable runs since the last reset.
    pub unstable_restarts: u32,
    /// First launch or last explicit restart; `None` after giving up.
    pub created: Option<(Mono, Wall)>,
    /// When the newest run was spawned.
    pub started_at: Wall,
    /// Back-off in force.
    pub prev_delay: Option<Millis>,
    /// How the last run ended.
    pub last_exit: Option<ExitStatus>,
}

/// How a run ended, seen by the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process ran and ended.
    Exited(ExitStatus),
    /// The process never came to be.
    SpawnFailed(SpawnFailure),
}

/// What to do about a run that ended without being asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after this delay; 0 is at once.
    Restart {
        /// How long to wait.
        after: Millis,
    },
    /// Leave it stopped.
    Stop,
    /// Leave it errored: it failed too often, or cannot be started at all.
    GiveUp,
}

/// Decides about one ending and books it in `history`.
///
/// `started` is when the run was spawned.
pub fn verdict(
    policy: &RestartPolicy,
    history: &mut History,
    ending: Ending,
    started: Mono,
    now: Mono,
) -> Verdict {
    let uptime = now.since(started);
    if uptime > BACKOFF_RESET {
        history.prev_delay = None;
    }
    match ending {
        Ending::Exited(status) => history.last_exit = Some(status),
        Ending::SpawnFailed(SpawnFailure::Permanent) => return give_up(history),
        Ending::SpawnFailed(SpawnFailure::Transient) => {}
    }
    if !policy.autorestart || wants_no_restart(policy, ending) {
        return Verdict::Stop;
    }
    if is_unstable(policy, history, uptime, now) {
        history.unstable_restarts += 1;
    }
    if history.unstable_restarts >= policy.max_restarts {
        return give_up(history);
    }
    let declared = delay(policy, history);
    let after = match ending {
        Ending::Exited(_) => declared,
        Ending::SpawnFailed(_) => declared.max(SHORTAGE_PAUSE),
    };
    Verdict::Restart { after }
}

fn give_up(history: &mut History) -> Verdict {
    history.unstable_restarts = 0;
    history.created = None;
    Verdict::GiveUp
}

fn wants_no_restart(policy: &RestartPolicy, ending: Ending) -> bool {
    if planted!(StopCodesIgnored) {
        return false;
    }
    match ending {
        Ending::Exited(ExitStatus::Code(code)) => policy.stop_exit_codes.contains(&code),
        // PM2 reports 0 for a signal, so `stop_exit_codes: [0]` would also match a
        // SIGKILL there; a killed process did not choose its code.
        Ending::Exited(ExitStatus::Signal(_) | ExitStatus::Unknown) | Ending::SpawnFailed(_) => {
            false
        }
    }
}

/// PM2 counts a run as unstable when it was short *and* the slot is young:
/// within `min_uptime * max_restarts` of its creation.
fn is_unstable(policy: &RestartPolicy, history: &History, uptime: Millis, now: Mono) -> bool {
    let window = policy
        .min_uptime
        .get()
        .saturating_mul(u64::from(policy.max_restarts));
    let young = history
        .created
        .is_some_and(|(created, _)| now.since(created).get() < window);
    (young || planted!(WindowIgnored)) && uptime < policy.min_uptime
}

fn delay(policy: &RestartPolicy, history: &mut History) -> Millis {
    if let Some(first) = policy.exp_backoff {
        let next = match history.prev_delay {
            None => first,
            Some(previous) if planted!(BackoffUncapped) => Millis(previous.get() * 3 / 2),
            // PM2: floor(min(15000, previous * 1.5)).
            Some(previous) => Millis((previous.get().saturating_mul(3) / 2).min(BACKOFF_CAP.get())),
        };
        history.prev_delay = Some(next);
        return next;
    }
    policy.restart_delay.unwrap_or_default()
}
