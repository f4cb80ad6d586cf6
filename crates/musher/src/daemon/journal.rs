//! The daemon's own log: PM2's lines in `pm2.log`.
//!
//! The daemon's stderr is that file; lines are written whole, in one write.

use jiff::Zoned;
use std::io::Write;

/// Writes a line as PM2 does: `2026-11-22T19:00:00: PM2 log: …`.
pub(crate) fn line(text: &str) {
    write(&format!("{}: PM2 log: {text}\n", stamp()));
}

/// Writes a line about something that went wrong.
pub(crate) fn error(text: &str) {
    write(&format!("{}: PM2 error: {text}\n", stamp()));
}

fn stamp() -> String {
    Zoned::now().strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

fn write(line: &str) {
    // A full disk must not stop supervision; there is nowhere else to say so.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
