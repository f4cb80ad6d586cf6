//! `describe`: everything about the processes of a name or id.

use crate::cli::context::Context;
use crate::cli::describe::{DescribeOptions, describe};
use crate::cli::output::{Failure, SEE_LIST};
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use crate::paths::Style;
use serde_json::{Value, json};

/// Prints a description of each process of the name or id.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let list = ctx.full_list()?;
    let wanted = ctx.parsed.operands[0].clone();
    let found: Vec<Process<'_>> = list
        .iter()
        .map(Process)
        .filter(|process| process.name() == wanted || process.id().to_string() == wanted)
        .collect();
    if found.is_empty() {
        ctx.console.warn_err(&format!("{wanted} doesn't exist"));
        ctx.console.help(SEE_LIST);
        return Err(Failure::Told);
    }
    let addresses = addresses(ctx);
    let options = DescribeOptions {
        color: ctx.console.color_out,
        style: ctx.console.style,
        width: ctx.console.width,
        now_ms: musher_os::clock::now().wall.0,
        local_env: ctx.caller.env(),
        group_of: &musher_os::cgroup::run_group_name,
    };
    let text: String = found
        .iter()
        .map(|process| describe(*process, &addresses, &options))
        .collect();
    if !ctx.console.silent {
        ctx.console.data(&text);
    }
    Ok(0)
}

/// Returns the addresses of the cluster apps. A daemon that does not know the
/// question has no answer, which is no reason to show nothing.
fn addresses(ctx: &mut Context) -> Vec<Value> {
    if ctx.console.style == Style::Pm2 {
        return Vec::new();
    }
    let answer = ctx
        .daemon()
        .map(|client| client.read("musherBalance", json!({})));
    match answer {
        Ok(Ok(Value::Array(addresses))) => addresses,
        Ok(Ok(_) | Err(_)) | Err(_) => Vec::new(),
    }
}
