//! `stop`, `restart`, `delete`: one action on every target.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::roll::{self, Action};
use crate::cli::typed;
use crate::cli::verbs::Outcome;
use crate::cli::{commands::start, source};
use musher_core::id::PmId;

/// Stops processes; their slots stay.
pub(in crate::cli) fn stop(ctx: &mut Context) -> Outcome {
    each(ctx, "stopProcessId", "stop")
}

/// Stops processes and forgets them.
pub(in crate::cli) fn delete(ctx: &mut Context) -> Outcome {
    each(ctx, "deleteProcessId", "delete")
}

/// Restarts processes.
pub(in crate::cli) fn restart(ctx: &mut Context) -> Outcome {
    for target in ctx.parsed.operands.clone() {
        if source::is_config(&target) {
            start::file(ctx, &target, "restartProcessId")?;
            continue;
        }
        restart_target(ctx, &target, "restartProcessId")?;
    }
    ctx.print_table()?;
    Ok(0)
}

/// Restarts or reloads the processes of one word, with what was typed.
pub(in crate::cli) fn restart_target(
    ctx: &mut Context,
    target: &str,
    method: &'static str,
) -> Result<(), Failure> {
    if ctx.parsed.has("env") {
        let text = "Using --env [env] without passing the ecosystem.config.js does not work";
        return Err(Failure::Error(text.to_owned()));
    }
    if !ctx.parsed.has("update-env") {
        ctx.console
            .line("Use --update-env to update environment variables");
    }
    let env = typed::changes(ctx)?;
    let list = ctx.list()?;
    let ids = ctx.select(&list, target)?;
    let action = Action {
        method,
        event: event(method),
        target,
        env: Some(env),
    };
    roll::roll(ctx, &list, &ids, &action)
}

/// Returns the bus's word for a method.
pub(in crate::cli) fn event(method: &str) -> &'static str {
    match method {
        "reloadProcessId" => "reload",
        "stopProcessId" => "stop",
        "deleteProcessId" => "delete",
        _ => "restart",
    }
}

fn each(ctx: &mut Context, method: &'static str, event: &'static str) -> Outcome {
    for target in ctx.parsed.operands.clone() {
        let list = ctx.list()?;
        if source::is_config(&target) {
            let names: Vec<String> = source::file(ctx, &target)?
                .iter()
                .map(|app| app.name.clone())
                .collect();
            for name in names {
                let ids = ids_of(&list, &name);
                if !ids.is_empty() {
                    run(ctx, &list, &ids, method, event, &name)?;
                }
            }
            continue;
        }
        let ids = ctx.select(&list, &target)?;
        run(ctx, &list, &ids, method, event, &target)?;
    }
    ctx.print_table()?;
    Ok(0)
}

fn run(
    ctx: &mut Context,
    list: &[serde_json::Value],
    ids: &[PmId],
    method: &'static str,
    event: &'static str,
    target: &str,
) -> Result<(), Failure> {
    let action = Action {
        method,
        event,
        target,
        env: None,
    };
    roll::roll(ctx, list, ids, &action)
}

/// Returns the ids of a name.
pub(in crate::cli) fn ids_of(list: &[serde_json::Value], name: &str) -> Vec<PmId> {
    list.iter()
        .map(Process)
        .filter(|process| process.name() == name)
        .map(Process::id)
        .collect()
}
