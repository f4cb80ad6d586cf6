//! `list`, `jlist`, `prettylist`.

use crate::cli::context::Context;
use crate::cli::verbs::Outcome;
use musher_core::wire::inspect::inspect;
use serde_json::Value;

/// Prints the process table.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    ctx.print_table()?;
    Ok(0)
}

/// Prints the list as one line of JSON, without a newline.
pub(in crate::cli) fn jlist(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    ctx.console.data(&Value::Array(list).to_string());
    Ok(0)
}

/// Prints the list as Node shows it, without a newline.
pub(in crate::cli) fn prettylist(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    ctx.console.data(&inspect(&Value::Array(list)));
    Ok(0)
}
