//! The two roles people never call: `musher keeper` and `musher daemon`.

use crate::cli::context::Context;
use crate::cli::verbs::Outcome;
use crate::paths::{Paths, Style};
use std::ffi::OsString;

/// Becomes the keeper of the home.
pub(in crate::cli) fn keeper(ctx: &mut Context) -> Outcome {
    Ok(crate::roles::keeper(&paths(ctx)))
}

/// Becomes the daemon; only the keeper calls this.
pub(in crate::cli) fn daemon(ctx: &mut Context) -> Outcome {
    Ok(crate::roles::daemon(&paths(ctx)))
}

/// Returns the paths of the home named on the line: whoever starts a role may
/// have found the home by the name it was called by, which the role does not
/// share.
fn paths(ctx: &Context) -> Paths {
    match ctx.parsed.operands.first() {
        Some(home) => Paths::find(Style::Musher, |name| match name {
            "MUSHER_HOME" => Some(OsString::from(home)),
            _ => std::env::var_os(name),
        }),
        None => ctx.paths.clone(),
    }
}
