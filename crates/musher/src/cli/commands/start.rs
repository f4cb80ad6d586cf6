//! `start`, `startOrRestart`, `startOrReload`: scripts, files, known names.

use super::actions::{event, ids_of, restart_target};
use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::roll::{self, Action};
use crate::cli::verbs::Outcome;
use crate::cli::{source, typed};
use crate::ecosystem::{self, App};
use musher_core::id::PmId;
use musher_os::lock::LockFile;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// The file PM2 names when there is no target and no file.
const DEFAULT_FILE: &str = "ecosystem.config.js";

/// Starts scripts, config files, or what is known already.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let mut targets = ctx.parsed.operands.clone();
    if targets.is_empty() {
        let found = ecosystem::find_default(Path::new(ctx.caller.cwd()));
        let found = found.map_or(DEFAULT_FILE.to_owned(), |path| path.display().to_string());
        targets.push(found);
    }
    for target in targets {
        if source::is_config(&target) {
            file(ctx, &target, "restartProcessId")?;
        } else {
            smart_start(ctx, &target)?;
        }
    }
    ctx.print_table()?;
    Ok(0)
}

/// `startOrRestart <file>`.
pub(in crate::cli) fn start_or_restart(ctx: &mut Context) -> Outcome {
    let target = ctx.parsed.operands[0].clone();
    file(ctx, &target, "restartProcessId")?;
    ctx.print_table()?;
    Ok(0)
}

/// `startOrReload <file>`.
pub(in crate::cli) fn start_or_reload(ctx: &mut Context) -> Outcome {
    let target = ctx.parsed.operands[0].clone();
    file(ctx, &target, "reloadProcessId")?;
    ctx.print_table()?;
    Ok(0)
}

/// Longest wait for another client that launches an app.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Brings up the apps of a config file: known ones by `method`, others anew.
/// Everything is resolved before anything is started.
///
/// # Errors
/// Mistakes were printed; or the daemon refused.
pub(in crate::cli) fn file(
    ctx: &mut Context,
    path: &str,
    method: &'static str,
) -> Result<(), Failure> {
    let apps = source::file(ctx, path)?;
    let list = ctx.list()?;
    let absent: Vec<&str> = apps
        .iter()
        .map(|app| app.name.as_str())
        .filter(|name| ids_of(&list, name).is_empty())
        .collect();
    if !absent.is_empty() {
        let names = absent.join(", ");
        ctx.console
            .warn(&format!("Applications {names} not running, starting..."));
    }
    let mut n_failed = 0;
    for app in &apps {
        let ids = ids_of(&list, &app.name);
        let done = if ids.is_empty() {
            launch_of_file(ctx, app, method)
        } else {
            update(ctx, app, method, &list, &ids)
        };
        if let Err(failure) = done {
            match failure {
                Failure::Told => (),
                Failure::Error(text) => ctx.console.error(&text),
                Failure::Helped { text, help } => {
                    ctx.console.error(&text);
                    ctx.console.help(&help);
                }
            }
            n_failed += 1;
        }
    }
    if n_failed > 0 {
        return Err(Failure::Told);
    }
    Ok(())
}

/// Restarts or reloads what is known of an app with its attributes of the file.
fn update(
    ctx: &mut Context,
    app: &App,
    method: &'static str,
    list: &[Value],
    ids: &[PmId],
) -> Result<(), Failure> {
    let action = Action {
        method,
        event: event(method),
        target: &app.name,
        env: Some(typed::file_changes(ctx, &app.resolved)),
    };
    roll::roll(ctx, list, ids, &action)
}

/// Starts an app, unless another client was first; then updates it.
fn launch_of_file(ctx: &mut Context, app: &App, method: &'static str) -> Result<(), Failure> {
    let turn = take_turn(ctx);
    let list = ctx.list()?;
    let ids = ids_of(&list, &app.name);
    if !ids.is_empty() {
        drop(turn);
        return update(ctx, app, method, &list, &ids);
    }
    let started = prepare(ctx, &app.resolved.description)?;
    ctx.console.say(&format!(
        "App [{}] launched ({started} instances)",
        app.name
    ));
    Ok(())
}

/// PM2's order of tests for a word that is no config file.
fn smart_start(ctx: &mut Context, target: &str) -> Result<(), Failure> {
    let list = ctx.list()?;
    if is_known(ctx, &list, target) {
        restart_known(ctx, &list, target)?;
        ctx.console.say("Process successfully started");
        return Ok(());
    }
    let app = source::script(ctx, target)?;
    let turn = take_turn(ctx);
    let list = ctx.list()?;
    let path = text(&app.description, "pm_exec_path");
    let name = text(&app.description, "name");
    let twin = list
        .iter()
        .map(Process)
        .find(|process| process.name() == name && process.text("pm_exec_path") == Some(path));
    let forced = ctx.parsed.attributes.contains_key("force");
    if let Some(twin) = twin.filter(|_| !forced) {
        if matches!(twin.status(), "stopped" | "stopping" | "errored") {
            drop(turn);
            restart_known(ctx, &list, name)?;
            return Ok(());
        }
        let text = "Script already launched, add -f option to force re-execution";
        return Err(Failure::Error(text.to_owned()));
    }
    announce(ctx, &app.description);
    prepare(ctx, &app.description)?;
    ctx.console.say("Done.");
    Ok(())
}

/// Waits until no other client launches an app: two that look at the list at the
/// same time would both start what it lacks. A lock that cannot be had in
/// [`TURN_LIMIT`] or written is done without.
fn take_turn(ctx: &Context) -> Option<LockFile> {
    LockFile::lock_within(&ctx.paths.launch_lock, TURN_LIMIT).unwrap_or_default()
}

/// Returns true for an id, and for a bare word that names something known.
fn is_known(ctx: &Context, list: &[Value], target: &str) -> bool {
    if !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    if target.contains('/') || Path::new(target).extension().is_some() {
        return false;
    }
    let path = Path::new(ctx.caller.cwd()).join(target);
    let is_meant = |process: Process<'_>| {
        process.name() == target
            || process.namespace() == target
            || process.text("pm_exec_path").map(Path::new) == Some(path.as_path())
    };
    (target == "all" && !list.is_empty()) || list.iter().map(Process).any(is_meant)
}

/// Restarts without the hint about `--update-env`.
fn restart_known(ctx: &mut Context, list: &[Value], target: &str) -> Result<(), Failure> {
    let ids = ctx.select(list, target)?;
    let action = Action {
        method: "restartProcessId",
        event: "restart",
        target,
        env: Some(typed::changes(ctx)?),
    };
    roll::roll(ctx, list, &ids, &action)
}

fn announce(ctx: &mut Context, description: &Map<String, Value>) {
    let n = ctx.parsed.attributes.get("instances");
    let n = n.or_else(|| description.get("instances"));
    let n = match n {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(other) => other.as_i64().unwrap_or(1),
        None => 1,
    };
    let plural = if n > 1 { "s" } else { "" };
    let path = text(description, "pm_exec_path").to_owned();
    let mode = text(description, "exec_mode").to_owned();
    ctx.console
        .say(&format!("Starting {path} in {mode} ({n} instance{plural})"));
}

/// Starts an app; returns how many processes that made.
fn prepare(ctx: &mut Context, description: &Map<String, Value>) -> Result<usize, Failure> {
    let records = ctx
        .daemon()?
        .call("prepare", Value::Object(description.clone()))?;
    Ok(records.as_array().map_or(1, Vec::len))
}

fn text<'a>(description: &'a Map<String, Value>, key: &str) -> &'a str {
    description.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Reloads are restarts in all but the method.
pub(in crate::cli) fn reload_target(ctx: &mut Context, target: &str) -> Result<(), Failure> {
    if source::is_config(target) {
        return file(ctx, target, "reloadProcessId");
    }
    restart_target(ctx, target, "reloadProcessId")
}
