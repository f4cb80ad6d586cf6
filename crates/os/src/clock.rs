//! The only place that reads the clocks.
//!
//! `musher-core` takes the time as an argument; this is where it comes from.

use musher_core::time::{Mono, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Reads CLOCK_BOOTTIME and CLOCK_REALTIME, both in ms (clock_gettime(2)).
pub fn now() -> Now {
    let boot = milliseconds(clock_gettime(ClockId::Boottime));
    let real = milliseconds(clock_gettime(ClockId::Realtime));
    Now {
        mono: Mono(u64::try_from(boot).unwrap_or(0)),
        wall: Wall(real),
    }
}

fn milliseconds(time: Timespec) -> i64 {
    time.tv_sec
        .saturating_mul(1000)
        .saturating_add(time.tv_nsec / 1_000_000)
}
