//! From the supervisor's reply to the value a method of PM2 calls back with.

use super::super::{pm2_env, receipt};
use super::{CallError, METHODS};
use crate::supervisor::request::{Reply, RequestError};
use crate::view::ProcessView;
use serde_json::{Map, Value, json};

/// The shape a method's value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `prepare`: an array of `{pid, process: {pid}, pm2_env}`.
    Prepared,
    /// The record of one started process: start, restart, duplicate.
    Started,
    /// `{pid, name, pm2_env, pm_id}` of one ended process: stop, delete, reload.
    Stopped,
    /// As [`Answer::Stopped`], with the soft reload's own error text for this id.
    SoftReloaded(u32),
    /// All processes, without figures: reset, signal.
    All,
    /// `{success: true, pm_id}`: monitor, unmonitor.
    Monitored(u32),
    /// What became of a roll.
    Rolled,
    /// No value.
    Nothing,
}

impl Answer {
    /// Returns the reply body for `outcome`; `all` is every process, ascending
    /// ids, for the methods that answer with all of them.
    pub fn body(self, outcome: &Result<Reply, RequestError>, all: &[ProcessView]) -> Value {
        match outcome {
            Ok(reply) => self.value(reply, all).map_or_else(nothing, value_body),
            Err(error) => error_body(&self.error_text(error)),
        }
    }

    fn value(self, reply: &Reply, all: &[ProcessView]) -> Option<Value> {
        let views: &[ProcessView] = match reply {
            Reply::Processes(views) => views,
            Reply::Process(view) => std::slice::from_ref(view),
            Reply::Rolled(rolled) => return Some(receipt::receipt(rolled)),
            Reply::Done => &[],
        };
        match self {
            Answer::Prepared => Some(pm2_env::prepare_reply(views)),
            Answer::Started => Some(views.first().map_or(Value::Null, pm2_env::started)),
            Answer::Stopped | Answer::SoftReloaded(_) => {
                Some(views.first().map_or(Value::Null, pm2_env::stopped_reply))
            }
            Answer::All => Some(Value::Array(
                all.iter().map(pm2_env::stopped_reply).collect(),
            )),
            Answer::Monitored(pm_id) => Some(json!({ "success": true, "pm_id": pm_id })),
            Answer::Nothing | Answer::Rolled => None,
        }
    }

    fn error_text(self, error: &RequestError) -> String {
        if let (Answer::Monitored(_), RequestError::UnknownId(_)) = (self, error) {
            return CallError::UnknownMonitored.to_string();
        }
        if let (Answer::SoftReloaded(id), RequestError::UnknownIdReload) = (self, error) {
            return CallError::UnknownIdSoftReload(id.to_string()).to_string();
        }
        error.to_string()
    }
}

/// Returns the body of a reply that carries `value`: `{"args":[value]}`.
pub fn value_body(value: Value) -> Value {
    json!({ "args": [value] })
}

/// Returns the body of a refusal: `{"error","stack"}`. The stack is what a
/// client prints in the place of its own, so it says the same.
pub fn error_body(message: &str) -> Value {
    json!({ "error": message, "stack": format!("Error: {message}") })
}

/// Returns the body of the reply to `{"type":"methods"}`.
pub fn methods_body() -> Value {
    let methods: Map<String, Value> = METHODS
        .iter()
        .map(|method| {
            let entry = json!({ "name": method.name, "params": method.params });
            (method.name.to_owned(), entry)
        })
        .collect();
    json!({ "methods": methods })
}

/// The body of a reply without a value.
fn nothing() -> Value {
    json!({ "args": [] })
}
