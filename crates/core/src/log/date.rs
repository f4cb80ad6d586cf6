//! day.js date formats, as in `log_date_format`.
//!
//! A format is compiled once and written many times: two hundred thousand lines
//! a second carry a prefix. The time zone is data of the caller (an offset), so
//! that the formatter needs no zone database and no clock.

use std::io::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const DAY_SECONDS: i64 = 86_400;

/// One instant as a calendar and a clock on the wall show it (proleptic
/// Gregorian calendar, no leap seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// Seconds east of UTC that the other fields are shown in.
    pub offset_seconds: i32,
    /// Year.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Millisecond, 0 to 999.
    pub millisecond: u16,
    /// Day of the week, 0 is Sunday.
    pub weekday: u8,
}

/// A compiled day.js format.
///
/// Known tokens: `YYYY YY M MM MMM MMMM D DD d dd ddd dddd H HH h hh a A m mm s
/// ss S SS SSS Z ZZ X x`; `[text]` is literal, and so is everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat {
    parts: Vec<Part>,
    shows_milliseconds: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Token(Token),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Year4,
    Year2,
    Month,
    Month2,
    MonthShort,
    MonthLong,
    Day,
    Day2,
    Weekday,
    WeekdayMin,
    WeekdayShort,
    WeekdayLong,
    Hour,
    Hour2,
    Hour12,
    Hour12Of2,
    MeridiemLower,
    MeridiemUpper,
    Minute,
    Minute2,
    Second,
    Second2,
    Tenths,
    Hundredths,
    Milliseconds,
    OffsetColon,
    Offset,
    UnixSeconds,
    UnixMilliseconds,
}

/// Longest spelling first, so that the first match is the right one.
const TOKENS: &[(&str, Token)] = &[
    ("YYYY", Token::Year4),
    ("YY", Token::Year2),
    ("MMMM", Token::MonthLong),
    ("MMM", Token::MonthShort),
    ("MM", Token::Month2),
    ("M", Token::Month),
    ("DD", Token::Day2),
    ("D", Token::Day),
    ("dddd", Token::WeekdayLong),
    ("ddd", Token::WeekdayShort),
    ("dd", Token::WeekdayMin),
    ("d", Token::Weekday),
    ("HH", Token::Hour2),
    ("H", Token::Hour),
    ("hh", Token::Hour12Of2),
    ("h", Token::Hour12),
    ("a", Token::MeridiemLower),
    ("A", Token::MeridiemUpper),
    ("mm", Token::Minute2),
    ("m", Token::Minute),
    ("ss", Token::Second2),
    ("s", Token::Second),
    ("SSS", Token::Milliseconds),
    // day.js has no tokens for one or two digits; moment, which many
    // configurations were written for, has.
    ("SS", Token::Hundredths),
    ("S", Token::Tenths),
    ("ZZ", Token::Offset),
    ("Z", Token::OffsetColon),
    ("X", Token::UnixSeconds),
    ("x", Token::UnixMilliseconds),
];

impl Civil {
    /// Returns the fields of an instant, shown `offset_seconds` east of UTC.
    pub fn at(unix_ms: i64, offset_seconds: i32) -> Civil {
        let local_ms = unix_ms.saturating_add(i64::from(offset_seconds) * 1000);
        let seconds = local_ms.div_euclid(1000);
        let days = seconds.div_euclid(DAY_SECONDS);
        let of_day = seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = calendar(days);
        Civil {
            unix_ms,
            offset_seconds,
            year,
            month,
            day,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            millisecond: local_ms.rem_euclid(1000) as u16,
            // 1970-01-01 was a Thursday.
            weekday: (days + 4).rem_euclid(7) as u8,
        }
    }

    /// Writes the instant as JavaScript's `toISOString` does: UTC, milliseconds, `Z`.
    pub fn write_iso(&self, out: &mut Vec<u8>) {
        let utc = Civil::at(self.unix_ms, 0);
        let date = (utc.year, utc.month, utc.day);
        let time = (utc.hour, utc.minute, utc.second, utc.millisecond);
        let written = write!(
            out,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.0, date.1, date.2, time.0, time.1, time.2, time.3
        );
        debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    }
}

/// Returns year, month and day of a number of days since 1970-01-01.
///
/// Counted in eras of 400 years that begin on the first of March, so that the
/// leap day is the last day of a year and every month has a fixed start.
fn calendar(days: i64) -> (i64, u8, u8) {
    const ERA_DAYS: i64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(ERA_DAYS);
    let day_of_era = shifted.rem_euclid(ERA_DAYS);
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month as u8, day as u8)
}

impl DateFormat {
    /// Compiles a format. Every text is one: unknown letters stand for themselves.
    pub fn parse(text: &str) -> DateFormat {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some((literal, after)) = bracketed(rest) {
                push_literal(&mut parts, literal);
                rest = after;
            } else if let Some((spelling, token)) =
                TOKENS.iter().find(|(token, _)| rest.starts_with(token))
            {
                parts.push(Part::Token(*token));
                rest = &rest[spelling.len()..];
            } else {
                let (letter, after) = rest.split_at(first.len_utf8());
                push_literal(&mut parts, letter);
                rest = after;
            }
        }
        let fine = [
            Token::Tenths,
            Token::Hundredths,
            Token::Milliseconds,
            Token::UnixMilliseconds,
        ];
        DateFormat {
            shows_milliseconds: parts
                .iter()
                .any(|part| matches!(part, Part::Token(token) if fine.contains(token))),
            parts,
        }
    }

    /// Returns true when two instants of one second may be written differently.
    pub const fn shows_milliseconds(&self) -> bool {
        self.shows_milliseconds
    }

    /// Writes an instant in this format.
    pub fn write(&self, civil: &Civil, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Token(token) => token.write(civil, out),
            }
        }
    }
}

/// Returns the text of a leading `[text]` and what follows it; empty brackets
/// are no literal in day.js.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let (literal, after) = text.strip_prefix('[')?.split_once(']')?;
    (!literal.is_empty()).then_some((literal, after))
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    if let Some(Part::Literal(last)) = parts.last_mut() {
        last.push_str(text);
    } else {
        parts.push(Part::Literal(text.to_owned()));
    }
}

impl Token {
    fn write(self, civil: &Civil, out: &mut Vec<u8>) {
        let month = MONTHS[usize::from(civil.month - 1)];
        let weekday = WEEKDAYS[usize::from(civil.weekday)];
        let hour12 = (civil.hour + 11) % 12 + 1;
        let half = usize::from(civil.hour >= 12);
        let written = match self {
            Token::Year4 => write!(out, "{:04}", civil.year),
            Token::Year2 => write!(out, "{:02}", civil.year.rem_euclid(100)),
            Token::Month => write!(out, "{}", civil.month),
            Token::Month2 => write!(out, "{:02}", civil.month),
            Token::MonthShort => write!(out, "{}", &month[..3]),
            Token::MonthLong => write!(out, "{month}"),
            Token::Day => write!(out, "{}", civil.day),
            Token::Day2 => write!(out, "{:02}", civil.day),
            Token::Weekday => write!(out, "{}", civil.weekday),
            Token::WeekdayMin => write!(out, "{}", &weekday[..2]),
            Token::WeekdayShort => write!(out, "{}", &weekday[..3]),
            Token::WeekdayLong => write!(out, "{weekday}"),
            Token::Hour => write!(out, "{}", civil.hour),
            Token::Hour2 => write!(out, "{:02}", civil.hour),
            Token::Hour12 => write!(out, "{hour12}"),
            Token::Hour12Of2 => write!(out, "{hour12:02}"),
            Token::MeridiemLower => write!(out, "{}", ["am", "pm"][half]),
            Token::MeridiemUpper => write!(out, "{}", ["AM", "PM"][half]),
            Token::Minute => write!(out, "{}", civil.minute),
            Token::Minute2 => write!(out, "{:02}", civil.minute),
            Token::Second => write!(out, "{}", civil.second),
            Token::Second2 => write!(out, "{:02}", civil.second),
            Token::Tenths => write!(out, "{}", civil.millisecond / 100),
            Token::Hundredths => write!(out, "{:02}", civil.millisecond / 10),
            Token::Milliseconds => write!(out, "{:03}", civil.millisecond),
            Token::OffsetColon => write_offset(civil.offset_seconds, ":", out),
            Token::Offset => write_offset(civil.offset_seconds, "", out),
            Token::UnixSeconds => write!(out, "{}", civil.unix_ms.div_euclid(1000)),
            Token::UnixMilliseconds => write!(out, "{}", civil.unix_ms),
        };
        debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    }
}

fn write_offset(seconds: i32, between: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.unsigned_abs() / 60;
    write!(out, "{sign}{:02}{between}{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str, civil: &Civil) -> String {
        let mut out = Vec::new();
        DateFormat::parse(text).write(civil, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_token_writes_what_dayjs_writes() {
        // 2026-03-05T09:07:04.056Z, a Thursday, seen from +05:30: 14:37:04.
        let civil = Civil::at(1_772_701_624_056, 19_800);
        for (text, expected) in [
            ("YYYY-MM-DDTHH:mm:ss", "2026-03-05T14:37:04"),
            ("YY M MM MMM MMMM", "26 3 03 Mar March"),
            ("D DD d dd ddd dddd", "5 05 4 Th Thu Thursday"),
            ("H HH h hh a A", "14 14 2 02 pm PM"),
            ("m mm s ss S SS SSS", "37 37 4 04 0 05 056"),
            ("Z ZZ", "+05:30 +0530"),
            ("X x", "1772701624 1772701624056"),
            ("[at] HH[h]", "at 14h"),
            ("[] [HH", "[] [14"),
            ("é/·", "é/·"),
            ("", ""),
        ] {
            assert_eq!(format(text, &civil), expected, "{text}");
        }
    }

    #[test]
    fn known_instants_have_known_dates() {
        for (unix_ms, offset, expected) in [
            (0, 0, "1970-01-01 00:00:00.000 Thu"),
            (-1, 0, "1969-12-31 23:59:59.999 Wed"),
            (951_782_400_000, 0, "2000-02-29 00:00:00.000 Tue"),
            (951_868_800_000, 0, "2000-03-01 00:00:00.000 Wed"),
            (4_107_542_400_000, 0, "2100-03-01 00:00:00.000 Mon"),
            (1_798_761_599_999, 0, "2026-12-31 23:59:59.999 Thu"),
            (1_798_761_599_999, 3600, "2027-01-01 00:59:59.999 Fri"),
            (1_798_761_599_999, -34_200, "2026-12-31 14:29:59.999 Thu"),
        ] {
            let civil = Civil::at(unix_ms, offset);
            let text = format("YYYY-MM-DD HH:mm:ss.SSS ddd", &civil);
            assert_eq!(text, expected, "{unix_ms} {offset}");
        }
    }

    #[test]
    fn midnight_and_noon_are_twelve_on_a_twelve_hour_clock() {
        let hour = |hour: i64| format("h A", &Civil::at(hour * 3_600_000, 0));
        assert_eq!(
            [0, 1, 11, 12, 13, 23].map(hour),
            ["12 AM", "1 AM", "11 AM", "12 PM", "1 PM", "11 PM"]
        );
    }

    #[test]
    fn consecutive_days_are_consecutive_dates() {
        let mut previous = calendar(-800_000);
        for days in -799_999..800_000 {
            let (year, month, day) = calendar(days);
            let next_day = (year, month, day) == (previous.0, previous.1, previous.2 + 1);
            let next_month = day == 1 && (year, month) == (previous.0, previous.1 + 1);
            let next_year = (month, day) == (1, 1) && year == previous.0 + 1;
            assert!(next_day || next_month || next_year, "day {days}");
            assert!(previous.2 >= 28 || next_day, "a short month at day {days}");
            previous = (year, month, day);
        }
    }

    #[test]
    fn iso_is_utc_whatever_the_offset() {
        let mut out = Vec::new();
        Civil::at(1_772_701_624_056, -7200).write_iso(&mut out);
        assert_eq!(out, b"2026-03-05T09:07:04.056Z");
    }
}
