//! What environment variables set for the whole daemon, read once.

use super::journal;
use crate::agent;
use crate::paths::Paths;
use musher_core::app::description::Defaults;
use musher_core::exit::Signal;
use musher_core::supervisor::Settings;
use musher_core::time::Millis;
use std::str::FromStr;
use std::time::Duration;

/// Processes one daemon supervises at most.
pub(crate) const MAX_PROCESSES: u32 = 4096;

/// How long nobody calls before the memory of a burst is given back.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

/// SIGUSR2: open every log file anew.
pub(crate) const SIGUSR2: Signal = Signal(12);

/// Signals the daemon answers; SIGHUP is taken and ignored.
pub(crate) const SIGNALS: [Signal; 5] = [Signal::TERM, Signal::INT, Signal(3), SIGUSR2, Signal(1)];

/// Returns how often memory is looked at: `PM2_WORKER_INTERVAL`, ms.
pub(crate) fn worker_interval() -> Duration {
    Duration::from_millis(number("PM2_WORKER_INTERVAL").unwrap_or(30_000).max(10))
}

/// Returns whether runs may have control groups of their own:
/// `MUSHER_CGROUPS=off` says no.
pub(crate) fn control_groups() -> bool {
    std::env::var("MUSHER_CGROUPS").as_deref() != Ok("off")
}

/// Returns the supervisor's bounds and the defaults of app attributes.
/// Apps are started without the agent if it cannot be put into the home.
pub(crate) fn supervisor(paths: &Paths) -> Settings {
    let agent = agent::install(paths).inspect_err(|error| {
        journal::error(&format!("apps are started without the agent: {error}"));
    });
    Settings {
        max_processes: MAX_PROCESSES,
        defaults: defaults(),
        agent: agent.ok(),
    }
}

/// Returns what a description leaves to the daemon, with a fresh unique id.
pub(crate) fn defaults() -> Defaults {
    let kill_signal = std::env::var("PM2_KILL_SIGNAL").ok();
    Defaults {
        kill_signal: kill_signal
            .and_then(|name| Signal::parse(&name))
            .unwrap_or(Signal::INT),
        kill_timeout: Millis(number("PM2_KILL_TIMEOUT").unwrap_or(1600)),
        listen_timeout: Millis(number("PM2_GRACEFUL_LISTEN_TIMEOUT").unwrap_or(3000)),
        kill_with_message: std::env::var("PM2_KILL_USE_MESSAGE").is_ok_and(|set| !set.is_empty()),
        cpu_count: musher_os::stats::cpu_count(),
        unique_id: unique_id(),
    }
}

/// Returns a random UUID; the kernel makes it (random(4)).
pub(crate) fn unique_id() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    uuid.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn number<T: FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.trim().parse().ok()
}
