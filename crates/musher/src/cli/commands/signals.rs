//! `sendSignal` and `reloadLogs`.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::verbs::Outcome;
use serde_json::json;

/// Sends a signal to a name or id.
pub(in crate::cli) fn send_signal(ctx: &mut Context) -> Outcome {
    let signal = ctx.parsed.operands[0].clone();
    let target = ctx.parsed.operands[1].clone();
    let (what, method, packet) = match target.parse::<u32>() {
        Ok(id) => (
            "id",
            "sendSignalToProcessId",
            json!({"signal": signal, "process_id": id}),
        ),
        Err(_) => (
            "name",
            "sendSignalToProcessName",
            json!({"signal": signal, "process_name": target}),
        ),
    };
    ctx.console
        .say(&format!("Sending signal to process {what} {target}"));
    if let Err(error) = ctx.daemon()?.call(method, packet) {
        ctx.console.err_line(&error.to_string());
        return Err(Failure::Told);
    }
    ctx.console.line(&format!(
        "successfully sent signal {signal} to process {what} {target}"
    ));
    ctx.print_table()?;
    Ok(0)
}

/// Makes the daemon open all log files again.
pub(in crate::cli) fn reload_logs(ctx: &mut Context) -> Outcome {
    ctx.console.line("Reloading all logs...");
    ctx.daemon()?.call("reloadLogs", json!({}))?;
    ctx.console.line("All logs reloaded");
    Ok(0)
}
