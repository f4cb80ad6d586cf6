//! The history as JSON: receipts of reloads and the ends of runs.
//!
//! The same shape goes to a client (`musherReload`, `musher reload --json`) and
//! into the store, from which it is shown again. Times are ms since the epoch,
//! spans ms.

use crate::exit::ExitStatus;
use crate::supervisor::record::ExitRecord;
use crate::supervisor::roll::{Outcome, Part, Receipt};
use crate::time::{Millis, Wall};
use serde_json::{Value, json};

/// Returns what became of a roll.
pub fn receipt(receipt: &Receipt) -> Value {
    json!({
        "kind": "reload",
        "at": receipt.began.0,
        "ms": receipt.took.get(),
        "ok": receipt.failure.is_none(),
        "reason": receipt.failure,
        "processes": receipt.parts.iter().map(part).collect::<Vec<Value>>(),
    })
}

fn part(part: &Part) -> Value {
    let (outcome, reason) = outcome(&part.outcome);
    json!({
        "pm_id": part.pm_id.0,
        "name": part.app.name,
        "namespace": part.app.namespace,
        "outcome": outcome,
        "reason": reason,
        "revision": part.revision,
        "old_pid": part.old_pid,
        "new_pid": part.new_pid,
        "ready_ms": part.ready_after.map(Millis::get),
        "leave_ms": part.left_after.map(Millis::get),
        "killed": part.was_killed,
        "connections": part.drained.map(|drained| json!({
            "moved": drained.n_moved,
            "finished": drained.n_finished,
            "closed": drained.n_closed,
            "left": drained.n_left,
        })),
    })
}

fn outcome(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Replaced => ("replaced", None),
        Outcome::Restarted => ("restarted", None),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::Untouched => ("untouched", None),
        Outcome::RolledBack => ("rolled back", None),
        Outcome::NotRolledBack(reason) => ("not rolled back", Some(reason)),
    }
}

/// Returns how a run ended.
pub fn exit(record: &ExitRecord, at: Wall) -> Value {
    let signal = match record.status {
        ExitStatus::Signal(signal) => Some(signal.to_string()),
        ExitStatus::Code(_) | ExitStatus::Unknown => None,
    };
    let code = match record.status {
        ExitStatus::Code(code) => Some(code),
        ExitStatus::Signal(_) | ExitStatus::Unknown => None,
    };
    json!({
        "kind": "exit",
        "at": at.0,
        "pm_id": record.pm_id.0,
        "name": record.app.name,
        "namespace": record.app.namespace,
        "run": record.run.0,
        "pid": record.pid,
        "code": code,
        "signal": signal,
        "lived_ms": record.lived.get(),
        "asked": record.was_asked,
        "note": record.note,
    })
}
