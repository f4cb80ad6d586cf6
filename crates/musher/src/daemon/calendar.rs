//! Cron expressions in local time, for a supervisor that has no calendar.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use musher_core::supervisor::Calendar;
use musher_core::time::Wall;
use std::cell::RefCell;
use std::collections::HashMap;

/// Parsed expressions kept at once; when full the cache starts over.
const MAX_CACHED: usize = 1024;

/// Evaluates cron expressions with PM2's rules: five fields, or six with
/// seconds first; day-of-month and day-of-week must both match.
pub(crate) struct LocalCalendar {
    zone: TimeZone,
    parsed: RefCell<HashMap<String, Option<Cron>>>,
}

impl LocalCalendar {
    /// Returns a calendar of the system's time zone.
    pub(crate) fn new() -> LocalCalendar {
        LocalCalendar {
            zone: TimeZone::system(),
            parsed: RefCell::default(),
        }
    }
}

/// Parses an expression as the supervisor will.
///
/// # Errors
/// What croner says is wrong with it.
pub(crate) fn parse(pattern: &str) -> Result<Cron, String> {
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .dom_and_dow(true)
        .build();
    parser.parse(pattern).map_err(|error| error.to_string())
}

impl Calendar for LocalCalendar {
    fn next(&self, pattern: &str, after: Wall) -> Option<Wall> {
        let mut parsed = self.parsed.borrow_mut();
        if parsed.len() >= MAX_CACHED {
            parsed.clear();
        }
        let cron = parsed
            .entry(pattern.to_owned())
            .or_insert_with(|| parse(pattern).ok());
        let start = Timestamp::from_millisecond(after.0)
            .ok()?
            .to_zoned(self.zone.clone());
        let next = cron.as_ref()?.find_next_occurrence(&start, false).ok()?;
        Some(Wall(next.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_optional_and_nonsense_has_no_next() {
        let calendar = LocalCalendar::new();
        let minute = calendar.next("* * * * *", Wall(0)).unwrap();
        assert_eq!(minute, Wall(60_000));
        assert_eq!(calendar.next("*/2 * * * * *", Wall(500)), Some(Wall(2000)));
        assert_eq!(calendar.next("every day", Wall(0)), None);
    }

    #[test]
    fn both_day_fields_must_match() {
        let calendar = LocalCalendar {
            zone: TimeZone::UTC,
            parsed: RefCell::default(),
        };
        // 1970-02-13 was the first Friday the 13th after the epoch.
        let next = calendar.next("0 0 13 * 5", Wall(0)).unwrap();
        assert_eq!(next, Wall(43 * 86_400_000));
    }
}
