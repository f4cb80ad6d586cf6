//! The attributes `startup`, `readiness` and `liveness`.
//!
//! Kubernetes' field names are taken as they are (`httpGet`,
//! `initialDelaySeconds`), and ours beside them, whose times are milliseconds
//! or texts like `10s`. Every mistake names the path of its key.

use super::object::{MAX_SPAN, Object, path_of};
use crate::app::attributes::ConfigError;
use crate::app::probe::{Check, HttpCheck, Probe, ProbeKind, Probes};
use crate::app::value;
use crate::time::Millis;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Shortest time from one question to the next.
const MIN_PERIOD: Millis = Millis(100);
/// Shortest patience for an answer.
const MIN_TIMEOUT: Millis = Millis(10);
/// Most answers in a row a threshold may ask for.
const MAX_THRESHOLD: u32 = 1000;
/// Most header fields of a question, words of a command, and bytes of a text.
const MAX_ITEMS: usize = 64;
const MAX_TEXT: usize = 4096;
/// Kubernetes' defaults (`Probe` of core/v1).
const PERIOD: Millis = Millis(10_000);
const TIMEOUT: Millis = Millis(1000);
const FAILURES: u32 = 3;

const LOOPBACK: &str = "127.0.0.1";

/// Takes the three probes out of a description. `has_port` says whether a probe
/// without a port can find one.
pub(super) fn read(
    description: &dyn Fn(&str) -> Option<Value>,
    has_port: bool,
    mistakes: &mut Vec<ConfigError>,
) -> Probes {
    let mut one = |kind: ProbeKind| {
        let key = kind.name();
        let value = description(key)?;
        let Some(object) = value.as_object() else {
            mistakes.push(
                ConfigError::error(key, format!("`{key}` must be an object"))
                    .with_help(format!("{key}: {{http: '/healthz'}}")),
            );
            return None;
        };
        probe(kind, object, has_port, mistakes)
    };
    Probes {
        startup: one(ProbeKind::Startup),
        readiness: one(ProbeKind::Readiness),
        liveness: one(ProbeKind::Liveness),
    }
}

fn probe(
    kind: ProbeKind,
    object: &Map<String, Value>,
    has_port: bool,
    mistakes: &mut Vec<ConfigError>,
) -> Option<Probe> {
    let mut out = Object::new(kind.name(), object, mistakes);
    let initial_delay = out.span(
        &[
            ("initial_delay", 1),
            ("initialDelay", 1),
            ("initialDelaySeconds", 1000),
            ("initial_delay_seconds", 1000),
        ],
        Millis(0),
    );
    let period = out.span(
        &[
            ("period", 1),
            ("periodSeconds", 1000),
            ("period_seconds", 1000),
        ],
        MIN_PERIOD,
    );
    let timeout = out.span(
        &[
            ("timeout", 1),
            ("timeoutSeconds", 1000),
            ("timeout_seconds", 1000),
        ],
        MIN_TIMEOUT,
    );
    // As Kubernetes has it: only readiness can come and go.
    let most = match kind {
        ProbeKind::Readiness => MAX_THRESHOLD,
        ProbeKind::Startup | ProbeKind::Liveness => 1,
    };
    let success_threshold = out.number(&["success_threshold", "successThreshold"], 1..=most);
    let failure_threshold = out.number(
        &["failure_threshold", "failureThreshold"],
        1..=MAX_THRESHOLD,
    );
    let check = check(kind, &mut out, has_port);
    out.finish();
    Some(Probe {
        check: check?,
        initial_delay: initial_delay.unwrap_or(Millis(0)),
        period: period.unwrap_or(PERIOD),
        timeout: timeout.unwrap_or(TIMEOUT),
        success_threshold: success_threshold.unwrap_or(1),
        failure_threshold: failure_threshold.unwrap_or(FAILURES),
    })
}

fn check(kind: ProbeKind, object: &mut Object<'_>, has_port: bool) -> Option<Check> {
    let name = kind.name();
    let http = object.get(&["http", "httpGet", "http_get"]);
    let tcp = object.get(&["tcp", "tcpSocket", "tcp_socket"]);
    let exec = object.get(&["exec"]);
    object.refuse(
        "terminationGracePeriodSeconds",
        "a failed probe ends the process as a stop does: set `kill_timeout` instead",
    );
    if object.refuse("grpc", "grpc is not asked: use `http`, `tcp` or `exec`") {
        return None;
    }
    let mistakes = &mut *object.mistakes;
    match (http, tcp, exec) {
        (Some((key, value)), None, None) => {
            let path = path_of(name, key);
            http_check(&path, value, has_port, mistakes).map(Check::Http)
        }
        (None, Some((key, value)), None) => tcp_check(&path_of(name, key), value, mistakes),
        (None, None, Some((key, value))) => exec_check(&path_of(name, key), value, mistakes),
        (None, None, None) => {
            let help = format!(
                "{name}: {{http: '/healthz'}}, {{tcp: 3000}} or {{exec: ['program', 'argument']}}"
            );
            let message = format!("`{name}` does not say what to ask");
            mistakes.push(ConfigError::error(name, message).with_help(help));
            None
        }
        _ => {
            let message = format!("`{name}` asks several things: keep one of http, tcp and exec");
            mistakes.push(ConfigError::error(name, message));
            None
        }
    }
}

fn http_check(
    path: &str,
    value: &Value,
    has_port: bool,
    mistakes: &mut Vec<ConfigError>,
) -> Option<HttpCheck> {
    let n_before = mistakes.len();
    let check = match value {
        Value::String(text) => http_text(path, text, mistakes),
        Value::Object(object) => http_object(path, object, mistakes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            let message = format!(
                "`{path}` must be a path, an address like 'http://127.0.0.1:3000/healthz', or an object"
            );
            mistakes.push(ConfigError::error(path, message));
            None
        }
    }?;
    if check.port == 0 && !has_port && mistakes.len() == n_before {
        mistakes.push(
            ConfigError::error(path, format!("`{path}` does not say which port to ask"))
                .with_help("add `port` to the probe or to the app, or PORT to its `env`"),
        );
    }
    (mistakes.len() == n_before).then_some(check)
}

fn http_text(path: &str, text: &str, mistakes: &mut Vec<ConfigError>) -> Option<HttpCheck> {
    let wrong = |message: String| ConfigError::error(path, message);
    if let Some(rest) = text.strip_prefix("http://") {
        let (authority, target) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match host_and_port(authority) {
            Some((host, port)) => (host, port),
            None => {
                mistakes.push(wrong(host_message(path, authority)));
                return None;
            }
        };
        if let Some(message) = target_mistake(path, target) {
            mistakes.push(wrong(message));
        }
        return Some(HttpCheck {
            host,
            port: port.unwrap_or(80),
            path: target.to_owned(),
            headers: Vec::new(),
        });
    }
    let message = if text.starts_with("https://") {
        Some(https_message(path))
    } else {
        target_mistake(path, text)
    };
    mistakes.extend(message.map(wrong));
    Some(HttpCheck {
        host: LOOPBACK.to_owned(),
        port: 0,
        path: text.to_owned(),
        headers: Vec::new(),
    })
}

fn http_object(
    path: &str,
    object: &Map<String, Value>,
    mistakes: &mut Vec<ConfigError>,
) -> Option<HttpCheck> {
    let mut out = Object::new(path, object, mistakes);
    let target = out.read(&["path"], "a text like '/healthz'", |value| {
        value.as_str().map(str::to_owned)
    });
    let target = target.unwrap_or_else(|| "/".to_owned());
    if let Some(message) = target_mistake(&path_of(path, "path"), &target) {
        out.mistake("path", message);
    }
    let port = port_of(&mut out);
    let host = host_of(&mut out);
    if let Some((key, scheme)) = out.get(&["scheme"])
        && !scheme
            .as_str()
            .is_some_and(|word| word.eq_ignore_ascii_case("http"))
    {
        out.mistake(key, https_message(&path_of(path, key)));
    }
    let mut headers = Vec::new();
    if let Some((key, value)) = out.get(&["headers", "httpHeaders", "http_headers"]) {
        match header_fields(value) {
            Some(fields) => headers = fields,
            None => {
                let message = format!(
                    "`{}` must be an object of names and texts, or a list of {{name, value}}; \
                     at most {MAX_ITEMS}, without line breaks, and musher sets Connection itself",
                    path_of(path, key)
                );
                out.mistake(key, message);
            }
        }
    }
    out.finish();
    Some(HttpCheck {
        host,
        port,
        path: target,
        headers,
    })
}

fn port_of(out: &mut Object<'_>) -> u16 {
    out.number(&["port"], 1..=65_535)
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0)
}

fn host_of(out: &mut Object<'_>) -> String {
    let host = out.read(
        &["host"],
        "a numeric address or localhost (a probe looks no names up)",
        |value| value.as_str().and_then(host),
    );
    host.unwrap_or_else(|| LOOPBACK.to_owned())
}

fn tcp_check(path: &str, value: &Value, mistakes: &mut Vec<ConfigError>) -> Option<Check> {
    let n_before = mistakes.len();
    let (host, port) = match value {
        Value::Object(object) => {
            let mut out = Object::new(path, object, mistakes);
            let port = port_of(&mut out);
            let host = host_of(&mut out);
            out.finish();
            (host, port)
        }
        Value::Number(_) => {
            let port = value::integer(value).and_then(|port| u16::try_from(port).ok());
            (LOOPBACK.to_owned(), port.unwrap_or(0))
        }
        Value::String(text) => match text.parse() {
            Ok(port) => (LOOPBACK.to_owned(), port),
            Err(_) => match host_and_port(text) {
                Some((host, port)) => (host, port.unwrap_or(0)),
                None => {
                    mistakes.push(ConfigError::error(path, host_message(path, text)));
                    return None;
                }
            },
        },
        Value::Null | Value::Bool(_) | Value::Array(_) => (LOOPBACK.to_owned(), 0),
    };
    if port == 0 && mistakes.len() == n_before {
        let message = format!("`{path}` must be a port from 1 to 65535, or 'host:port'");
        mistakes.push(ConfigError::error(path, message));
    }
    (mistakes.len() == n_before).then_some(Check::Tcp { host, port })
}

fn exec_check(path: &str, value: &Value, mistakes: &mut Vec<ConfigError>) -> Option<Check> {
    let mut path = path.to_owned();
    let mut list = value;
    if let Value::Object(object) = value {
        let mut out = Object::new(&path, object, mistakes);
        list = out.get(&["command"]).map_or(&Value::Null, |(_, list)| list);
        out.finish();
        path = path_of(&path, "command");
    }
    let command: Option<Vec<String>> = list.as_array().and_then(|items| {
        let word = |item: &Value| {
            let text = value::text(item)?;
            (text.len() <= MAX_TEXT && !text.contains('\0')).then_some(text)
        };
        items.iter().map(word).collect()
    });
    let command = command
        .filter(|words| words.first().is_some_and(|program| !program.is_empty()))
        .filter(|words| words.len() <= MAX_ITEMS);
    if command.is_none() {
        mistakes.push(
            ConfigError::error(
                &path,
                format!("`{path}` must be a list of a program and its arguments"),
            )
            .with_help("['curl', '-f', 'http://127.0.0.1:3000']; a shell is ['sh', '-c', '...']"),
        );
    }
    command.map(|command| Check::Exec { command })
}

fn header_fields(value: &Value) -> Option<Vec<(String, String)>> {
    let fields: Vec<(String, String)> = match value {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| Some((name.clone(), value::text(value)?)))
            .collect::<Option<_>>()?,
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let name = item.get("name")?.as_str()?.to_owned();
                Some((name, value::text(item.get("value")?)?))
            })
            .collect::<Option<_>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    let is_good = |(name, value): &(String, String)| {
        // RFC 9110, 5.6.2: token.
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        !name.is_empty()
            && name.chars().all(token)
            && !name.eq_ignore_ascii_case("connection")
            && value.len() <= MAX_TEXT
            && !value.chars().any(|c| c.is_control() && c != '\t')
    };
    (fields.len() <= MAX_ITEMS && fields.iter().all(is_good)).then_some(fields)
}

/// Returns `host:port`, `[v6]:port` or a host alone in its parts.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
            (name, Some(port))
        }
        Some(_) | None => (text, None),
    };
    Some((host(name)?, port))
}

/// Returns a host a probe can ask without looking a name up.
fn host(text: &str) -> Option<String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some("localhost".to_owned());
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(address.to_string())
}

fn host_message(path: &str, authority: &str) -> String {
    format!(
        "`{path}`: {authority:?} is no numeric address or localhost with a port (a probe looks no names up)"
    )
}

fn https_message(path: &str) -> String {
    format!("`{path}`: https is not asked: use plain http, `tcp` or `exec`")
}

fn target_mistake(path: &str, target: &str) -> Option<String> {
    let is_good = target.starts_with('/')
        && target.len() <= MAX_TEXT
        && target.chars().all(|c| c.is_ascii_graphic() && c != '#');
    (!is_good).then(|| {
        format!(
            "`{path}` must begin with / and hold no spaces; other letters are written as %C3%A4"
        )
    })
}

const _: () = assert!(PERIOD.0 <= MAX_SPAN.0 && TIMEOUT.0 <= MAX_SPAN.0);
