//! `rollback`: back to the release before, as a reload.

use crate::cli::context::Context;
use crate::cli::transaction;
use crate::cli::verbs::Outcome;

/// Reloads the target with the release it came from.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let target = ctx.parsed.operands[0].clone();
    ctx.console.data_only = ctx.parsed.has("json");
    let list = ctx.full_list()?;
    let ids = ctx.select(&list, &target)?;
    transaction::carry_out(ctx, &list, &ids, "musherRollback", None)?;
    Ok(0)
}
