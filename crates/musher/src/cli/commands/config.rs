//! `config check <file>`: every mistake of a config file at once.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::source;
use crate::cli::verbs::Outcome;
use crate::ecosystem::{self, CliOverrides};

/// Checks a config file; exit code 1 when it has errors.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let operands = ctx.parsed.operands.clone();
    let (Some("check"), Some(path)) = (operands.first().map(String::as_str), operands.get(1))
    else {
        return Err(Failure::Error(
            "write `musher config check <file>`".to_owned(),
        ));
    };
    let overrides = CliOverrides {
        env_name: ctx.parsed.value("env").map(str::to_owned),
        ..CliOverrides::default()
    };
    let resolved = ecosystem::resolve_file(path, &overrides, &source::environment(ctx)?);
    let outcome = resolved.map_err(|error| source::unreadable(ctx, &error))?;
    for problem in &outcome.problems {
        let text = ecosystem::render(&outcome.config.file, problem);
        ctx.console.err_line(&text);
    }
    if outcome.has_errors() {
        return Err(Failure::Told);
    }
    let names: Vec<&str> = outcome.apps.iter().map(|app| app.name.as_str()).collect();
    let noun = if names.len() == 1 { "app" } else { "apps" };
    ctx.console.line(&format!(
        "{path}: {} {noun}: {}",
        names.len(),
        names.join(", ")
    ));
    Ok(0)
}
