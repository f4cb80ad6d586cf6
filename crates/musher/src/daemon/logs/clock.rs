//! The wall clock of log lines.
//!
//! Zone rules are looked up once a second at most; within a second only the
//! milliseconds move. Never used to decide anything.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use musher_core::log::Civil;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the wall clock in the system's time zone (TZ, else /etc/localtime).
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    /// Quarter of an hour the zone was read in: offsets change at such marks, and
    /// an edited /etc/localtime is noticed.
    quarter: i64,
    last: Civil,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock {
            zone: TimeZone::UTC,
            quarter: i64::MIN,
            last: Civil::at(i64::MIN / 2, 0),
        }
    }

    /// Returns the time, in local fields.
    pub(super) fn now(&mut self) -> Civil {
        let unix_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(0),
        };
        let second = unix_ms.div_euclid(1000);
        if second == self.last.unix_ms.div_euclid(1000) {
            self.last.unix_ms = unix_ms;
            self.last.millisecond = unix_ms.rem_euclid(1000) as u16;
            return self.last;
        }
        if second.div_euclid(900) != self.quarter {
            self.quarter = second.div_euclid(900);
            self.zone = TimeZone::system();
        }
        let offset = Timestamp::from_second(second)
            .map_or(0, |instant| self.zone.to_offset(instant).seconds());
        self.last = Civil::at(unix_ms, offset);
        self.last
    }
}
