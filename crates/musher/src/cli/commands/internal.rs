//! The two roles people never call: `musher keeper` and `musher daemon`.

use crate::cli::context::Context;
use crate::cli::verbs::Outcome;

/// Becomes the keeper of the home.
pub(in crate::cli) fn keeper(ctx: &mut Context) -> Outcome {
    Ok(crate::roles::keeper(&ctx.paths))
}

/// Becomes the daemon; only the keeper calls this.
pub(in crate::cli) fn daemon(ctx: &mut Context) -> Outcome {
    Ok(crate::roles::daemon(&ctx.paths))
}
