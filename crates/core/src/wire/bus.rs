//! The events of the bus, and what an app's message means.
//!
//! Each function returns the payload of one event in PM2's shape and key order;
//! [`classify`] decides which messages of an app concern supervision, which go
//! to the bus, and which nobody needs to hear. What is published when is the
//! caller's.

use super::pm2_env;
use crate::app::ExecMode;
use crate::id::PmId;
use crate::supervisor::event::AppMessage;
use crate::time::Wall;
use crate::view::ProcessView;
use serde_json::{Map, Value, json};

/// A process started, ended or was asked for something.
pub const PROCESS_EVENT: &str = "process:event";
/// Text an app wrote to stdout.
pub const LOG_OUT: &str = "log:out";
/// Text an app wrote to stderr.
pub const LOG_ERR: &str = "log:err";
/// A line of the daemon's log.
pub const LOG_PM2: &str = "log:PM2";
/// An error an app reported.
pub const PROCESS_EXCEPTION: &str = "process:exception";
/// A message of an app that is no event of its own.
pub const PROCESS_MSG: &str = "process:msg";
/// An event an app's author named.
pub const HUMAN_EVENT: &str = "human:event";
/// The answer of an app to a triggered action.
pub const AXM_REPLY: &str = "axm:reply";
/// The daemon ends.
pub const PM2_KILL: &str = "pm2:kill";
/// A reader was too slow: this many events were not sent to it. musher's own.
pub const GAP: &str = "musher:gap";

/// Which process an event comes from; small enough to be kept by log writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The slot.
    pub pm_id: PmId,
    /// App name.
    pub name: String,
    /// PM2's namespace.
    pub namespace: String,
    /// Fork and cluster mode have different shapes.
    pub mode: ExecMode,
}

/// What an app's message leads to; either part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppSaid {
    /// For the supervisor.
    pub tell: Option<AppMessage>,
    /// For the bus.
    pub publish: Option<Publication>,
}

/// An event an app causes on the bus.
#[derive(Clone, Debug, PartialEq)]
pub enum Publication {
    /// An event of the app's choice.
    Event {
        /// Its name.
        name: String,
        /// Its data.
        data: Value,
    },
    /// Any other message: `process:msg` with the message as `raw`.
    Raw(Value),
}

impl Origin {
    /// Returns the origin of a process's events.
    pub fn of(view: &ProcessView) -> Origin {
        Origin {
            pm_id: view.pm_id,
            name: view.spec.name.clone(),
            namespace: view.spec.namespace.clone(),
            mode: view.spec.mode,
        }
    }

    fn with_revision(&self) -> Value {
        json!({
            "pm_id": self.pm_id.0,
            "name": self.name,
            "rev": null,
            "namespace": self.namespace,
        })
    }

    fn plain(&self) -> Value {
        json!({ "pm_id": self.pm_id.0, "name": self.name, "namespace": self.namespace })
    }

    /// Without versioning data PM2 leaves `versioning` out and `rev` null.
    fn of_app(&self) -> Value {
        match self.mode {
            ExecMode::Fork => self.plain(),
            ExecMode::Cluster => self.with_revision(),
        }
    }
}

impl Publication {
    /// Returns the name and the payload of the event.
    pub fn event(&self, origin: &Origin, at: Wall) -> (&str, Value) {
        match self {
            Publication::Event { name, data } => (name, app_event(origin, at, data)),
            Publication::Raw(raw) => {
                let payload = json!({ "at": at.0, "raw": raw, "process": origin.plain() });
                (PROCESS_MSG, payload)
            }
        }
    }
}

/// Returns the payload of [`PROCESS_EVENT`]; `event` is PM2's word.
pub fn process_event(event: &str, manually: bool, process: &ProcessView, at: Wall) -> Value {
    json!({
        "event": event,
        "manually": manually,
        "process": pm2_env::bus_process(process),
        "at": at.0,
    })
}

/// Returns the payload of [`LOG_OUT`] and [`LOG_ERR`]; `text` is what was written
/// to the file.
pub fn log(origin: &Origin, at: Wall, text: &str) -> Value {
    match origin.mode {
        ExecMode::Fork => json!({ "process": origin.with_revision(), "at": at.0, "data": text }),
        ExecMode::Cluster => json!({ "at": at.0, "data": text, "process": origin.with_revision() }),
    }
}

/// Returns the payload of [`LOG_PM2`]; `line` is without its date prefix.
pub fn log_pm2(at: Wall, line: &str) -> Value {
    json!({ "process": { "pm_id": "PM2", "name": "PM2", "rev": null }, "at": at.0, "data": line })
}

/// Returns the payload of every event an app causes: `{at, data, process}`.
pub fn app_event(origin: &Origin, at: Wall, data: &Value) -> Value {
    json!({ "at": at.0, "data": data, "process": origin.of_app() })
}

/// Returns the payload of [`PROCESS_EXCEPTION`] for an error musher saw itself.
pub fn exception(origin: &Origin, at: Wall, message: &str, stack: &str) -> Value {
    app_event(origin, at, &json!({ "message": message, "stack": stack }))
}

/// Returns the payload of [`HUMAN_EVENT`].
pub fn human_event(origin: &Origin, at: Wall, name: &str, fields: &Map<String, Value>) -> Value {
    let mut data = fields.clone();
    data.insert("__name".into(), json!(name));
    app_event(origin, at, &Value::Object(data))
}

/// Returns the payload of [`AXM_REPLY`].
pub fn axm_reply(origin: &Origin, at: Wall, action_name: &str, returned: &Value) -> Value {
    let data = json!({ "at": at.0, "action_name": action_name, "return": returned });
    app_event(origin, at, &data)
}

/// Returns the payload of [`PM2_KILL`]; `by` is `CLI` or `SIGNAL`.
pub fn kill(by: &str) -> Value {
    let via = if by == "CLI" { "via" } else { "by" };
    json!({ "status": "killed", "msg": format!("pm2 has been killed {via} {by}") })
}

/// Returns the payload of [`GAP`].
pub fn gap(n_dropped: u64) -> Value {
    json!({ "dropped": n_dropped })
}

/// Returns what an app's IPC message leads to. Node's own messages (`cmd`
/// starting with `NODE_`) are taken out before.
pub fn classify(message: &Value) -> AppSaid {
    match message {
        // `null` crashes PM2's daemon.
        Value::Null => AppSaid::default(),
        Value::String(text) if text == "ready" => AppSaid {
            tell: Some(AppMessage::Ready),
            publish: Some(Publication::Raw(message.clone())),
        },
        Value::Object(fields) => classify_object(fields, message),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => raw(message),
    }
}

fn classify_object(fields: &Map<String, Value>, message: &Value) -> AppSaid {
    let name = fields.get("type").and_then(event_name);
    let data = fields.get("data").filter(|data| is_truthy(data));
    if let (Some(name), Some(data)) = (name, data) {
        return classify_event(name, data);
    }
    match fields.get("node_version") {
        Some(Value::String(version)) => AppSaid {
            tell: Some(AppMessage::NodeVersion(version.clone())),
            publish: None,
        },
        Some(version) if is_truthy(version) => AppSaid::default(),
        Some(_) | None => raw(message),
    }
}

fn classify_event(name: String, data: &Value) -> AppSaid {
    let object = data.as_object().cloned();
    let tell = match name.as_str() {
        "axm:monitor" => object.map(AppMessage::Monitor),
        "axm:action" => object.map(|action| AppMessage::Action(Value::Object(action))),
        "axm:option:configuration" => object.map(AppMessage::Options),
        "axm:option:setPID" => None,
        _ => {
            let data = data.clone();
            return AppSaid {
                tell: None,
                publish: Some(Publication::Event { name, data }),
            };
        }
    };
    AppSaid {
        tell,
        publish: None,
    }
}

fn raw(message: &Value) -> AppSaid {
    AppSaid {
        tell: None,
        publish: Some(Publication::Raw(message.clone())),
    }
}

/// The name of an event, if `type` is truthy and can be one.
fn event_name(kind: &Value) -> Option<String> {
    match kind {
        Value::String(name) => (!name.is_empty()).then(|| name.clone()),
        Value::Bool(true) => Some("true".to_owned()),
        Value::Number(_) => is_truthy(kind).then(|| kind.to_string()),
        Value::Null | Value::Bool(false) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// JavaScript's truth.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pm2_env::tests::{object, view};
    use proptest::prelude::*;

    const AT: Wall = Wall(5);

    fn origin(mode: ExecMode) -> Origin {
        Origin {
            mode,
            ..Origin::of(&view())
        }
    }

    #[track_caller]
    fn check(payload: Value, expected: &str) {
        assert_eq!(payload.to_string(), expected);
    }

    #[test]
    fn log_events_differ_by_mode_in_their_key_order() {
        let process = r#"{"pm_id":3,"name":"api","rev":null,"namespace":"default"}"#;
        let fork = format!(r#"{{"process":{process},"at":5,"data":"hi\n"}}"#);
        check(log(&origin(ExecMode::Fork), AT, "hi\n"), &fork);
        let cluster = format!(r#"{{"at":5,"data":"hi\n","process":{process}}}"#);
        check(log(&origin(ExecMode::Cluster), AT, "hi\n"), &cluster);
        check(
            log_pm2(AT, "App [api:3] online"),
            r#"{"process":{"pm_id":"PM2","name":"PM2","rev":null},"at":5,"data":"App [api:3] online"}"#,
        );
    }

    #[test]
    fn a_process_event_carries_the_process_without_env() {
        let payload = process_event("restart overlimit", false, &view(), AT);
        let keys: Vec<&String> = payload.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["event", "manually", "process", "at"]);
        assert_eq!(payload["event"], "restart overlimit");
        assert_eq!(payload["process"]["pm_id"], 3);
        assert!(payload["process"].get("env").is_none());
    }

    #[test]
    fn events_of_apps_have_pm2s_shapes() {
        let fork = origin(ExecMode::Fork);
        check(
            exception(&fork, AT, "boom", "at x"),
            r#"{"at":5,"data":{"message":"boom","stack":"at x"},"process":{"pm_id":3,"name":"api","namespace":"default"}}"#,
        );
        let data = axm_reply(&fork, AT, "gc", &json!({"ok": true}))["data"].to_string();
        assert_eq!(data, r#"{"at":5,"action_name":"gc","return":{"ok":true}}"#);
        let fields = object(json!({"a": 1}));
        let data = human_event(&fork, AT, "sale", &fields)["data"].to_string();
        assert_eq!(data, r#"{"a":1,"__name":"sale"}"#);
        check(
            Publication::Raw(json!("hi")).event(&fork, AT).1,
            r#"{"at":5,"raw":"hi","process":{"pm_id":3,"name":"api","namespace":"default"}}"#,
        );
        check(
            kill("CLI"),
            r#"{"status":"killed","msg":"pm2 has been killed via CLI"}"#,
        );
        check(
            kill("SIGNAL"),
            r#"{"status":"killed","msg":"pm2 has been killed by SIGNAL"}"#,
        );
    }

    #[test]
    fn messages_are_told_published_or_swallowed() {
        let event = |name: &str, data: Value| AppSaid {
            tell: None,
            publish: Some(Publication::Event {
                name: name.to_owned(),
                data,
            }),
        };
        let tell = |message| AppSaid {
            tell: Some(message),
            publish: None,
        };
        let table = [
            (json!(null), AppSaid::default()),
            (json!("hello"), raw(&json!("hello"))),
            (json!(0), raw(&json!(0))),
            (json!({"a": 1}), raw(&json!({"a": 1}))),
            (
                json!({"type": "x", "data": 0}),
                raw(&json!({"type": "x", "data": 0})),
            ),
            (
                json!({"type": "", "data": 1}),
                raw(&json!({"type": "", "data": 1})),
            ),
            (
                json!({"type": "cache:miss", "data": []}),
                event("cache:miss", json!([])),
            ),
            (
                json!({"type": "process:msg", "data": {"a": 1}}),
                event(PROCESS_MSG, json!({"a": 1})),
            ),
            (
                json!({"type": "t", "data": 1, "node_version": "x"}),
                event("t", json!(1)),
            ),
            (
                json!({"node_version": "20.1.0"}),
                tell(AppMessage::NodeVersion("20.1.0".into())),
            ),
            (
                json!({"type": "axm:monitor", "data": {"m": {"value": 1}}}),
                tell(AppMessage::Monitor(object(json!({"m": {"value": 1}})))),
            ),
            (
                json!({"type": "axm:action", "data": {"action_name": "gc"}}),
                tell(AppMessage::Action(json!({"action_name": "gc"}))),
            ),
            (
                json!({"type": "axm:option:configuration", "data": {"k": 1}}),
                tell(AppMessage::Options(object(json!({"k": 1})))),
            ),
            (
                json!({"type": "axm:option:setPID", "data": 12}),
                AppSaid::default(),
            ),
            (
                json!({"type": "axm:monitor", "data": "junk"}),
                AppSaid::default(),
            ),
        ];
        for (message, expected) in table {
            assert_eq!(classify(&message), expected, "{message}");
        }
        let ready = classify(&json!("ready"));
        assert_eq!(ready.tell, Some(AppMessage::Ready));
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(kind in ".{0,8}", data in any::<i64>()) {
            let said = classify(&json!({ "type": kind, "data": data }));
            prop_assert!(said.tell.is_none());
        }
    }
}
