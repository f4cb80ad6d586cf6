//! Takes single attributes out of a description and collects mistakes.

use super::{Defaults, variable};
use crate::app::attributes::ConfigError;
use crate::app::{
    Balance, ExecMode, Interpreter, LogSpec, ReadyPolicy, RestartPolicy, RunAs, Sticky, StopPolicy,
    value,
};
use crate::exit::Signal;
use crate::time::Millis;
use serde_json::{Map, Value};

/// Takes attributes out of a description and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) from: &'a Map<String, Value>,
    pub(super) mistakes: Vec<ConfigError>,
}

impl Reader<'_> {
    pub(super) fn mistake(&mut self, key: &str, message: impl Into<String>) {
        self.mistakes.push(ConfigError::error(key, message));
    }

    pub(super) fn first<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        let set = |key: &&&str| self.from.get(**key).is_some_and(|value| !value.is_null());
        keys.iter().find(set).copied()
    }

    pub(super) fn read<T>(
        &mut self,
        key: &str,
        expected: &str,
        reading: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.from.get(key).filter(|value| !value.is_null())?;
        let read = reading(value);
        if read.is_none() {
            self.mistake(
                key,
                format!("`{key}` must be {expected}, not {}", brief(value)),
            );
        }
        read
    }

    pub(super) fn text_or(&mut self, key: &str, default: &str) -> String {
        self.text(key).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let text = self
            .read(key, "a text", value::text)
            .filter(|text| !text.is_empty())?;
        if text.contains('\0') {
            self.mistake(key, format!("`{key}` contains a NUL byte"));
        }
        Some(text)
    }

    pub(super) fn absolute(&mut self, keys: &[&str]) -> String {
        let Some(key) = self.first(keys) else {
            self.mistake(keys[0], "No script path - aborting");
            return String::new();
        };
        let path = self.text(key).unwrap_or_default();
        if !path.starts_with('/') {
            self.mistake(
                key,
                format!("`{key}` must be an absolute path, not {path:?}"),
            );
        }
        path
    }

    pub(super) fn switch(&mut self, key: &str, default: bool) -> bool {
        self.read(key, "true or false", value::switch)
            .unwrap_or(default)
    }

    pub(super) fn span(&mut self, key: &str) -> Option<Millis> {
        self.read(key, "milliseconds", value::duration).map(Millis)
    }

    pub(super) fn ready(&mut self, defaults: &Defaults) -> ReadyPolicy {
        ReadyPolicy {
            wait_ready: self.switch("wait_ready", false),
            listen_timeout: self
                .span("listen_timeout")
                .unwrap_or(defaults.listen_timeout),
        }
    }

    fn number(&mut self, key: &str) -> Option<u32> {
        self.read(key, "a whole number, 0 or more", |value| {
            u32::try_from(value::integer(value)?).ok()
        })
    }

    pub(super) fn words(&mut self, key: &str) -> Vec<String> {
        let words = self
            .read(key, "a list of words", value::words)
            .unwrap_or_default();
        if words.iter().any(|word| word.contains('\0')) {
            self.mistake(key, format!("`{key}` contains a NUL byte"));
        }
        words
    }

    pub(super) fn interpreter(&mut self) -> Interpreter {
        match self.text("exec_interpreter") {
            None => Interpreter::Program("node".to_owned()),
            Some(word) if word == "none" => Interpreter::None,
            Some(word) => Interpreter::Program(word),
        }
    }

    pub(super) fn mode(&mut self) -> ExecMode {
        let mode = self.read("exec_mode", "fork or cluster", |value| {
            match value.as_str()? {
                "fork" | "fork_mode" => Some(ExecMode::Fork),
                "cluster" | "cluster_mode" => Some(ExecMode::Cluster),
                _ => None,
            }
        });
        mode.unwrap_or(ExecMode::Fork)
    }

    /// PM2's rule: 0 and `max` are one per CPU, negative counts from there,
    /// and the result is at least one.
    pub(super) fn instances(&mut self, cpu_count: u32) -> u32 {
        let count = self.read("instances", "a number or \"max\"", |value| {
            if value == "max" {
                Some(0)
            } else {
                value::integer(value)
            }
        });
        match count {
            None => 1,
            Some(count) if count > 0 => u32::try_from(count).unwrap_or(u32::MAX),
            Some(count) => {
                let left = i64::from(cpu_count).saturating_add(count);
                u32::try_from(left).unwrap_or(1).max(1)
            }
        }
    }

    pub(super) fn env(&mut self) -> Map<String, Value> {
        let Some(env) = self.from.get("env").and_then(Value::as_object) else {
            return Map::new();
        };
        let mut out = Map::new();
        for (key, value) in env {
            // execve(2) has no room for these.
            if key.is_empty() || key.contains(['=', '\0']) {
                continue;
            }
            match variable(value) {
                Some(Value::String(text)) if text.contains('\0') => {
                    self.mistake("env", format!("variable {key} contains a NUL byte"));
                }
                Some(value) => {
                    out.insert(key.clone(), value);
                }
                None => {}
            }
        }
        out
    }

    pub(super) fn logs(&mut self) -> LogSpec {
        let real = |path: &String| path != "/dev/null" && path != "NULL";
        LogSpec {
            out: self.text("pm_out_log_path").filter(real),
            err: self.text("pm_err_log_path").filter(real),
            combined: self.text("pm_log_path").filter(real),
            merge: self.switch("merge_logs", false),
            disabled: self.switch("disable_logs", false),
            json: self.text("log_type").is_some_and(|kind| kind == "json"),
            date_format: self.text("log_date_format"),
        }
    }

    pub(super) fn restart(&mut self) -> RestartPolicy {
        let default = RestartPolicy::default();
        RestartPolicy {
            autorestart: self.switch("autorestart", default.autorestart),
            min_uptime: self.span("min_uptime").unwrap_or(default.min_uptime),
            max_restarts: self.number("max_restarts").unwrap_or(default.max_restarts),
            restart_delay: self.span("restart_delay").filter(|span| span.0 > 0),
            exp_backoff: self
                .span("exp_backoff_restart_delay")
                .filter(|span| span.0 > 0),
            stop_exit_codes: self
                .read("stop_exit_codes", "a list of exit codes", exit_codes)
                .unwrap_or_default(),
        }
    }

    pub(super) fn stop(&mut self, defaults: &Defaults) -> StopPolicy {
        StopPolicy {
            signal: self
                .read("kill_signal", "a signal like SIGTERM", |value| {
                    Signal::parse(&value::text(value)?)
                })
                .unwrap_or(defaults.kill_signal),
            with_message: self.switch("shutdown_with_message", defaults.kill_with_message),
            kill_timeout: self.span("kill_timeout").unwrap_or(defaults.kill_timeout),
            treekill: self.switch("treekill", true),
        }
    }

    pub(super) fn run_as(&mut self) -> Option<RunAs> {
        let uid = self.number("uid");
        let gid = self.number("gid");
        match (uid, gid) {
            (Some(uid), gid) => Some(RunAs {
                uid,
                gid: gid.unwrap_or(uid),
            }),
            (None, Some(_)) => {
                self.mistake("gid", "`gid` needs `uid`");
                None
            }
            (None, None) => None,
        }
    }

    /// Reads how connections are spread. What is sticky is handed over: the
    /// kernel knows no sessions.
    pub(super) fn balance(&mut self) -> Balance {
        let balance = self.read("balance", "even, shared or round-robin", |value| {
            Balance::parse(value.as_str()?)
        });
        if !self.is_sticky() {
            return balance.unwrap_or_default();
        }
        if let Some(Balance::Even | Balance::Shared) = balance {
            self.mistake(
                "sticky",
                "`sticky` hands connections over: leave `balance` out or set it to round-robin",
            );
        }
        Balance::RoundRobin
    }

    pub(super) fn sticky(&mut self) -> Option<Sticky> {
        if !self.is_sticky() {
            return None;
        }
        let wanted = "ip, sid, cookie or { mode: 'cookie', name: '…' }";
        self.read("sticky", wanted, Sticky::parse)
    }

    fn is_sticky(&self) -> bool {
        !matches!(
            self.from.get("sticky"),
            None | Some(Value::Null | Value::Bool(false))
        )
    }
}

fn exit_codes(value: &Value) -> Option<Vec<i32>> {
    let items = match value.as_array() {
        Some(items) => items.as_slice(),
        None => std::slice::from_ref(value),
    };
    items
        .iter()
        .map(|item| i32::try_from(value::integer(item)?).ok())
        .collect()
}

/// Returns a value as short text for a message.
pub(super) fn brief(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
