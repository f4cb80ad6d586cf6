//! `scale`: the number of processes of an app.

use super::actions::ids_of;
use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::roll::{self, Action};
use crate::cli::verbs::Outcome;
use serde_json::json;

/// Brings an app to `n` processes, or adds `+n`, or removes `-n`.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let name = ctx.parsed.operands[0].clone();
    let number = ctx.parsed.operands[1].clone();
    let list = ctx.list()?;
    let ids = ids_of(&list, &name);
    let Some(first) = ids.first().copied() else {
        return Err(Failure::unlisted(format!("Application {name} not found")));
    };
    let wanted = wanted(ids.len(), &number)?;
    if wanted == ids.len() {
        return Err(Failure::Error("Nothing to do".to_owned()));
    }
    for _ in ids.len()..wanted {
        ctx.console.say("Scaling up application");
        ctx.daemon()?.call("duplicateProcessId", json!(first.0))?;
    }
    for id in &ids[..ids.len().saturating_sub(wanted)] {
        let action = Action {
            method: "musherRetire",
            event: "delete",
            target: &id.to_string(),
            env: None,
        };
        roll::roll(ctx, &list, &[*id], &action)?;
    }
    ctx.print_table()?;
    Ok(0)
}

fn wanted(n_running: usize, number: &str) -> Result<usize, Failure> {
    let wrong = || {
        Failure::Error(format!(
            "`{number}' is not a number of processes like 4, +2 or -1"
        ))
    };
    let parse = |digits: &str| digits.parse::<usize>().map_err(|_| wrong());
    if let Some(more) = number.strip_prefix('+') {
        return Ok(n_running + parse(more)?);
    }
    if let Some(fewer) = number.strip_prefix('-') {
        return Ok(n_running.saturating_sub(parse(fewer)?));
    }
    parse(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_total_and_a_sign_makes_it_a_difference() {
        for (number, expected) in [("4", 4), ("+2", 5), ("-1", 2), ("-9", 0), ("0", 0)] {
            assert_eq!(wanted(3, number).ok(), Some(expected), "{number}");
        }
        assert!(wanted(3, "many").is_err());
    }
}
