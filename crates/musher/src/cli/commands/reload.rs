//! `reload`: replace running processes, one reload of a home at a time.

use super::start::reload_target;
use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::verbs::Outcome;
use std::fs;

/// A lock older than this was left behind.
const LOCK_TIMEOUT_MS: i64 = 30_000;

/// Reloads the targets under the reload lock.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    ctx.console.data_only = ctx.parsed.has("json");
    take_lock(ctx)?;
    let outcome = ctx
        .parsed
        .operands
        .clone()
        .iter()
        .try_for_each(|target| reload_target(ctx, target));
    // An empty file is a free lock; a lock that stays ends by its age.
    let _ = fs::write(&ctx.paths.reload_lock, "");
    outcome.map(|()| 0)
}

fn take_lock(ctx: &mut Context) -> Result<(), Failure> {
    let timeout = ctx.var("PM2_RELOAD_LOCK_TIMEOUT");
    let timeout = timeout.and_then(|text| text.parse().ok());
    let timeout = timeout.unwrap_or(LOCK_TIMEOUT_MS);
    let now = musher_os::clock::now().wall.0;
    let held_since = fs::read_to_string(&ctx.paths.reload_lock)
        .ok()
        .and_then(|text| text.trim().parse::<i64>().ok());
    let forced = ctx.parsed.attributes.contains_key("force");
    if let Some(since) = held_since.filter(|since| !forced && now - since < timeout) {
        let left = (timeout - (now - since)).max(0) / 1000;
        return Err(Failure::Error(format!(
            "Reload already in progress, please try again in {left} seconds or use --force"
        )));
    }
    ctx.paths.create()?;
    // The daemon guards each process by itself: on a full disk reloads go on.
    if let Err(error) = fs::write(&ctx.paths.reload_lock, now.to_string()) {
        let lock = ctx.paths.reload_lock.display();
        let text = format!("could not write {lock} ({error}); going on without the reload lock");
        ctx.console.warn(&text);
    }
    Ok(())
}
