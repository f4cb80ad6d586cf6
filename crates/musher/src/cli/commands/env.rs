//! `env`: the environment of one process.

use crate::cli::context::Context;
use crate::cli::output::{Color, Failure, paint};
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use musher_core::app::attributes;
use serde_json::Value;

/// Runtime fields of `pm2_env` that are no variables.
const RUNTIME_FIELDS: &[&str] = &[
    "pm_exec_path",
    "pm_cwd",
    "pm_out_log_path",
    "pm_err_log_path",
    "pm_log_path",
    "pm_pid_path",
    "pm_uptime",
    "pm_id",
    "status",
    "created_at",
    "restart_time",
    "unstable_restarts",
    "exit_code",
    "prev_restart_delay",
    "axm_actions",
    "axm_monitor",
    "axm_options",
    "axm_dynamic",
    "reason",
    "_km_monitored",
];

/// Prints one `key: value` line per variable.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let list = ctx.full_list()?;
    let wanted = ctx.parsed.operands[0].clone();
    let found = list
        .iter()
        .map(Process)
        .find(|process| process.id().to_string() == wanted);
    let Some(process) = found else {
        let text = format!("Modules with id {wanted} not found");
        return Err(Failure::unlisted(text));
    };
    let Some(fields) = process.0.get("pm2_env").and_then(Value::as_object) else {
        return Ok(0);
    };
    let variables = process.object("env");
    for (key, value) in fields.iter().rev() {
        let is_variable = variables.is_some_and(|env| env.contains_key(key));
        let is_internal = RUNTIME_FIELDS.contains(&key.as_str())
            || (attributes::find(key).is_some() && key != "namespace");
        if is_internal && !is_variable {
            continue;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        let text = paint(&text, Color::Green, ctx.console.color_out);
        ctx.console.line(&format!("{key}: {text}"));
    }
    Ok(0)
}
