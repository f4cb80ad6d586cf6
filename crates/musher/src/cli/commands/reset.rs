//! `reset`, `monitor`, `unmonitor`: small changes of a process's record.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use crate::paths::Style;
use musher_core::id::PmId;
use serde_json::{Value, json};

/// Sets counters to zero.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    let target = ctx.parsed.operands[0].clone();
    let ids = ids(&list, &target);
    if ids.is_empty() {
        let text = "Unknown process name";
        if ctx.console.style == Style::Pm2 {
            // PM2 says it without its prefix.
            ctx.console.err_line(text);
            return Err(Failure::Told);
        }
        return Err(Failure::unlisted(format!("{text}: {target}")));
    }
    for id in ids {
        ctx.console
            .say(&format!("Resetting meta for process id {id}"));
        let answer = ctx.daemon()?.call("resetMetaProcessId", json!(id.0));
        // PM2 exits 0 when an id is unknown.
        if let Err(error) = answer {
            ctx.console.error(&error.to_string());
        }
    }
    ctx.print_table()?;
    Ok(0)
}

/// Marks processes as monitored.
pub(in crate::cli) fn monitor(ctx: &mut Context) -> Outcome {
    mark(ctx, "monitor")
}

/// Takes the mark away.
pub(in crate::cli) fn unmonitor(ctx: &mut Context) -> Outcome {
    mark(ctx, "unmonitor")
}

fn mark(ctx: &mut Context, method: &str) -> Outcome {
    let list = ctx.list()?;
    let target = ctx.parsed.operands.first();
    let target = target.map_or("all", String::as_str).to_owned();
    for id in ids(&list, &target) {
        if let Err(error) = ctx.daemon()?.call(method, json!(id.0)) {
            ctx.console.error(&error.to_string());
        }
    }
    ctx.print_table()?;
    Ok(0)
}

/// Returns the ids of a name, a number or `all`; a number need not exist.
fn ids(list: &[Value], target: &str) -> Vec<PmId> {
    let named: Vec<PmId> = list
        .iter()
        .map(Process)
        .filter(|process| target == "all" || process.name() == target)
        .map(Process::id)
        .collect();
    match target.parse() {
        Ok(id) if named.is_empty() => vec![PmId(id)],
        Ok(_) | Err(_) => named,
    }
}
