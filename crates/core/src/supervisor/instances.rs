//! Ids, instance numbers and increments, allocated as PM2 does.

use super::process::Process;
use crate::app::AppSpec;
use crate::id::PmId;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the smallest instance number no process of this name uses.
pub fn free_instance(processes: &BTreeMap<PmId, Process>, name: &str) -> u32 {
    let used: BTreeSet<u32> = processes
        .values()
        .filter(|process| process.spec.name == name)
        .map(|process| process.instance)
        .collect();
    (0..)
        .find(|number| !used.contains(number))
        .unwrap_or(u32::MAX)
}

/// Returns the value of `increment_var` for one more process of this app: the
/// highest in use plus one, else the declared value or 0.
pub fn next_increment(processes: &BTreeMap<PmId, Process>, spec: &AppSpec) -> Option<i64> {
    let variable = spec.increment_var.as_ref()?;
    let highest = processes
        .values()
        .filter(|process| process.spec.name == spec.name)
        .filter_map(|process| process.increment)
        .max();
    Some(highest.map_or_else(
        || declared(spec.env.get(variable)),
        |value| value.saturating_add(1),
    ))
}

fn declared(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => text.trim().parse().unwrap_or(0),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => 0,
    }
}
