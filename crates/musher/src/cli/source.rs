//! Where apps come from: config files, stdin, scripts.

use super::context::Context;
use super::output::Failure;
use musher_core::app::attributes::{ConfigError, Severity};
use musher_core::app::resolve::Resolved;
use serde_json::{Map, Value};

/// The config file `start` looks for without a target.
pub(super) const DEFAULT_FILE: &str = "ecosystem.config.js";

/// Returns true when a word names a config file, or stdin.
pub(super) fn is_config(word: &str) -> bool {
    const ENDINGS: [&str; 7] = [
        ".json", ".json5", ".yml", ".yaml", ".config.js", ".config.cjs", ".config.mjs",
    ];
    word == "-" || ENDINGS.iter().any(|ending| word.ends_with(ending))
}

/// Returns the apps of a config file that `--only` leaves.
///
/// # Errors
/// Every mistake of the file was printed.
pub(super) fn file(ctx: &mut Context, path: &str) -> Result<Vec<Resolved>, Failure> {
    let resolved = crate::ecosystem::resolve_file(path);
    let apps = told(ctx, resolved)?;
    let Some(only) = ctx.parsed.value("only") else {
        return Ok(apps);
    };
    let only: Vec<&str> = only.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    Ok(apps
        .into_iter()
        .filter(|app| only.contains(&name(app)))
        .collect())
}

/// Returns the app of a script and the options on the line.
///
/// # Errors
/// Every mistake was printed.
pub(super) fn script(ctx: &mut Context, word: &str) -> Result<Resolved, Failure> {
    let resolved = crate::ecosystem::resolve_script(&declaration(ctx, word));
    let app = told(ctx, resolved.map(|app| vec![app]))?;
    app.into_iter().next().ok_or(Failure::Told)
}

/// Returns what the command line declares about an app.
fn declaration(ctx: &Context, word: &str) -> Map<String, Value> {
    let mut raw = ctx.parsed.attributes.clone();
    raw.insert("script".to_owned(), Value::String(word.to_owned()));
    if let Some(rest) = &ctx.parsed.rest {
        raw.insert("args".to_owned(), rest.clone().into());
    }
    raw
}

/// Returns the name of a resolved app.
pub(super) fn name(app: &Resolved) -> &str {
    app.description.get("name").and_then(Value::as_str).unwrap_or("")
}

fn told<T>(ctx: &mut Context, resolved: Result<T, Vec<ConfigError>>) -> Result<T, Failure> {
    let mistakes = match resolved {
        Ok(value) => return Ok(value),
        Err(mistakes) => mistakes,
    };
    for mistake in &mistakes {
        tell(ctx, mistake);
    }
    let n_errors = mistakes
        .iter()
        .filter(|mistake| mistake.severity == Severity::Error)
        .count();
    if mistakes.len() > 1 {
        let noun = if n_errors == 1 { "error" } else { "errors" };
        ctx.console.err_line(&format!("nothing was started ({n_errors} {noun})"));
    }
    Err(Failure::Told)
}

/// Prints one mistake of a declaration.
pub(super) fn tell(ctx: &mut Context, mistake: &ConfigError) {
    let text = mistake.to_string();
    match mistake.severity {
        Severity::Error => ctx.console.error(&text),
        Severity::Warning => ctx.console.warn_err(&text),
    }
}
