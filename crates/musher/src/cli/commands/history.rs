//! `history`, `why`: how runs ended and reloads went.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::units;
use crate::cli::verbs::Outcome;
use serde_json::{Value, json};

/// Entries shown unless `--lines` says otherwise.
const DEFAULT_LINES: u32 = 50;
/// Ends shown by `why`.
const WHY_LINES: u32 = 200;

/// Prints the history of an app, or of all.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let limit = ctx.parsed.value("lines");
    let limit = limit.map_or(Ok(DEFAULT_LINES), str::parse);
    let limit = limit.map_err(|_| Failure::Error("--lines takes a number".to_owned()))?;
    let app = ctx.parsed.operands.first().cloned();
    let entries = entries(ctx, app.as_deref(), limit)?;
    if ctx.parsed.has("json") {
        ctx.console.data(&format!("{}\n", Value::Array(entries)));
        return Ok(0);
    }
    if entries.is_empty() {
        let whose = app.map_or_else(String::new, |app| format!(" of {app}"));
        ctx.console.line(&format!("no history{whose} yet"));
    }
    for entry in entries {
        for line in lines(&entry) {
            ctx.console.line(&line);
        }
    }
    Ok(0)
}

/// Prints why an app is in the state it is in: the status, its reason, and the
/// last end that nobody asked for.
pub(in crate::cli) fn why(ctx: &mut Context) -> Outcome {
    let wanted = ctx.parsed.operands[0].clone();
    let list = ctx.full_list()?;
    let found: Vec<Process<'_>> = list
        .iter()
        .map(Process)
        .filter(|process| process.name() == wanted || process.id().to_string() == wanted)
        .collect();
    let Some(name) = found.first().map(|process| process.name().to_owned()) else {
        return Err(Failure::unlisted(format!("{wanted} doesn't exist")));
    };
    let entries = entries(ctx, Some(&name), WHY_LINES)?;
    for process in found {
        let id = process.id();
        let reason = process.reason().unwrap_or("no reason noted");
        ctx.console
            .line(&format!("{name} ({id}) is {}: {reason}", process.status()));
        let mut ends = entries
            .iter()
            .rev()
            .filter(|entry| entry["kind"] == "exit" && entry["pm_id"] == id.0);
        let last = ends.clone().next();
        match (ends.find(|entry| entry["asked"] != true), last) {
            (Some(unasked), _) => {
                let line = lines(unasked).concat();
                ctx.console.line(&format!("  last end of its own: {line}"));
            }
            (None, Some(asked)) => {
                let line = lines(asked).concat();
                ctx.console
                    .line(&format!("  it ended only when asked: {line}"));
            }
            (None, None) => ctx.console.line("  no run of it has ended yet"),
        }
        if let Some(path) = process.text("pm_err_log_path") {
            ctx.console.line(&format!("  its stderr: {path}"));
        }
    }
    Ok(0)
}

fn entries(ctx: &mut Context, app: Option<&str>, limit: u32) -> Result<Vec<Value>, Failure> {
    let query = json!({ "name": app, "limit": limit });
    let answer = ctx.daemon()?.call("musherHistory", query)?;
    match answer {
        Value::Array(entries) => Ok(entries),
        _ => Ok(Vec::new()),
    }
}

fn lines(entry: &Value) -> Vec<String> {
    let at = entry["at"].as_i64().map_or_else(String::new, units::iso);
    match entry["kind"].as_str() {
        Some("exit") => vec![format!("{at}  {}", exit(entry))],
        Some("reload") => {
            let ms = &entry["ms"];
            let how = match entry["reason"].as_str() {
                None => format!("reload done in {ms} ms"),
                Some(reason) => format!("reload failed after {ms} ms: {reason}"),
            };
            let mut lines = vec![format!("{at}  {how}")];
            let parts = entry["processes"].as_array();
            lines.extend(
                parts
                    .into_iter()
                    .flatten()
                    .map(|part| format!("    {}", one(part))),
            );
            lines
        }
        _ => vec![format!("{at}  {entry}")],
    }
}

fn exit(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str();
    let how = match (text("signal"), entry["code"].as_i64()) {
        (Some(signal), _) => format!("was ended by {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended; how is not known".to_owned(),
    };
    let asked = if entry["asked"] == true {
        " as asked"
    } else {
        ""
    };
    let note = text("note").map_or_else(String::new, |note| format!(": {note}"));
    let lived = units::span(entry["lived_ms"].as_i64().unwrap_or(0));
    let pid = entry["pid"].as_u64();
    let pid = pid.map_or_else(String::new, |pid| format!(" pid {pid}"));
    let (name, id) = (text("name").unwrap_or(""), &entry["pm_id"]);
    format!("{name} ({id}){pid} {how}{asked} after {lived}{note}")
}

fn one(part: &Value) -> String {
    let mut line = format!(
        "{} ({}) {}",
        part["name"].as_str().unwrap_or(""),
        part["pm_id"],
        part["outcome"].as_str().unwrap_or("")
    );
    let pids = (part["old_pid"].as_u64(), part["new_pid"].as_u64());
    match pids {
        (Some(old), Some(new)) if old != new => line.push_str(&format!(", pid {old} → {new}")),
        (_, Some(pid)) => line.push_str(&format!(", pid {pid}")),
        (_, None) => {}
    }
    for (key, words) in [
        ("revision", "revision"),
        ("ready_ms", "ready after ms"),
        ("leave_ms", "old one left after ms"),
    ] {
        if let Some(n) = part[key].as_u64() {
            line.push_str(&format!(", {words} {n}"));
        }
    }
    if let Some(c) = part["connections"].as_object() {
        let n = |key: &str| c.get(key).and_then(Value::as_u64).unwrap_or(0);
        line.push_str(&format!(
            ", connections: {} moved, {} finished, {} closed, {} left",
            n("moved"),
            n("finished"),
            n("closed"),
            n("left")
        ));
    }
    if part["killed"] == true {
        line.push_str(", killed");
    }
    if let Some(reason) = part["reason"].as_str() {
        line.push_str(&format!(": {reason}"));
    }
    line
}
