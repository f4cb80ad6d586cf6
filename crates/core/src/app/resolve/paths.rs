//! Absolute paths of an app: working directory, logs, pid file.
//!
//! Text only: no link is followed and nothing is created.

use super::Context;
use serde_json::{Map, Value};

/// Returns `path` from `base`, with `.` and `..` taken out.
pub fn absolute(path: &str, base: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns the same, with a leading `~` as the user's home.
pub(super) fn expanded(path: &str, base: &str, ctx: &Context<'_>) -> String {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            absolute(&format!("{}{rest}", ctx.home), base)
        }
        Some(_) | None => absolute(path, base),
    }
}

/// Returns the app's working directory.
pub(super) fn directory(declared: Option<&str>, ctx: &Context<'_>) -> String {
    declared.map_or_else(|| ctx.cwd.to_owned(), |path| expanded(path, ctx.cwd, ctx))
}

/// Puts log and pid paths, without ids, in PM2's order.
pub(super) fn insert(
    out: &mut Map<String, Value>,
    attributes: &Map<String, Value>,
    name: &str,
    cwd: &str,
    ctx: &Context<'_>,
) {
    let file = file_name(name);
    let path = |key: &str, default: String| match attributes.get(key).and_then(Value::as_str) {
        Some(none @ ("NULL" | "/dev/null")) => none.to_owned(),
        Some(path) if !path.is_empty() => expanded(path, cwd, ctx),
        Some(_) | None => default,
    };
    let mut put = |key: &str, value: String| out.insert(key.to_owned(), value.into());
    let logs = ctx.log_dir;
    put(
        "pm_out_log_path",
        path("out_file", format!("{logs}/{file}-out.log")),
    );
    put(
        "pm_err_log_path",
        path("error_file", format!("{logs}/{file}-error.log")),
    );
    if !matches!(attributes.get("log_file"), None | Some(Value::Bool(false))) {
        put(
            "pm_log_path",
            path("log_file", format!("{logs}/{file}.log")),
        );
    }
    put(
        "pm_pid_path",
        path("pid_file", format!("{}/{file}.pid", ctx.pid_dir)),
    );
}

/// Returns the name as part of a file name: anything but letters, digits,
/// `.` and `-` becomes `-`.
pub(super) fn file_name(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => c,
            _ => '-',
        })
        .collect()
}
