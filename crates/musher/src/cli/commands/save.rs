//! `save`, `cleardump`, `resurrect`: the list that survives a reboot.

use crate::cli::context::Context;
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use crate::files::{Durability, replace};
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// Fields that belong to one life of the daemon.
const NOT_SAVED: [&str; 3] = ["instances", "pm_id", "prev_restart_delay"];

/// Saves the list; an empty one only by force.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    ctx.console.say("Saving current process list...");
    let list = ctx.list()?;
    let entries: Vec<Value> = list
        .iter()
        .map(Process)
        .filter(|process| !process.is_module())
        .filter_map(saved)
        .collect();
    let forced = ctx.parsed.attributes.contains_key("force") || ctx.var("FORCE").is_some();
    if entries.is_empty() && !forced {
        ctx.console
            .warn("PM2 is not managing any process, skipping save...");
        ctx.console.warn("To force saving use: pm2 save --force");
        if !ctx.paths.dump.exists() {
            replace(&ctx.paths.dump, "[]", Durability::Disk)?;
        }
        return Ok(0);
    }
    crate::dump::write(&ctx.paths, &serde_json::to_string_pretty(&entries)?)?;
    let path = ctx.paths.dump.display().to_string();
    ctx.console.say(&format!("Successfully saved in {path}"));
    Ok(0)
}

/// Empties the saved list.
pub(in crate::cli) fn clear(ctx: &mut Context) -> Outcome {
    ctx.paths.create()?;
    replace(&ctx.paths.dump, "[]", Durability::Disk)?;
    let path = ctx.paths.dump.display().to_string();
    ctx.console.say(&format!("Successfully created {path}"));
    Ok(0)
}

/// Starts what was saved and is not there by name.
pub(in crate::cli) fn resurrect(ctx: &mut Context) -> Outcome {
    ctx.console.say("Resurrecting");
    let path = ctx.paths.dump.display().to_string();
    let Some(entries) = read(&ctx.paths.dump).or_else(|| read(&ctx.paths.dump_backup)) else {
        ctx.console
            .error("No processes saved; DUMP file doesn't exist");
        ctx.print_table()?;
        return Ok(0);
    };
    ctx.console
        .say(&format!("Restoring processes located in {path}"));
    let list = ctx.list()?;
    for entry in entries {
        let name = entry.get("name").and_then(Value::as_str).unwrap_or("");
        if list.iter().any(|process| Process(process).name() == name) {
            continue;
        }
        let script = entry.get("pm_exec_path").and_then(Value::as_str);
        let script = script.unwrap_or(name).to_owned();
        match ctx.daemon()?.call("prepare", Value::Object(entry)) {
            Ok(_) => ctx.console.say(&format!("Process {script} restored")),
            Err(error) => ctx.console.error(&format!("{script}: {error}")),
        }
    }
    ctx.print_table()?;
    Ok(0)
}

fn saved(process: Process<'_>) -> Option<Value> {
    let mut entry = process.0.get("pm2_env")?.as_object()?.clone();
    for key in NOT_SAVED {
        entry.shift_remove(key);
    }
    Some(Value::Object(entry))
}

/// Returns the entries of a dump; `None` when it is missing or corrupt.
fn read(path: &Path) -> Option<Vec<Map<String, Value>>> {
    let text = fs::read_to_string(path).ok()?;
    let value: Value = json5::from_str(&text).ok()?;
    let entries = value.as_array()?;
    Some(
        entries
            .iter()
            .filter_map(Value::as_object)
            .cloned()
            .collect(),
    )
}
