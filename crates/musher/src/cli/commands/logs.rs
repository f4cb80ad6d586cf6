//! `logs`: the end of log files, then what comes.

use crate::cli::context::Context;
use crate::cli::output::{Color, Failure, paint};
use crate::cli::process::Process;
use crate::cli::units::iso;
use crate::cli::verbs::Outcome;
use crate::client::{RpcError, Subscriber};
use crate::logfile::{self, Part, TailBlock};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use musher_core::id::PmId;
use musher_core::log::{Civil, DateFormat};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines shown first.
const N_LINES: usize = 15;

/// Columns of the label at least; it grows with the longest one seen.
const MIN_LABEL_WIDTH: usize = 9;

/// Time before each line with `--timestamp`.
const TIMESTAMP: &str = "YYYY-MM-DD-HH:mm:ss";

/// Time of the lines of `--format`.
const FORMAT_TIMESTAMP: &str = "YYYY-MM-DD-HH:mm:ssZZ";

/// How long one wait for an event may take before it is begun again.
const WAIT: Duration = Duration::from_secs(3600);

/// Which processes are meant.
struct Selection {
    /// Slots; `None` for all, and the daemon itself.
    ids: Option<Vec<PmId>>,
    /// The daemon's own log is meant.
    daemon: bool,
}

/// Pause before the next daemon is followed: one that is about to end for good
/// is gone by then.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How lines that come are shown.
struct LineStyle {
    stamp: Stamp,
    /// Columns of the label; it grows.
    label_width: usize,
}

/// Prints the tails, then follows.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let n_lines = match ctx.parsed.value("lines") {
        Some(text) => text
            .parse()
            .map_err(|_| Failure::Error(format!("`{text}' is not a number of lines")))?,
        None => N_LINES,
    };
    let target = ctx.parsed.operands.first().cloned();
    let target = target.unwrap_or_else(|| "all".to_owned());
    let list = ctx.list()?;
    let selection = selection(ctx, &list, &target)?;
    // Subscribed before the files are read, so that no line falls between.
    let follow = !ctx.parsed.has("nostream");
    let subscriber = if follow {
        Subscriber::connect(&ctx.paths)?
    } else {
        None
    };
    let machine_readable = ctx.parsed.has("json") || ctx.parsed.has("format");
    if n_lines > 0 && !machine_readable {
        print_tails(ctx, &list, &selection, &target, n_lines)?;
    }
    match subscriber {
        Some(subscriber) => stream(ctx, subscriber, &selection),
        None if follow => Err(Failure::Error("the daemon has no event socket".to_owned())),
        None => Ok(0),
    }
}

fn selection(ctx: &mut Context, list: &[Value], target: &str) -> Result<Selection, Failure> {
    match target {
        "all" => Ok(Selection {
            ids: None,
            daemon: true,
        }),
        "PM2" => Ok(Selection {
            ids: Some(Vec::new()),
            daemon: true,
        }),
        _ => {
            let ids = ctx.select(list, target)?;
            let is_listed = |id: &PmId| list.iter().any(|process| Process(process).id() == *id);
            if !ids.iter().all(is_listed) {
                let text = format!("Process or Namespace {target} not found");
                return Err(Failure::unlisted(text));
            }
            Ok(Selection {
                ids: Some(ids),
                daemon: false,
            })
        }
    }
}

fn print_tails(
    ctx: &mut Context,
    list: &[Value],
    selection: &Selection,
    target: &str,
    n_lines: usize,
) -> Result<(), Failure> {
    let noun = if target == "all" {
        "processes"
    } else {
        "process"
    };
    let prefix = paint("[TAILING]", Color::Bold, ctx.console.color_out);
    ctx.console.line(&format!(
        "{prefix} Tailing last {n_lines} lines for [{target}] {noun} (change the value with --lines option)"
    ));
    let mut files: Vec<(PathBuf, String, Color)> = Vec::new();
    for process in list.iter().map(Process) {
        let is_meant = selection
            .ids
            .as_ref()
            .is_none_or(|ids| ids.contains(&process.id()));
        if !is_meant {
            continue;
        }
        let label = logfile::label(process.id(), process.name());
        for (key, other, color) in [
            ("pm_out_log_path", "err", Color::Green),
            ("pm_err_log_path", "out", Color::Red),
        ] {
            if ctx.parsed.has(other) {
                continue;
            }
            let Some(path) = process.text(key).map(PathBuf::from) else {
                continue;
            };
            // Instances that share a file have one tail, as in PM2.
            if !files.iter().any(|(known, _, _)| *known == path) {
                files.push((path, label.clone(), color));
            }
        }
    }
    let mut blocks = Vec::new();
    for (path, label, color) in files {
        match TailBlock::read(&path, n_lines) {
            Ok(block) => blocks.extend(block.map(|block| (block, label, color))),
            // The files of the other processes are readable all the same.
            Err(error) => ctx.console.warn(&error.to_string()),
        }
    }
    blocks.sort_by_key(|(block, _, _)| block.modified);
    let raw = ctx.parsed.has("raw");
    let filtered = raw || ctx.parsed.has("err") || ctx.parsed.has("out");
    if selection.daemon && !filtered {
        let daemon_log: &Path = &ctx.paths.log_file;
        let block = TailBlock::read(daemon_log, n_lines)?;
        blocks.splice(
            0..0,
            block.map(|block| (block, "PM2".to_owned(), Color::Blue)),
        );
    }
    for (block, label, color) in blocks {
        print_block(ctx, &block, &label, color, raw)?;
    }
    Ok(())
}

fn print_block(
    ctx: &mut Context,
    block: &TailBlock,
    label: &str,
    color: Color,
    raw: bool,
) -> Result<(), Failure> {
    if ctx.console.silent {
        return Ok(());
    }
    let mut text = Vec::new();
    if raw {
        for line in block.lines() {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    } else {
        let on = ctx.console.color_out;
        let painted = |part, text: &str| match part {
            Part::Heading => paint(text, Color::Dim, on),
            Part::Label => paint(text, color, on),
        };
        block.write(label, painted, &mut text)?;
        if block.lines().next().is_some() {
            text.push(b'\n');
        }
    }
    ctx.console.bytes(&text);
    Ok(())
}

/// Follows the bus until the daemon ends or the reader goes away.
fn stream(ctx: &mut Context, mut subscriber: Subscriber, selection: &Selection) -> Outcome {
    let format = match ctx.parsed.value("timestamp") {
        _ if ctx.parsed.has("format") => FORMAT_TIMESTAMP,
        Some(format) => format,
        None => TIMESTAMP,
    };
    let mut line_style = LineStyle {
        stamp: Stamp::new(format),
        label_width: MIN_LABEL_WIDTH,
    };
    loop {
        let event = match subscriber.next(WAIT) {
            Ok(event) => event,
            Err(RpcError::Closed { .. }) => match reconnected(ctx)? {
                Some(next) => {
                    subscriber = next;
                    continue;
                }
                None => return Ok(0),
            },
            Err(error) => return Err(error.into()),
        };
        let Some((name, payload)) = event else {
            continue;
        };
        match name.as_str() {
            "log:out" if !ctx.parsed.has("err") => {
                print_event(ctx, selection, "out", &payload, &mut line_style);
            }
            "log:err" if !ctx.parsed.has("out") => {
                print_event(ctx, selection, "err", &payload, &mut line_style);
            }
            "log:PM2" if selection.daemon => {
                print_event(ctx, selection, "PM2", &payload, &mut line_style);
            }
            "process:event" if ctx.parsed.has("json") => print_process_event(ctx, &payload),
            "pm2:kill" => return Ok(0),
            _ => (),
        }
    }
}

/// Follows the next daemon, if there is one: an update, or the one that came
/// after a crash.
fn reconnected(ctx: &mut Context) -> Result<Option<Subscriber>, Failure> {
    std::thread::sleep(RECONNECT_PAUSE);
    let next = Subscriber::connect(&ctx.paths)?;
    if next.is_some() {
        ctx.console
            .warn_err("another daemon follows: lines of the moment between are in the log files");
    }
    Ok(next)
}

fn print_event(
    ctx: &mut Context,
    selection: &Selection,
    kind: &str,
    packet: &Value,
    line_style: &mut LineStyle,
) {
    let process = packet.get("process").unwrap_or(&Value::Null);
    let id = process.get("pm_id").unwrap_or(&Value::Null);
    let name = process.get("name").and_then(Value::as_str).unwrap_or("");
    if kind != "PM2" {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let is_meant = |ids: &Vec<PmId>| number.is_some_and(|id| ids.contains(&PmId(id)));
        if !selection.ids.as_ref().is_none_or(is_meant) {
            return;
        }
    }
    let text = packet.get("data").and_then(Value::as_str).unwrap_or("");
    let at = packet.get("at").and_then(Value::as_i64).unwrap_or(0);
    let label = match kind {
        "PM2" => "PM2".to_owned(),
        _ => format!("{id}|{name}"),
    };
    if ctx.parsed.has("json") {
        let record = json!({
            "message": text.replace('\n', ""),
            "timestamp": iso(at),
            "type": kind,
            "process_id": id,
            "app_name": name,
        });
        return ctx.console.data(&format!("{record}\n"));
    }
    line_style.label_width = line_style.label_width.max(label.chars().count() + 1);
    for line in text.lines() {
        let line = decorate(ctx, kind, &label, line_style, line, at);
        if ctx.parsed.has("raw") && kind == "err" {
            ctx.console.err_line(&line);
        } else {
            ctx.console.line(&line);
        }
    }
}

fn decorate(
    ctx: &Context,
    kind: &str,
    label: &str,
    style: &LineStyle,
    line: &str,
    at: i64,
) -> String {
    if ctx.parsed.has("raw") {
        return line.to_owned();
    }
    if ctx.parsed.has("format") {
        let (id, app) = label.split_once('|').unwrap_or(("PM2", "pm2"));
        let kind = if kind == "err" { "error" } else { kind };
        let time = style.stamp.text(at);
        return format!("timestamp={time} app={app} id={id} type={kind} message={line}");
    }
    let color = match kind {
        "err" => Color::Red,
        "PM2" => Color::Blue,
        _ => Color::Green,
    };
    let width = style.label_width;
    let label = paint(&format!("{label:<width$}| "), color, ctx.console.color_out);
    let line = match ctx.parsed.value("highlight") {
        Some(word) if ctx.console.color_out && !word.is_empty() => {
            line.replacen(word, &paint(word, Color::Yellow, true), 1)
        }
        Some(_) | None => line.to_owned(),
    };
    if ctx.parsed.has("timestamp") {
        let now = style.stamp.text(musher_os::clock::now().wall.0);
        return format!("{now} {label}{line}");
    }
    format!("{label}{line}")
}

fn print_process_event(ctx: &mut Context, packet: &Value) {
    let at = packet.get("at").and_then(Value::as_i64).unwrap_or(0);
    let process = packet.get("process").unwrap_or(&Value::Null);
    let record = json!({
        "timestamp": iso(at),
        "type": "process_event",
        "status": packet.get("event"),
        "app_name": process.get("name"),
    });
    ctx.console.data(&format!("{record}\n"));
}

/// Writes times for people, in the zone of the system.
struct Stamp {
    format: DateFormat,
    zone: TimeZone,
}

impl Stamp {
    fn new(format: &str) -> Stamp {
        Stamp {
            format: DateFormat::parse(format),
            zone: TimeZone::system(),
        }
    }

    fn text(&self, ms: i64) -> String {
        let offset = Timestamp::from_millisecond(ms)
            .map_or(0, |instant| self.zone.to_offset(instant).seconds());
        let mut out = Vec::new();
        self.format.write(&Civil::at(ms, offset), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_every_token_of_day_js() {
        for (format, expected) in [
            (TIMESTAMP, "2026-11-22-19:15:52"),
            (FORMAT_TIMESTAMP, "2026-11-22-19:15:52+0000"),
            (
                "ddd D MMM YY h:m:s.SSS a [UTC]Z",
                "Sun 22 Nov 26 7:15:52.432 pm UTC+00:00",
            ),
            ("HH:mm 100%", "19:15 100%"),
        ] {
            let stamp = Stamp {
                zone: TimeZone::UTC,
                ..Stamp::new(format)
            };
            assert_eq!(stamp.text(1_795_374_952_432), expected, "{format}");
        }
    }
}
