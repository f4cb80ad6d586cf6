//! `id` and `pid`.

use crate::cli::context::Context;
use crate::cli::process::Process;
use crate::cli::verbs::Outcome;
use serde_json::Value;

/// Prints the ids of a name as a JavaScript array.
pub(in crate::cli) fn id(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    let name = &ctx.parsed.operands[0];
    let ids: Vec<String> = named(&list, name)
        .map(|process| process.id().to_string())
        .collect();
    let text = match ids.is_empty() {
        true => "[]".to_owned(),
        false => format!("[ {} ]", ids.join(", ")),
    };
    ctx.console.line(&text);
    Ok(0)
}

/// Prints the pids of a name, or of all processes, one a line.
pub(in crate::cli) fn pid(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    let processes: Vec<Process<'_>> = match ctx.parsed.operands.first() {
        Some(name) => named(&list, name).collect(),
        None => list.iter().map(Process).collect(),
    };
    let pids: Vec<String> = processes
        .iter()
        .map(|process| process.pid().unwrap_or(0).to_string())
        .collect();
    ctx.console.line(&pids.join("\n"));
    Ok(0)
}

fn named<'a>(list: &'a [Value], name: &'a str) -> impl Iterator<Item = Process<'a>> {
    list.iter()
        .map(Process)
        .filter(move |process| process.name() == name)
}
