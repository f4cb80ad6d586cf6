//! The attributes that are objects or lists of them: probes, `reload`,
//! `listen`.
//!
//! The client reads them to tell every mistake before anything starts, the
//! daemon reads them again, since it trusts no client.

use super::object::{Object, path_of};
use super::probes;
use crate::app::attributes::ConfigError;
use crate::app::listen::{ListenAddress, ListenSpec, MAX_LISTEN};
use crate::app::probe::Probes;
use crate::app::{ExecMode, OnFailure, ReloadPolicy, Upgraded, value};
use crate::time::Millis;
use serde_json::{Map, Value};

/// Most processes of an app replaced at the same time.
const MAX_PARALLEL: u32 = 4096;
/// Over how long `websockets: 'close'` closes.
const CLOSE_OVER: Millis = Millis(5000);

/// What the objects of a description say.
#[derive(Default)]
pub(in crate::app) struct Objects {
    pub(super) probes: Probes,
    pub(super) reload: ReloadPolicy,
    pub(super) listen: Vec<ListenSpec>,
    pub(in crate::app) mistakes: Vec<ConfigError>,
}

/// Takes the objects out of a description.
pub(in crate::app) fn read(description: &Map<String, Value>, mode: ExecMode) -> Objects {
    let get = |key: &str| attribute(description, key).cloned();
    let mut mistakes = Vec::new();
    let listen = listen(get("listen").as_ref(), mode, &mut mistakes);
    let has_port = mode == ExecMode::Cluster
        || listen.iter().any(|spec| spec.at.port().is_some())
        || has_port_variable(description);
    let probes = probes::read(&get, has_port, &mut mistakes);
    let reload = reload(get("reload").as_ref(), &mut mistakes);
    Objects {
        probes,
        reload,
        listen,
        mistakes,
    }
}

/// Returns an attribute, unless it is a variable of that name: PM2's clients
/// copy every variable of the shell beside the attributes.
fn attribute<'a>(description: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let value = description.get(key).filter(|value| !value.is_null())?;
    let variable = description.get("env").and_then(|env| env.get(key));
    let is_text = value::text(value).is_some();
    (!is_text || variable != Some(value)).then_some(value)
}

fn has_port_variable(description: &Map<String, Value>) -> bool {
    let is_port = |value: &Value| value::integer(value).is_some_and(|n| (1..=65_535).contains(&n));
    let variable = description.get("env").and_then(|env| env.get("PORT"));
    let counted = description.get("increment_var").and_then(Value::as_str) == Some("PORT");
    variable.is_some_and(is_port) || counted
}

fn listen(
    value: Option<&Value>,
    mode: ExecMode,
    mistakes: &mut Vec<ConfigError>,
) -> Vec<ListenSpec> {
    let Some(value) = value else {
        return Vec::new();
    };
    let items = match value {
        Value::Array(items) => items.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(value)
        }
    };
    if mode == ExecMode::Cluster && !items.is_empty() {
        mistakes.push(
            ConfigError::error(
                "listen",
                "a cluster worker gets its sockets by its own `listen()`",
            )
            .with_help(
                "remove `listen`, or add `exec_mode: 'fork'` for an app that takes descriptors",
            ),
        );
        return Vec::new();
    }
    if items.len() > MAX_LISTEN {
        let message = format!("`listen` must hold at most {MAX_LISTEN} addresses");
        mistakes.push(ConfigError::error("listen", message));
        return Vec::new();
    }
    let mut out: Vec<ListenSpec> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = match value.is_array() {
            true => format!("listen[{index}]"),
            false => "listen".to_owned(),
        };
        let Some(spec) = listen_item(&path, item, mistakes) else {
            continue;
        };
        if out.iter().any(|other| other.at == spec.at) {
            let message = format!("`{path}`: {} is there twice", spec.at);
            mistakes.push(ConfigError::error(&path, message));
            continue;
        }
        out.push(spec);
    }
    out
}

fn listen_item(path: &str, item: &Value, mistakes: &mut Vec<ConfigError>) -> Option<ListenSpec> {
    let expected = "a port, '127.0.0.1:3000', '[::]:3000', 'unix:/path' or {name, address}";
    let address = |value: &Value| ListenAddress::parse(&value::text(value)?);
    let (name, at) = match item {
        Value::Object(object) => {
            let mut out = Object::new(path, object, mistakes);
            // sd_listen_fds_with_names(3): letters without a colon.
            let name = out.read(&["name"], "a word without ':' and spaces", |value| {
                let text = value.as_str()?;
                let is_good = !text.is_empty()
                    && text.len() <= 255
                    && text.chars().all(|c| c.is_ascii_graphic() && c != ':');
                is_good.then(|| text.to_owned())
            });
            let expected = "a port, '127.0.0.1:3000', '[::]:3000' or 'unix:/path'";
            let at = out.read(&["address"], expected, address);
            if at.is_none() && !object.contains_key("address") {
                out.mistake(
                    "address",
                    format!("`{}` is missing", path_of(path, "address")),
                );
            }
            out.finish();
            (name, at?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            match address(item) {
                Some(at) => (None, at),
                None => {
                    let not = super::reader::brief(item);
                    let message = format!("`{path}` must be {expected}, not {not}");
                    mistakes.push(ConfigError::error(path, message));
                    return None;
                }
            }
        }
    };
    Some(ListenSpec {
        name: name.unwrap_or_else(|| ListenSpec::UNNAMED.to_owned()),
        at,
    })
}

fn reload(value: Option<&Value>, mistakes: &mut Vec<ConfigError>) -> ReloadPolicy {
    let default = ReloadPolicy::default();
    let Some(value) = value else {
        return default;
    };
    let Some(object) = value.as_object() else {
        mistakes.push(
            ConfigError::error("reload", "`reload` must be an object")
                .with_help("reload: {parallel: 2, min_ready: '5s'}"),
        );
        return default;
    };
    let mut out = Object::new("reload", object, mistakes);
    let parallel = out.number(&["parallel"], 1..=MAX_PARALLEL);
    let min_ready = out.span(&[("min_ready", 1), ("minReady", 1)], Millis(0));
    let drain = out.span(&[("drain", 1)], Millis(0));
    let on_failure = out.read(
        &["on_failure", "onFailure"],
        "'abort' or 'rollback'",
        |value| match value.as_str()? {
            "abort" => Some(OnFailure::Abort),
            "rollback" => Some(OnFailure::Rollback),
            _ => None,
        },
    );
    let websockets = out.read(
        &["websockets"],
        "'wait', 'close' or {close: milliseconds}",
        upgraded,
    );
    out.finish();
    ReloadPolicy {
        parallel: parallel.unwrap_or(default.parallel),
        min_ready: min_ready.unwrap_or(default.min_ready),
        on_failure: on_failure.unwrap_or(default.on_failure),
        drain: drain.unwrap_or(default.drain),
        websockets: websockets.unwrap_or(default.websockets),
    }
}

fn upgraded(value: &Value) -> Option<Upgraded> {
    if let Some(object) = value.as_object() {
        let over = value::duration(object.get("close")?)?;
        let is_alone = object.len() == 1 && over <= super::object::MAX_SPAN.0;
        return is_alone.then_some(Upgraded::Close { over: Millis(over) });
    }
    match value.as_str()? {
        "wait" => Some(Upgraded::Wait),
        "close" => Some(Upgraded::Close { over: CLOSE_OVER }),
        _ => None,
    }
}

#[cfg(test)]
#[path = "objects/tests.rs"]
mod tests;
