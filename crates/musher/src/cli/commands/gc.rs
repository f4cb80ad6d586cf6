//! `gc`: runs the garbage collector of Node apps.

use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::process::Process;
use crate::cli::units;
use crate::cli::verbs::Outcome;
use serde_json::{Value, json};

/// Runs the collector of each process of a target and says what it gave.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let list = ctx.list()?;
    let target = ctx.parsed.operands[0].clone();
    let ids = ctx.select(&list, &target)?;
    let mut n_failed = 0;
    for id in ids {
        let process = list.iter().map(Process).find(|process| process.id() == id);
        let name = process.map_or("", Process::name).to_owned();
        match ctx.daemon()?.call("musherGc", json!({ "id": id.0 })) {
            Ok(answer) => {
                let size = |key: &str| {
                    units::bytes(answer.get(key).and_then(Value::as_f64).unwrap_or(0.0))
                };
                ctx.console.say(&format!(
                    "[{name}:{id}] heap {} -> {}, resident {} -> {}",
                    size("heap_before"),
                    size("heap_after"),
                    size("rss_before"),
                    size("rss_after"),
                ));
            }
            Err(error) => {
                n_failed += 1;
                ctx.console.error(&format!("[{name}:{id}] {error}"));
            }
        }
    }
    match n_failed {
        0 => Ok(0),
        _ => Err(Failure::Told),
    }
}
