//! `save`, `cleardump`, `resurrect`: the list that survives a reboot.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use crate::dump::{DumpError, read};
use crate::files::{Durability, replace};
use crate::paths::Paths;
use serde_json::Value;
use std::path::Path;

/// Fields that belong to one life of the daemon.
const NOT_SAVED: [&str; 3] = ["instances", "pm_id", "prev_restart_delay"];

/// Saves the list; an empty one only by force.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    ctx.console.say("Saving current process list...");
    let list = ctx.full_list()?;
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
            create_empty(&ctx.paths.dump)?;
        }
        return Ok(0);
    }
    crate::dump::write(&ctx.paths, &serde_json::to_string_pretty(&entries)?)
        .map_err(|error| unsaved(&ctx.paths, error.to_string()))?;
    let path = ctx.paths.dump.display().to_string();
    ctx.console.say(&format!("Successfully saved in {path}"));
    Ok(0)
}

/// Empties the saved list.
pub(in crate::cli) fn clear(ctx: &mut Context) -> Outcome {
    ctx.paths.create()?;
    create_empty(&ctx.paths.dump)?;
    let path = ctx.paths.dump.display().to_string();
    ctx.console.say(&format!("Successfully created {path}"));
    Ok(0)
}

/// Starts what was saved and is not there by name.
pub(in crate::cli) fn resurrect(ctx: &mut Context) -> Outcome {
    ctx.console.say("Resurrecting");
    let files = [ctx.paths.dump.clone(), ctx.paths.dump_backup.clone()];
    let mut found = None;
    for path in files {
        match read(&path) {
            Ok(entries) => {
                found = Some((path, entries));
                break;
            }
            Err(DumpError::Missing) => (),
            Err(DumpError::Damaged(why)) => {
                let path = path.display();
                ctx.console
                    .warn_err(&format!("{path} is damaged and left as it is: {why}"));
            }
        }
    }
    let Some((path, entries)) = found else {
        ctx.console
            .error("No processes saved; DUMP file doesn't exist");
        ctx.console
            .help("start the apps and write the list with `musher save`");
        ctx.print_table()?;
        return Ok(0);
    };
    ctx.console.say(&format!(
        "Restoring processes located in {}",
        path.display()
    ));
    let list = ctx.list()?;
    for (index, entry) in entries.into_iter().enumerate() {
        let text = |key| entry.get(key).and_then(Value::as_str);
        let name = text("name").unwrap_or("");
        if list.iter().any(|process| Process(process).name() == name) {
            continue;
        }
        let shown = text("pm_exec_path").or_else(|| text("name"));
        let shown = shown.map_or_else(|| format!("entry {index}"), str::to_owned);
        match ctx.daemon()?.call("prepare", Value::Object(entry)) {
            Ok(_) => ctx.console.say(&format!("Process {shown} restored")),
            Err(error) => ctx.console.error(&format!("{shown}: {error}")),
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

/// Returns the longest `kill_timeout` of the saved list, ms; 0 without a list.
pub(in crate::cli) fn longest_kill_timeout(paths: &Paths) -> u64 {
    let entries = read(&paths.dump).unwrap_or_default();
    let timeouts = entries
        .iter()
        .filter_map(|entry| entry.get("kill_timeout")?.as_u64());
    timeouts.max().unwrap_or(0)
}

fn create_empty(path: &Path) -> Result<(), Failure> {
    replace(path, "[]", Durability::Disk)
        .map_err(|error| Failure::Error(format!("could not write {}: {error}", path.display())))
}

fn unsaved(paths: &Paths, text: String) -> Failure {
    let home = paths.home.display();
    Failure::Helped {
        text,
        help: format!("the list saved before is untouched; `df {home}` shows the room left"),
    }
}
