//! One action over several processes, a few at a time.

use super::context::Context;
use super::output::Failure;
use super::transaction;
use crate::client::CallId;
use musher_core::id::PmId;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};

/// Processes handled at the same time, as PM2 does.
const N_PARALLEL: usize = 2;
/// The same for deletes.
const N_PARALLEL_DELETES: usize = 10;

/// What is done to each process.
#[derive(Clone, Debug)]
pub(super) struct Action<'a> {
    /// PM2's method.
    pub(super) method: &'static str,
    /// Word for the event afterwards.
    pub(super) event: &'static str,
    /// The target as it was typed.
    pub(super) target: &'a str,
    /// `env` of the options object; `None` sends the bare id.
    pub(super) env: Option<Value>,
}

/// Carries out an action on each id, in order, and prints PM2's progress. The
/// first failure stops handing out further ids; those in flight are awaited.
///
/// # Errors
/// The daemon's text about the first process that failed.
pub(super) fn roll(
    ctx: &mut Context,
    list: &[Value],
    ids: &[PmId],
    action: &Action<'_>,
) -> Result<(), Failure> {
    announce(ctx, list, ids, action);
    if action.method == "reloadProcessId" {
        return transaction::carry_out(ctx, list, ids, "musherReload", action.env.as_ref());
    }
    let limit = n_parallel(ctx, ids.len(), action.method);
    let mut waiting: VecDeque<PmId> = ids.iter().copied().collect();
    let mut in_flight: HashMap<CallId, PmId> = HashMap::new();
    let mut failure = None;
    loop {
        while failure.is_none() && in_flight.len() < limit {
            let Some(id) = waiting.pop_front() else { break };
            let call = ctx.daemon()?.send(action.method, &[argument(id, action)])?;
            in_flight.insert(call, id);
        }
        if in_flight.is_empty() {
            break;
        }
        let (call, answer) = ctx.daemon()?.wait_any(action.method)?;
        let Some(id) = in_flight.remove(&call) else {
            continue;
        };
        match answer.map_err(|error| error.to_string()).and_then(refusal) {
            Ok(record) => {
                let name = name_of(&record, list, id);
                ctx.console.say(&format!("[{name}]({id}) ✓"));
                notify(ctx, id, action.event)?;
            }
            Err(text) => {
                failure.get_or_insert(text);
            }
        }
    }
    match failure {
        Some(text) => Err(Failure::Error(text)),
        None => Ok(()),
    }
}

fn announce(ctx: &mut Context, list: &[Value], ids: &[PmId], action: &Action<'_>) {
    let is_listed = |id: &PmId| {
        list.iter()
            .any(|process| super::process::Process(process).id() == *id)
    };
    // PM2 shows an id taken from the command line as the text it is.
    let is_scale = ctx.parsed.verb.as_deref() == Some("scale");
    let typed = !is_scale && ids.len() == 1 && action.target == ids[0].to_string();
    let shown: Vec<String> = ids
        .iter()
        .map(|id| {
            if typed {
                format!("'{id}'")
            } else {
                id.to_string()
            }
        })
        .collect();
    debug_assert!(typed || ids.iter().all(is_listed), "ids come from the list");
    ctx.console.say(&format!(
        "Applying action {} on app [{}](ids: [ {} ])",
        pm2_word(action.method),
        action.target,
        shown.join(", ")
    ));
}

/// Returns PM2's word for a method of ours.
fn pm2_word(method: &str) -> &str {
    match method {
        "musherRetire" => "deleteProcessId",
        other => other,
    }
}

fn n_parallel(ctx: &Context, n_ids: usize, method: &str) -> usize {
    let asked = ctx.parsed.value("parallel");
    let asked = asked.or_else(|| ctx.var("PM2_CONCURRENT_ACTIONS"));
    let asked = asked.and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    match (method, n_ids) {
        ("deleteProcessId", _) => N_PARALLEL_DELETES,
        (_, 0..=2) => 1,
        (_, _) => asked.unwrap_or(N_PARALLEL),
    }
}

fn argument(id: PmId, action: &Action<'_>) -> Value {
    match &action.env {
        Some(env) => json!({"id": id.0, "env": env}),
        None => json!(id.0),
    }
}

/// A stop without a pid is answered with a value that is an error.
fn refusal(answer: Value) -> Result<Value, String> {
    if answer.get("error").is_some_and(|error| error == true) {
        let text = answer.get("message").and_then(Value::as_str);
        return Err(text.unwrap_or("the daemon refused").to_owned());
    }
    Ok(answer)
}

fn name_of(record: &Value, list: &[Value], id: PmId) -> String {
    let renamed = record.get("pm2_env").and_then(|env| env.get("name"));
    let name = renamed
        .or_else(|| record.get("name"))
        .and_then(Value::as_str);
    let listed = list
        .iter()
        .map(super::process::Process)
        .find(|process| process.id() == id);
    name.or_else(|| listed.map(super::process::Process::name))
        .unwrap_or("")
        .to_owned()
}

/// Tells subscribers of the bus; a slot that is gone already has nothing to
/// tell, which is no failure.
fn notify(ctx: &mut Context, id: PmId, event: &str) -> Result<(), Failure> {
    let packet = json!({"id": id.0, "action_name": event, "manually": true});
    ctx.daemon()?.send("notifyByProcessId", &[packet])?;
    Ok(())
}
