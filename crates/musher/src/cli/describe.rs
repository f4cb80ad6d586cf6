//! A process to PM2's `describe` text. Pure.

use super::boxes::{self, Cell, Overflow};
use super::connections;
use super::output::{Color, paint};
use super::process::Process;
use super::{table, units};
use crate::paths::Style;
use musher_core::app::agent::is_node;
use musher_core::app::attributes;
use serde_json::Value;

/// Narrowest column of values: below it, lines are better broken by the
/// terminal.
const MIN_VALUE_WIDTH: usize = 12;

/// How long an agent may be silent before that is worth a line: it speaks as
/// soon as Node is up.
const AGENT_PATIENCE_MS: i64 = 5_000;

/// How to draw a description.
pub(super) struct DescribeOptions<'a> {
    /// Colours wanted.
    pub(super) color: bool,
    /// Whose command names the hints show.
    pub(super) style: Style,
    /// Columns of the terminal; `None` for a pipe.
    pub(super) width: Option<usize>,
    /// Milliseconds since the epoch.
    pub(super) now_ms: i64,
    /// The caller's environment, to compare with.
    pub(super) local_env: &'a [(String, String)],
    /// The control group of a run's main process, if it has one.
    pub(super) group_of: &'a dyn Fn(u32) -> Option<String>,
}

/// Returns the text that describes a process.
///
/// `addresses` is what the daemon says of all cluster apps.
pub(super) fn describe(
    process: Process<'_>,
    addresses: &[Value],
    options: &DescribeOptions<'_>,
) -> String {
    let mut out = String::new();
    let title = format!(
        "Describing process with id {} - name {}",
        process.id(),
        process.name()
    );
    heading(&title, options, &mut out);
    push_table(rows(process, options), options, &mut out);
    push_connections(process, addresses, options, &mut out);
    let actions: Vec<Vec<Cell>> = array(process, "axm_actions")
        .filter_map(|action| action.get("action_name")?.as_str())
        .map(|name| vec![(name.to_owned(), None)])
        .collect();
    if !actions.is_empty() {
        heading("Actions available", options, &mut out);
        push_table(actions, options, &mut out);
        let command = command(options);
        out.push_str(&format!(
            " Trigger via: {command} trigger {} <action_name>\n\n",
            process.name()
        ));
    }
    push_metrics(process, options, &mut out);
    push_env(process, options, &mut out);
    push_hints(process, options, &mut out);
    out
}

fn rows(process: Process<'_>, options: &DescribeOptions<'_>) -> Vec<Vec<Cell>> {
    let text = |key: &str| process.field(key).map_or_else(missing, plain);
    let status = process.status();
    let watch = if process.is_set("watch") {
        "✔"
    } else {
        "✘"
    };
    let uptime = match status {
        "online" => units::span(options.now_ms - process.number("pm_uptime")),
        _ => "0".to_owned(),
    };
    let node_env = process.object("env").and_then(|env| env.get("NODE_ENV"));
    let optional = |label: &'static str, key: &str| {
        let value = process.field(key).filter(|_| process.is_set(key))?;
        Some((label, plain(value)))
    };
    let mut rows: Vec<(&str, String)> = vec![
        ("status", status.to_owned()),
        ("name", process.name().to_owned()),
        ("namespace", process.namespace().to_owned()),
        ("version", text("version")),
        ("restarts", text("restart_time")),
    ];
    rows.extend(optional("max memory restart", "max_memory_restart"));
    rows.extend(optional("cron restart", "cron_restart"));
    rows.push(("uptime", uptime));
    rows.extend(optional("entire log path", "pm_log_path"));
    rows.extend([
        ("script path", text("pm_exec_path")),
        ("script args", words(process.field("args"))),
        ("error log path", text("pm_err_log_path")),
        ("out log path", text("pm_out_log_path")),
        ("pid path", text("pm_pid_path")),
        ("interpreter", text("exec_interpreter")),
        ("interpreter args", words(process.field("node_args"))),
        ("script id", process.id().to_string()),
        ("exec cwd", text("pm_cwd")),
        ("exec mode", text("exec_mode")),
        ("node.js version", text("node_version")),
        ("node env", node_env.map_or_else(missing, plain)),
        ("watch & reload", watch.to_owned()),
        ("unstable restarts", text("unstable_restarts")),
        ("created at", created_at(process)),
    ]);
    if status == "errored" || options.style == Style::Musher {
        rows.extend(process.reason().map(|reason| ("reason", reason.to_owned())));
    }
    if status == "online" && options.style == Style::Musher {
        rows.push(("process tree", tree(process, options)));
    }
    rows.extend(agent(process, options));
    rows.extend(without_effect(process));
    let status_color = table::status_color(status);
    rows.into_iter()
        .map(|(label, value)| {
            let color = (label == "status").then_some(status_color);
            vec![(label.to_owned(), Some(Color::Cyan)), (value, color)]
        })
        .collect()
}

/// Lists where the process gets connections, and how many.
fn push_connections(
    process: Process<'_>,
    addresses: &[Value],
    options: &DescribeOptions<'_>,
    out: &mut String,
) {
    let rows = connections::rows(process, addresses);
    if !rows.is_empty() {
        heading("Connections", options, out);
        push_table(rows, options, out);
    }
}

/// Tells by what the processes of a run are known when it is ended.
fn tree(process: Process<'_>, options: &DescribeOptions<'_>) -> String {
    let pid = process.pid().and_then(|pid| u32::try_from(pid).ok());
    match pid.and_then(options.group_of) {
        Some(group) => format!("control group {group}"),
        None => "descent, session and mark (no control group)".to_owned(),
    }
}

/// Says why a Node app has no agent in it, once it has had the time to speak.
fn agent(process: Process<'_>, options: &DescribeOptions<'_>) -> Option<(&'static str, String)> {
    let is_node = process.text("exec_interpreter").is_some_and(is_node);
    let is_silent = process.status() == "online" && !process.is_set("node_version");
    let age = options.now_ms - process.number("pm_uptime");
    if options.style == Style::Pm2 || !is_node || !is_silent {
        return None;
    }
    let why = match process.field("agent") {
        Some(Value::Bool(false)) => "off by `agent: false`",
        _ if age < AGENT_PATIENCE_MS => return None,
        _ if process.is_set("uid") || process.is_set("username") => {
            "absent: another user's process cannot read it"
        }
        _ => "absent: it has not reported; this Node may not load it",
    };
    Some(("agent", why.to_owned()))
}

/// Names the attributes that are kept but change nothing, so that nobody
/// relies on them.
fn without_effect(process: Process<'_>) -> Option<(&'static str, String)> {
    let declared = process.0.get("pm2_env")?.as_object()?;
    let names: Vec<&str> = attributes::without_effect(declared).collect();
    (!names.is_empty()).then(|| ("without effect", names.join(", ")))
}

fn created_at(process: Process<'_>) -> String {
    let created = process.field("created_at").and_then(Value::as_i64);
    created.map_or_else(missing, units::iso)
}

fn push_metrics(process: Process<'_>, options: &DescribeOptions<'_>, out: &mut String) {
    let Some(metrics) = process
        .object("axm_monitor")
        .filter(|metrics| !metrics.is_empty())
    else {
        return;
    };
    let rows = metrics
        .iter()
        .map(|(name, metric)| {
            let value = metric.get("value").map_or_else(|| plain(metric), plain);
            let unit = metric.get("unit").and_then(Value::as_str).unwrap_or("");
            let text = format!("{value} {unit}").trim_end().to_owned();
            vec![(name.clone(), Some(Color::Cyan)), (text, None)]
        })
        .collect();
    heading("Code metrics value", options, out);
    push_table(rows, options, out);
}

/// Lists variables of the process that differ from the caller's. Their values
/// may be secrets and long, so only the process's own value is shown, as PM2
/// does.
fn push_env(process: Process<'_>, options: &DescribeOptions<'_>, out: &mut String) {
    heading("Divergent env variables from local env", options, out);
    let mut rows = Vec::new();
    for (key, value) in process.object("env").into_iter().flatten() {
        let local = options.local_env.iter().find(|(name, _)| name == key);
        let Some((_, local)) = local else { continue };
        let Some(value) = value.as_str() else {
            continue;
        };
        let of_shell = matches!(key.as_str(), "_" | "PWD" | "OLDPWD" | "SHLVL");
        if value != local && !(of_shell && options.style == Style::Musher) {
            rows.push(vec![
                (key.clone(), Some(Color::Cyan)),
                (value.to_owned(), None),
            ]);
        }
    }
    if rows.is_empty() {
        out.push('\n');
    } else {
        push_table(rows, options, out);
    }
    out.push('\n');
}

fn push_hints(process: Process<'_>, options: &DescribeOptions<'_>, out: &mut String) {
    let command = command(options);
    let (name, id) = (process.name(), process.id());
    let as_pm2 = options.style == Style::Pm2;
    let lines = [
        as_pm2.then(|| " Add your own code metrics: http://bit.ly/code-metrics".to_owned()),
        Some(format!(
            " Use `{command} logs {name} [--lines 1000]` to display logs"
        )),
        Some(format!(
            " Use `{command} env {id}` to display environment variables"
        )),
        as_pm2.then(|| format!(" Use `{command} monit` to monitor CPU and Memory usage {name}")),
    ];
    for line in lines.into_iter().flatten() {
        out.push_str(&paint(&line, Color::Dim, options.color));
        out.push('\n');
    }
}

fn command(options: &DescribeOptions<'_>) -> &'static str {
    match options.style {
        Style::Musher => "musher",
        Style::Pm2 => "pm2",
    }
}

fn heading(text: &str, options: &DescribeOptions<'_>, out: &mut String) {
    let text = format!(" {text} ");
    out.push_str(&paint(&text, Color::Bold, options.color));
    out.push('\n');
}

fn push_table(rows: Vec<Vec<Cell>>, options: &DescribeOptions<'_>, out: &mut String) {
    let mut widths = boxes::fitting(&rows);
    let limit = options.width.filter(|_| options.style == Style::Musher);
    if let (Some(limit), [others @ .., last]) = (limit, widths.as_mut_slice()) {
        // Both ends and one bar after each column before the last.
        let used = others.iter().sum::<usize>() + others.len() + 2;
        *last = (*last).min(limit.saturating_sub(used).max(MIN_VALUE_WIDTH));
    }
    let text = boxes::draw(&widths, &[], &rows, Overflow::Wrap, options.color);
    out.push_str(&text);
}

fn array<'a>(process: Process<'a>, key: &str) -> impl Iterator<Item = &'a Value> {
    process
        .field(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn words(value: Option<&Value>) -> String {
    match value {
        Some(Value::Array(words)) if !words.is_empty() => {
            words.iter().map(plain).collect::<Vec<_>>().join(" ")
        }
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(_) | None => missing(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => missing(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn missing() -> String {
    "N/A".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_come_in_the_order_of_pm2_with_the_optional_ones_in_place() {
        let process = json!({
            "pid": 1, "name": "bb", "pm_id": 0, "reason": "exit 1",
            "pm2_env": {
                "name": "bb", "status": "errored", "namespace": "foo", "args": ["a1", "b2"],
                "node_args": [], "max_memory_restart": 209_715_200, "restart_time": 1,
                "created_at": 1_795_374_952_432_i64, "env": {"NODE_ENV": "test"},
                "axm_actions": [{"action_name": "km:heapdump"}],
                "axm_monitor": {"Heap Size": {"value": "6.23", "unit": "MiB"}}, "schedule": [80],
            },
        });
        let text = describe(
            Process(&process),
            &[],
            &DescribeOptions {
                color: false,
                style: Style::Pm2,
                width: None,
                now_ms: 0,
                local_env: &[],
                group_of: &|_| None,
            },
        );
        let labels: Vec<&str> = text
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('│'))
            .map(|line| line.split('│').nth(1).unwrap().trim())
            .collect();
        let expected = [
            "status",
            "name",
            "namespace",
            "version",
            "restarts",
            "max memory restart",
            "uptime",
            "script path",
            "script args",
            "error log path",
            "out log path",
            "pid path",
            "interpreter",
            "interpreter args",
            "script id",
            "exec cwd",
            "exec mode",
            "node.js version",
            "node env",
            "watch & reload",
            "unstable restarts",
            "created at",
            "reason",
            "without effect",
        ];
        assert_eq!(labels, expected);
        for line in [
            " Describing process with id 0 - name bb ",
            "│ script args        │ a1 b2                    │",
            "│ created at         │ 2026-11-22T19:15:52.432Z │",
            "│ Heap Size │ 6.23 MiB │",
            " Trigger via: pm2 trigger bb <action_name>",
            "│ without effect     │ schedule                 │",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
