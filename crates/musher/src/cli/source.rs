//! Where apps come from: config files, stdin, scripts.

use super::context::Context;
use super::output::Failure;
use crate::ecosystem::{self, App, CliOverrides, Environment, LoadError};
use crate::paths::Style;
use musher_core::app::attributes::{ConfigError, Severity};
use musher_core::app::resolve::Resolved;
use serde_json::{Map, Value};

/// Attributes on the line that replace those of every app of a file.
const REPLACING: [&str; 5] = ["cwd", "uid", "gid", "instances", "ignore_watch"];
/// Attributes on the line for apps of a file that have none of their own.
const FILLING: [&str; 2] = ["namespace", "watch"];

/// Returns true when a word names a config file, or stdin.
pub(super) fn is_config(word: &str) -> bool {
    word == "-" || ecosystem::is_config_file(word)
}

/// Returns the apps of a config file that `--only` leaves.
///
/// # Errors
/// Every mistake of the file was printed, and nothing may be done.
pub(super) fn file(ctx: &mut Context, path: &str) -> Result<Vec<App>, Failure> {
    let only = ctx.parsed.value("only").unwrap_or("").to_owned();
    let overrides = CliOverrides {
        only: only
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        env_name: ctx.parsed.value("env").map(str::to_owned),
        replace: typed(ctx, &REPLACING),
        fill: typed(ctx, &FILLING),
        argv: std::env::args().skip(1).collect(),
    };
    let resolved = ecosystem::resolve_file(path, &overrides, &environment(ctx)?);
    let outcome = resolved.map_err(|error| unreadable(ctx, &error))?;
    if ctx.console.style == Style::Pm2 {
        tell(ctx, &outcome.problems);
    } else {
        for problem in &outcome.problems {
            let text = ecosystem::render(&outcome.config.file, problem);
            ctx.console.err_line(&text);
        }
    }
    if outcome.has_errors() {
        tell_count(ctx, &outcome.problems);
        return Err(Failure::Told);
    }
    if outcome.apps.is_empty() && !only.is_empty() && ctx.console.style == Style::Musher {
        let declared = outcome.config.apps.iter();
        let names: Vec<&str> = declared
            .filter_map(|app| app.get("name")?.as_str())
            .collect();
        ctx.console.warn_err(&format!(
            "no app of {path} is called {only}; it declares: {}",
            names.join(", ")
        ));
    }
    Ok(outcome.apps)
}

/// Returns the failure of a file that cannot be read at all.
pub(super) fn unreadable(ctx: &Context, error: &LoadError) -> Failure {
    let text = error.to_string();
    match error {
        LoadError::NotFound { source, .. } => Failure::Helped {
            text,
            help: format!("{source}; relative paths start from {}", ctx.caller.cwd()),
        },
        LoadError::Malformed { .. }
        | LoadError::NoRuntime { .. }
        | LoadError::TimedOut { .. }
        | LoadError::TooLarge { .. }
        | LoadError::Engine { .. }
        | LoadError::Shape { .. } => Failure::Error(text),
    }
}

/// Returns the app of a script and the options on the line.
///
/// # Errors
/// Every mistake was printed.
pub(super) fn script(ctx: &mut Context, word: &str) -> Result<Resolved, Failure> {
    let mut attributes = ctx.parsed.attributes.clone();
    if let Some(rest) = &ctx.parsed.rest {
        attributes.insert("args".to_owned(), rest.clone().into());
    }
    let env_name = ctx.parsed.value("env");
    match ecosystem::resolve_script(word, &attributes, env_name, &environment(ctx)?) {
        Ok(resolved) => {
            tell(ctx, &resolved.warnings);
            Ok(resolved)
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                // PM2's text alone on its line: scripts match it.
                ctx.console.error(&mistake.message);
                if let Some(help) = &mistake.help {
                    ctx.console.err_line(&format!("  help: {help}"));
                }
            }
            Err(Failure::Told)
        }
    }
}

/// Returns what apps are resolved against.
///
/// # Errors
/// The working directory is gone.
pub(super) fn environment(ctx: &Context) -> Result<Environment, Failure> {
    let path = |path: &std::path::Path| path.display().to_string();
    Ok(Environment::of_process(
        &path(&ctx.paths.home),
        &path(&ctx.paths.logs),
        &path(&ctx.paths.pids),
    )?)
}

fn typed(ctx: &Context, names: &[&str]) -> Map<String, Value> {
    names
        .iter()
        .filter_map(|name| {
            Some((
                (*name).to_owned(),
                ctx.parsed.attributes.get(*name)?.clone(),
            ))
        })
        .collect()
}

/// Prints mistakes of declarations.
pub(super) fn tell(ctx: &mut Context, mistakes: &[ConfigError]) {
    for mistake in mistakes {
        let text = mistake.to_string();
        match mistake.severity {
            Severity::Error => ctx.console.error(&text),
            Severity::Warning => ctx.console.warn_err(&text),
        }
    }
}

/// Prints how many mistakes kept everything from starting.
pub(super) fn tell_count(ctx: &mut Context, mistakes: &[ConfigError]) {
    let count = |severity| mistakes.iter().filter(|m| m.severity == severity).count();
    let plural = |n: usize, noun: &str| match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    };
    let errors = plural(count(Severity::Error), "error");
    let warnings = plural(count(Severity::Warning), "warning");
    ctx.console
        .err_line(&format!("nothing was started ({errors}, {warnings})"));
}
