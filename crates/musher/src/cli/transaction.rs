//! A reload or rollback of several processes: one call, one receipt.
//!
//! The daemon carries it out as a transaction and goes on without the client;
//! this asks for it and shows what became of it, with the last lines the new
//! build wrote when it failed. It decides nothing.

use super::context::Context;
use super::output::Failure;
use super::process::Process;
use musher_core::id::PmId;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Lines of the error log shown with a failed process.
const LAST_LINES: usize = 10;
/// Bytes of it looked at.
const MAX_BYTES: u64 = 16 * 1024;

/// What of an error log was written before the call.
type Marks = HashMap<PmId, (PathBuf, u64)>;

/// Asks for a transaction over `ids` and shows its receipt.
///
/// # Errors
/// The reason, if it failed: exit code 1.
pub(super) fn carry_out(
    ctx: &mut Context,
    list: &[Value],
    ids: &[PmId],
    method: &str,
    env: Option<&Value>,
) -> Result<(), Failure> {
    let marks = marks(list, ids);
    let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
    let parallel = ctx.parsed.value("parallel");
    let parallel: Option<u32> = parallel.and_then(|text| text.parse().ok());
    let mut opts = json!({ "ids": ids, "parallel": parallel });
    if let Some(env) = env {
        opts["env"] = env.clone();
    }
    let receipt = ctx.daemon()?.call(method, opts)?;
    if ctx.parsed.has("json") {
        ctx.console.data(&format!("{receipt}\n"));
    }
    show(ctx, &receipt, &marks)
}

fn show(ctx: &mut Context, receipt: &Value, marks: &Marks) -> Result<(), Failure> {
    let parts = receipt["processes"].as_array();
    let parts = parts.map_or(&[][..], Vec::as_slice);
    for part in parts {
        let (name, id) = (text(part, "name"), &part["pm_id"]);
        match text(part, "outcome") {
            "replaced" | "restarted" => ctx.console.say(&format!("[{name}]({id}) ✓")),
            "rolled back" => ctx.console.say(&format!("[{name}]({id}) rolled back")),
            "failed" | "not rolled back" => show_last_words(ctx, part, marks),
            _ => {}
        }
    }
    let Some(reason) = receipt["reason"].as_str() else {
        notify(ctx, parts)?;
        return Ok(());
    };
    let mut told = reason.to_owned();
    for (outcome, words) in [
        ("untouched", "left as they were"),
        ("rolled back", "rolled back"),
        ("not rolled back", "could not be rolled back"),
    ] {
        let of_kind = |part: &&Value| text(part, "outcome") == outcome;
        let ids: Vec<String> = parts
            .iter()
            .filter(of_kind)
            .map(|part| part["pm_id"].to_string())
            .collect();
        if !ids.is_empty() {
            told.push_str(&format!("; {words}: {}", ids.join(", ")));
        }
    }
    Err(Failure::Error(told))
}

/// Shows what a failed process wrote to its error log since the call.
fn show_last_words(ctx: &mut Context, part: &Value, marks: &Marks) {
    let id = part["pm_id"].as_u64().and_then(|id| u32::try_from(id).ok());
    let Some((path, from)) = id.and_then(|id| marks.get(&PmId(id))) else {
        return;
    };
    let Ok(size) = std::fs::metadata(path).map(|meta| meta.len()) else {
        return;
    };
    if size <= *from {
        return;
    }
    let written = written_since(path, (*from).max(size.saturating_sub(MAX_BYTES)));
    let text = String::from_utf8_lossy(&written);
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        let shown: String = line.chars().map(visible).collect();
        ctx.console.err_line(&format!("  {shown}"));
    }
}

/// Returns what a file holds from `from` on; nothing if it cannot be read.
fn written_since(path: &Path, from: u64) -> Vec<u8> {
    let mut written = Vec::new();
    if let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::Start(from)).is_ok()
    {
        // What was read before an error is shown.
        let _ = file.take(MAX_BYTES).read_to_end(&mut written);
    }
    written
}

/// Control characters of an app must not drive the terminal.
fn visible(c: char) -> char {
    if c.is_control() && c != '\t' { '·' } else { c }
}

fn marks(list: &[Value], ids: &[PmId]) -> Marks {
    let mut marks = Marks::new();
    for process in list.iter().map(Process) {
        if !ids.contains(&process.id()) {
            continue;
        }
        let Some(path) = process.text("pm_err_log_path").map(Path::new) else {
            continue;
        };
        let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
        marks.insert(process.id(), (path.to_owned(), size));
    }
    marks
}

/// Tells subscribers of the bus what a person did.
fn notify(ctx: &mut Context, parts: &[Value]) -> Result<(), Failure> {
    for part in parts {
        let packet = json!({"id": part["pm_id"], "action_name": "reload", "manually": true});
        ctx.daemon()?.send("notifyByProcessId", &[packet])?;
    }
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}
