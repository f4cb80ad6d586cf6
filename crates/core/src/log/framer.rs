//! Cuts a byte stream into lines and writes each in its format.
//!
//! The output depends on the bytes alone, never on how they were chunked: the
//! beginning of a line is held until its end arrives. What is held is bounded;
//! a longer line is written in pieces. Bytes are never inspected beyond
//! newlines and the boundaries of UTF-8 characters.

use super::Stream;
use super::date::{Civil, DateFormat};
use crate::id::PmId;
use serde::Serialize as _;
use serde_json::ser::{CompactFormatter, Serializer};
use std::sync::Arc;

/// Bytes of an unfinished line that are held, and so the longest piece a line is
/// written in.
pub const LINE_MAX_BYTES: usize = 64 * 1024;

/// [`Framer::push`] takes no further line once its output holds this much.
pub const OUT_MAX_BYTES: usize = 128 * 1024;

/// A held line's buffer is given back once it has grown beyond this.
const KEEP_BYTES: usize = 4 * 1024;

/// How a line is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// `<date>: ` before each line.
    Dated(DateFormat),
    /// One JSON record per line: `message` (without its newline; what is not
    /// UTF-8 is replaced), `timestamp` (the format, or ISO 8601), `type`,
    /// `process_id`, `app_name`; `partial: true` when the line goes on in the
    /// next record.
    Json {
        /// Format of `timestamp`.
        date: Option<DateFormat>,
        /// `type`.
        stream: Stream,
        /// `process_id`.
        pm_id: PmId,
        /// `app_name`.
        name: Arc<str>,
    },
}

/// One stream's lines on their way into a file.
#[derive(Debug)]
pub struct Framer {
    format: Format,
    /// The line so far, or the piece of it that is not written yet.
    held: Vec<u8>,
    /// A piece of the current line has been written already.
    continued: bool,
    stamp: Stamp,
}

/// The rendered part of a line that changes with time only.
#[derive(Debug)]
struct Stamp {
    /// Instant and offset it was rendered for, as coarse as the format shows it.
    key: Option<(i64, i32)>,
    text: Vec<u8>,
}

/// What ends a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// A newline in the stream.
    Newline,
    /// The stream itself.
    Stream,
    /// The bound; the line goes on.
    Cut,
}

impl Framer {
    /// Returns a framer at the beginning of a stream.
    pub fn new(format: Format) -> Framer {
        Framer {
            format,
            held: Vec::new(),
            continued: false,
            stamp: Stamp {
                key: None,
                text: Vec::new(),
            },
        }
    }

    /// Takes bytes of the stream and appends every complete line to `out`.
    ///
    /// Returns how many bytes it took: all of `chunk`, unless `out` reached
    /// [`OUT_MAX_BYTES`]; then empty `out` and push the rest.
    pub fn push(&mut self, chunk: &[u8], civil: &Civil, out: &mut Vec<u8>) -> usize {
        if self.format == Format::Raw {
            return self.push_raw(chunk, civil, out);
        }
        let mut taken = 0;
        while taken < chunk.len() && out.len() < OUT_MAX_BYTES {
            let rest = &chunk[taken..];
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                self.hold(rest, civil, out);
                return chunk.len();
            };
            self.line(&rest[..length], civil, out);
            taken += length + 1;
        }
        taken
    }

    /// Writes the beginning of a line whose end has not come for a while, so that
    /// a prompt without newline can be read. A JSON record cannot be continued
    /// and keeps waiting.
    pub fn release(&mut self, civil: &Civil, out: &mut Vec<u8>) {
        match self.format {
            Format::Json { .. } => {}
            Format::Raw | Format::Dated(_) => self.cut(civil, out),
        }
    }

    /// Writes what is held at the end of the stream. An unfinished line gets its
    /// newline, except in the raw format.
    pub fn finish(&mut self, civil: &Civil, out: &mut Vec<u8>) {
        if self.held.is_empty() && !self.continued {
            return;
        }
        let held = std::mem::take(&mut self.held);
        match self.format {
            Format::Json { .. } if held.is_empty() => self.continued = false,
            Format::Raw | Format::Dated(_) | Format::Json { .. } => {
                self.write(&held, End::Stream, civil, out);
            }
        }
    }

    /// Returns how many bytes of an unfinished line are held.
    pub fn n_held(&self) -> usize {
        self.held.len()
    }

    /// Takes everything up to the last newline at once: raw lines need no look.
    fn push_raw(&mut self, chunk: &[u8], civil: &Civil, out: &mut Vec<u8>) -> usize {
        let complete = chunk
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        if complete > 0 {
            out.append(&mut self.held);
            out.extend_from_slice(&chunk[..complete]);
            self.continued = false;
            self.held.shrink_to(KEEP_BYTES);
        }
        self.hold(&chunk[complete..], civil, out);
        chunk.len()
    }

    fn line(&mut self, line: &[u8], civil: &Civil, out: &mut Vec<u8>) {
        if self.held.is_empty() && line.len() <= LINE_MAX_BYTES {
            return self.write(line, End::Newline, civil, out);
        }
        self.hold(line, civil, out);
        let mut held = std::mem::take(&mut self.held);
        self.write(&held, End::Newline, civil, out);
        held.clear();
        held.shrink_to(KEEP_BYTES);
        self.held = held;
    }

    /// Keeps the beginning of a line. Pieces are cut by the count of bytes since
    /// the line began, which is the same for every chunking.
    fn hold(&mut self, mut bytes: &[u8], civil: &Civil, out: &mut Vec<u8>) {
        while self.held.len() + bytes.len() > LINE_MAX_BYTES {
            let (fits, rest) = bytes.split_at(LINE_MAX_BYTES - self.held.len());
            self.held.extend_from_slice(fits);
            bytes = rest;
            self.cut(civil, out);
        }
        self.held.extend_from_slice(bytes);
    }

    fn cut(&mut self, civil: &Civil, out: &mut Vec<u8>) {
        let length = whole_characters(&self.held);
        if length == 0 {
            return;
        }
        let held = std::mem::take(&mut self.held);
        self.write(&held[..length], End::Cut, civil, out);
        self.held = held[length..].to_vec();
    }

    fn write(&mut self, piece: &[u8], end: End, civil: &Civil, out: &mut Vec<u8>) {
        match &self.format {
            Format::Raw => {
                out.extend_from_slice(piece);
                if end == End::Newline {
                    out.push(b'\n');
                }
            }
            Format::Dated(date) => {
                if !self.continued {
                    let fine = date.shows_milliseconds();
                    out.extend_from_slice(self.stamp.at(civil, fine, |text| {
                        date.write(civil, text);
                        text.extend_from_slice(b": ");
                    }));
                }
                out.extend_from_slice(piece);
                if end != End::Cut {
                    out.push(b'\n');
                }
            }
            Format::Json {
                date,
                stream,
                pm_id,
                name,
            } => {
                let fine = date.as_ref().is_none_or(DateFormat::shows_milliseconds);
                let tail = self.stamp.at(civil, fine, |text| {
                    write_tail(date.as_ref(), *stream, *pm_id, name, civil, text);
                });
                out.extend_from_slice(b"{\"message\":");
                write_json(&String::from_utf8_lossy(piece), out);
                out.extend_from_slice(tail);
                if end == End::Cut {
                    out.extend_from_slice(b",\"partial\":true");
                }
                out.extend_from_slice(b"}\n");
            }
        }
        self.continued = end == End::Cut;
    }
}

impl Stamp {
    fn at(&mut self, civil: &Civil, fine: bool, render: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let instant = if fine {
            civil.unix_ms
        } else {
            civil.unix_ms.div_euclid(1000)
        };
        let key = Some((instant, civil.offset_seconds));
        if self.key != key {
            self.text.clear();
            render(&mut self.text);
            self.key = key;
        }
        &self.text
    }
}

/// Writes what follows the message in a JSON record, without the closing brace.
fn write_tail(
    date: Option<&DateFormat>,
    stream: Stream,
    pm_id: PmId,
    name: &str,
    civil: &Civil,
    out: &mut Vec<u8>,
) {
    let mut timestamp = Vec::new();
    match date {
        Some(date) => date.write(civil, &mut timestamp),
        None => civil.write_iso(&mut timestamp),
    }
    out.extend_from_slice(b",\"timestamp\":");
    write_json(&String::from_utf8_lossy(&timestamp), out);
    let fields = format!(
        ",\"type\":\"{}\",\"process_id\":{pm_id},\"app_name\":",
        stream.pm2_name()
    );
    out.extend_from_slice(fields.as_bytes());
    write_json(name, out);
}

fn write_json(text: &str, out: &mut Vec<u8>) {
    let written = text.serialize(&mut Serializer::with_formatter(out, CompactFormatter));
    debug_assert!(written.is_ok(), "a string is always JSON");
}

/// Returns the length of `bytes` without the beginning of a UTF-8 character at
/// its end. Bytes that are no UTF-8 count as characters.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let needed = match bytes[bytes.len() - back] {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x00..=0x7F | 0xC0..=0xC1 | 0xF5..=0xFF => 1,
        };
        return if needed > back {
            bytes.len() - back
        } else {
            bytes.len()
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const CIVIL_MS: i64 = 1_772_701_624_056;

    fn dated() -> Format {
        Format::Dated(DateFormat::parse("HH:mm:ss"))
    }

    fn json() -> Format {
        Format::Json {
            date: None,
            stream: Stream::Err,
            pm_id: PmId(3),
            name: Arc::from("a\"p"),
        }
    }

    /// Runs `bytes` through a framer in chunks that end at `cuts`.
    fn frame(format: Format, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let civil = Civil::at(CIVIL_MS, 0);
        let mut framer = Framer::new(format);
        let mut all = Vec::new();
        let mut out = Vec::new();
        let mut from = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        for cut in cuts {
            while from < cut {
                from += framer.push(&bytes[from..cut], &civil, &mut out);
                all.append(&mut out);
            }
        }
        framer.finish(&civil, &mut all);
        assert_eq!(framer.n_held(), 0);
        all
    }

    #[test]
    fn a_dated_line_has_one_prefix_however_it_arrives() {
        let expected = "09:07:04: one\n09:07:04: \n09:07:04: two\n".as_bytes();
        for cut in 0..8 {
            assert_eq!(frame(dated(), b"one\n\ntwo", &[cut]), expected, "{cut}");
        }
        assert_eq!(frame(dated(), b"", &[]), b"");
    }

    #[test]
    fn a_json_record_has_the_keys_of_pm2_and_one_line() {
        let text = frame(json(), b"caf\xc3\xa9 \xff \"q\"\r\nrest", &[4]);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            concat!(
                r#"{"message":"café � \"q\"\r","timestamp":"2026-03-05T09:07:04.056Z","#,
                r#""type":"err","process_id":3,"app_name":"a\"p"}"#,
                "\n",
                r#"{"message":"rest","timestamp":"2026-03-05T09:07:04.056Z","#,
                r#""type":"err","process_id":3,"app_name":"a\"p"}"#,
                "\n",
            )
        );
    }

    #[test]
    fn a_line_longer_than_the_bound_is_held_in_pieces_and_loses_nothing() {
        // The character at the cut has two bytes, one on either side.
        let mut line = vec![b'x'; LINE_MAX_BYTES - 1];
        line.extend_from_slice("é".as_bytes());
        line.extend_from_slice(&vec![b'y'; 2 * LINE_MAX_BYTES]);
        let mut prefixed = b"09:07:04: ".to_vec();
        prefixed.extend_from_slice(&line);
        prefixed.push(b'\n');
        assert!(frame(dated(), &line, &[7]) == prefixed);
        assert!(frame(Format::Raw, &line, &[7]) == line);

        let records = frame(json(), &line, &[7]);
        let mut message = String::new();
        let mut partial = Vec::new();
        for record in records
            .split(|byte| *byte == b'\n')
            .filter(|r| !r.is_empty())
        {
            let record: Value = serde_json::from_slice(record).unwrap();
            message.push_str(record["message"].as_str().unwrap());
            partial.push(record["partial"] == true);
        }
        assert!(message.as_bytes() == line);
        assert_eq!(partial, [true, true, true, false]);
    }

    #[test]
    fn an_unfinished_line_can_be_released_without_a_second_prefix() {
        let civil = Civil::at(CIVIL_MS, 0);
        for (format, expected) in [
            (Format::Raw, "name? me\n"),
            (dated(), "09:07:04: name? me\n"),
        ] {
            let mut framer = Framer::new(format);
            let mut out = Vec::new();
            framer.push(b"name? ", &civil, &mut out);
            assert_eq!(out, b"");
            framer.release(&civil, &mut out);
            assert!(out.ends_with(b"name? "));
            framer.push(b"me\n", &civil, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_released_line_is_ended_with_the_stream() {
        let civil = Civil::at(CIVIL_MS, 0);
        let mut framer = Framer::new(dated());
        let mut out = Vec::new();
        framer.push(b"name? ", &civil, &mut out);
        framer.release(&civil, &mut out);
        framer.finish(&civil, &mut out);
        assert_eq!(out, b"09:07:04: name? \n");
    }

    #[test]
    fn the_prefix_follows_the_clock() {
        let mut framer = Framer::new(Format::Dated(DateFormat::parse("ss.SSS")));
        let mut out = Vec::new();
        for ms in [0, 1, 1, 1000] {
            framer.push(b"\n", &Civil::at(ms, 0), &mut out);
        }
        assert_eq!(out, b"00.000: \n00.001: \n00.001: \n01.000: \n");
    }

    #[test]
    fn output_stays_bounded_for_the_worst_input() {
        let civil = Civil::at(CIVIL_MS, 0);
        let chunk = vec![b'\n'; LINE_MAX_BYTES];
        let mut framer = Framer::new(json());
        let mut out = Vec::new();
        let taken = framer.push(&chunk, &civil, &mut out);
        assert!(taken > 0 && taken < chunk.len());
        assert!(out.len() < OUT_MAX_BYTES + 256, "{}", out.len());
    }

    /// Bytes with many newlines and broken UTF-8.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => Just(b"\n".to_vec()),
            3 => prop::collection::vec(any::<u8>(), 0..20),
            2 => ".{0,8}".prop_map(String::into_bytes),
            1 => (LINE_MAX_BYTES - 3..LINE_MAX_BYTES + 3).prop_map(|n| vec![0xC3; n]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_chunking_gives_the_same_output(
            bytes in stream(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            for format in [Format::Raw, dated(), json()] {
                let whole = frame(format.clone(), &bytes, &[]);
                prop_assert!(frame(format, &bytes, &cuts) == whole);
            }
        }

        #[test]
        fn raw_is_byte_exact_and_dates_only_add(
            bytes in stream(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            prop_assert!(frame(Format::Raw, &bytes, &cuts) == bytes);
            let mut expected = Vec::new();
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                expected.extend_from_slice(b"09:07:04: ");
                expected.extend_from_slice(line);
            }
            if expected.last().is_some_and(|byte| *byte != b'\n') {
                expected.push(b'\n');
            }
            prop_assert!(frame(dated(), &bytes, &cuts) == expected);
        }

        #[test]
        fn every_json_line_parses_and_the_messages_are_the_lines(
            text in "[a-zé\"\\\\\u{1}\n]{0,60}",
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let out = String::from_utf8(frame(json(), text.as_bytes(), &cuts)).unwrap();
            let messages: Vec<String> = out
                .lines()
                .map(|record| {
                    let record: Value = serde_json::from_str(record).unwrap();
                    record["message"].as_str().unwrap().to_owned()
                })
                .collect();
            let lines: Vec<&str> = text.split_terminator('\n').collect();
            prop_assert_eq!(messages, lines);
        }
    }
}
