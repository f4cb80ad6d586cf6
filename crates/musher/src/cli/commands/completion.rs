//! `completion`: a script that completes verbs and options in a shell.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::verbs::Outcome;
use crate::cli::{help, parse};
use clap_complete::Shell;

/// Prints the script of a shell; without a name, of the caller's.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let named = ctx.parsed.operands.first().map(String::as_str);
    let own = ctx.var("SHELL").and_then(|path| path.rsplit('/').next());
    let shell = match named.or(own) {
        Some("bash") => Shell::Bash,
        Some("zsh") => Shell::Zsh,
        Some("fish") => Shell::Fish,
        Some(_) | None => {
            let program = help::program(ctx.console.style);
            return Err(Failure::Error(format!(
                "write `{program} completion bash`, `zsh` or `fish`, and put the text where \
                 your shell looks for completions"
            )));
        }
    };
    let mut script = Vec::new();
    let program = help::program(ctx.console.style);
    clap_complete::generate(shell, &mut parse::tree(program), program, &mut script);
    ctx.console.bytes(&script);
    Ok(0)
}
