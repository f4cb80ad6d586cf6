//! A process list to PM2's `list` table, or its mini list.
//!
//! Pure: JSON, width and time in, text out. The widest layout that fits is
//! taken; without a terminal the full one.

use super::boxes::{self, Cell, Overflow};
use super::output::{Color, paint};
use super::process::Process;
use super::units;
use serde_json::Value;
use std::cmp::Ordering;
use unicode_width::UnicodeWidthStr;

/// Narrowest name column for the sake of more columns.
const MIN_NAME_WIDTH: usize = 20;
/// Widest name column.
const MAX_NAME_WIDTH: usize = 40;
/// Problems told below the table.
const MAX_PROBLEMS: usize = 5;
/// Name column of an empty list.
const EMPTY_NAME_WIDTH: usize = 11;

/// How to draw a list.
#[derive(Clone, Debug)]
pub(super) struct ListOptions {
    /// Columns of the terminal; `None` for a pipe.
    pub(super) width: Option<usize>,
    /// Colours wanted.
    pub(super) color: bool,
    /// Field, optionally with `:asc` or `:desc`.
    pub(super) sort: String,
    /// Blocks instead of a table.
    pub(super) mini: bool,
    /// Add what is wrong with processes below the table.
    pub(super) reasons: bool,
    /// Milliseconds since the epoch.
    pub(super) now_ms: i64,
}

/// Returns the text of a list; `list` holds elements of `getMonitorData`.
pub(super) fn list(list: &[Value], options: &ListOptions) -> String {
    let mut processes: Vec<Process<'_>> = list.iter().map(Process).collect();
    sort(&mut processes, &options.sort);
    if options.mini {
        return mini_list(&processes, options);
    }
    let (modules, apps): (Vec<_>, Vec<_>) = processes.into_iter().partition(|p| p.is_module());
    let mut out = table(&apps, layout(APP_LAYOUTS, &apps, options), options);
    if !modules.is_empty() {
        let heading = if modules.len() > 1 {
            "Modules"
        } else {
            "Module"
        };
        out.push_str(&paint(heading, Color::Bold, options.color));
        out.push('\n');
        let layout = layout(MODULE_LAYOUTS, &modules, options);
        out.push_str(&table(&modules, layout, options));
    }
    if options.reasons {
        push_problems(&apps, options, &mut out);
    }
    out
}

/// A column of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Id,
    Name,
    Module,
    Namespace,
    Version,
    Mode,
    Pid,
    Uptime,
    Restarts,
    Status,
    Cpu,
    Memory,
    MemoryLong,
    User,
    Watching,
}

use Column::{
    Cpu, Id, Memory, MemoryLong, Mode, Module, Name, Namespace, Pid, Restarts, Status, Uptime,
    User, Version, Watching,
};

/// Layouts from wide to narrow; the last is squeezed if even it is too wide.
const APP_LAYOUTS: &[&[Column]] = &[
    &[
        Id, Name, Namespace, Version, Mode, Pid, Uptime, Restarts, Status, Cpu, Memory, User,
        Watching,
    ],
    &[Id, Name, Mode, Restarts, Status, Cpu, MemoryLong],
    &[Id, Name, Status, Cpu, Memory],
    &[Id, Name, Status],
];

const MODULE_LAYOUTS: &[&[Column]] = &[
    &[
        Id, Module, Version, Pid, Status, Restarts, Cpu, Memory, User,
    ],
    &[Id, Name, Status, Cpu, Memory],
    &[Id, Name, Status],
];

struct Layout {
    columns: &'static [Column],
    widths: Vec<usize>,
}

fn layout(
    layouts: &[&'static [Column]],
    processes: &[Process<'_>],
    options: &ListOptions,
) -> Layout {
    let sized = |columns: &'static [Column]| Layout {
        columns,
        widths: columns
            .iter()
            .map(|column| width(*column, processes))
            .collect(),
    };
    let limit = options.width.unwrap_or(usize::MAX);
    let mut last = None;
    for columns in layouts {
        let mut candidate = sized(columns);
        // A shorter name is better than fewer columns.
        let too_wide = total(&candidate.widths).saturating_sub(limit);
        let names = columns
            .iter()
            .position(|column| matches!(column, Name | Module));
        if let Some(width) = names.map(|at| &mut candidate.widths[at]) {
            *width -= too_wide.min(width.saturating_sub(MIN_NAME_WIDTH));
        }
        if total(&candidate.widths) <= limit {
            return candidate;
        }
        last = Some(sized(columns));
    }
    let mut narrow = last.expect("there is at least one layout");
    squeeze(&mut narrow.widths, limit);
    narrow
}

/// Takes columns away from the widest cells until the row fits.
fn squeeze(widths: &mut [usize], limit: usize) {
    while total(widths) > limit {
        match widths.iter_mut().max() {
            Some(widest) if *widest > 3 => *widest -= 1,
            Some(_) | None => return,
        }
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + widths.len() + 1
}

fn width(column: Column, processes: &[Process<'_>]) -> usize {
    match column {
        Id => {
            let largest = processes.iter().map(|process| process.id().0).max();
            (largest.unwrap_or(0).to_string().len() + 2).max(4)
        }
        // PM2 does not count the marks it puts before a name.
        Name | Module => {
            let longest = processes.iter().map(|process| process.name().width()).max();
            longest.map_or(EMPTY_NAME_WIDTH, |longest| {
                (longest + 5).min(MAX_NAME_WIDTH)
            })
        }
        Namespace => 13,
        Version => 9,
        Mode => 9,
        Pid => 10,
        Uptime => 8,
        Restarts => 6,
        Status => 11,
        Cpu | Memory | MemoryLong | User | Watching => 10,
    }
}

fn heading(column: Column) -> &'static str {
    match column {
        Id => "id",
        Name => "name",
        Module => "module",
        Namespace => "namespace",
        Version => "version",
        Mode => "mode",
        Pid => "pid",
        Uptime => "uptime",
        Restarts => "↺",
        Status => "status",
        Cpu => "cpu",
        Memory => "mem",
        MemoryLong => "memory",
        User => "user",
        Watching => "watching",
    }
}

fn table(processes: &[Process<'_>], layout: Layout, options: &ListOptions) -> String {
    let header: Vec<&str> = layout
        .columns
        .iter()
        .map(|column| heading(*column))
        .collect();
    let rows: Vec<Vec<Cell>> = processes
        .iter()
        .map(|process| {
            let columns = layout.columns.iter();
            columns
                .map(|column| cell(*column, *process, options.now_ms))
                .collect()
        })
        .collect();
    boxes::draw(&layout.widths, &header, &rows, Overflow::Cut, options.color)
}

fn cell(column: Column, process: Process<'_>, now_ms: i64) -> Cell {
    let plain = |text: String| (text, None);
    let missing = || "N/A".to_owned();
    match column {
        Id => (process.id().to_string(), Some(Color::Cyan)),
        Name | Module => plain(name(process)),
        Namespace => plain(process.namespace().to_owned()),
        Version => plain(process.text("version").map_or_else(missing, str::to_owned)),
        Mode => plain(process.mode().to_owned()),
        Pid => plain(process.pid().map_or_else(missing, |pid| pid.to_string())),
        Uptime => plain(uptime(process, now_ms)),
        Restarts => plain(process.number("restart_time").to_string()),
        Status => (
            process.status().to_owned(),
            Some(status_color(process.status())),
        ),
        Cpu => plain(
            process
                .cpu()
                .map_or_else(missing, |cpu| format!("{}%", units::decimal(cpu))),
        ),
        Memory | MemoryLong => plain(process.memory().map_or_else(missing, units::bytes)),
        User => plain(user(process)),
        Watching if process.is_set("watch") => ("enabled".to_owned(), Some(Color::Green)),
        Watching => ("disabled".to_owned(), Some(Color::Dim)),
    }
}

fn user(process: Process<'_>) -> String {
    match process.field("uid").or_else(|| process.field("username")) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) | None => process.text("username").unwrap_or("N/A").to_owned(),
    }
}

/// Returns the colour of a status word.
pub(super) fn status_color(status: &str) -> Color {
    match status {
        "online" => Color::Green,
        "launching" => Color::Blue,
        _ => Color::Red,
    }
}

/// Returns how long the process runs; `0` unless it is online.
fn uptime(process: Process<'_>, now_ms: i64) -> String {
    if process.status() != "online" {
        return "0".to_owned();
    }
    units::span(now_ms - process.number("pm_uptime"))
}

fn name(process: Process<'_>) -> String {
    let traced = if process.is_set("trace") { "[T] " } else { "" };
    let monitored = if process.is_set("_km_monitored") {
        "[M] "
    } else {
        ""
    };
    format!("{traced}{monitored}{}", process.name())
}

/// Writes what is wrong and which commands tell more: processes of one name
/// with one reason share a line.
fn push_problems(processes: &[Process<'_>], options: &ListOptions, out: &mut String) {
    let mut problems: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for process in processes {
        let (name, id) = (process.name(), process.id().to_string());
        let Some(reason) = process.reason() else {
            continue;
        };
        if !matches!(process.status(), "errored" | "waiting restart") {
            continue;
        }
        match problems
            .iter_mut()
            .find(|found| (found.0, found.1) == (name, reason))
        {
            Some((_, _, ids)) => ids.push(id),
            None => problems.push((name, reason, vec![id])),
        }
    }
    let limit = options.width.unwrap_or(usize::MAX);
    for (name, reason, ids) in problems.iter().take(MAX_PROBLEMS) {
        let text = format!("{name} ({}): {reason}", ids.join(", "));
        let text = boxes::wrap(&text, limit);
        out.push_str(&paint(&text, Color::Red, options.color));
        let word = word(name);
        out.push_str(&format!(
            "\n  see: musher logs {word}, musher describe {word}\n"
        ));
    }
    let n_hidden = problems.len().saturating_sub(MAX_PROBLEMS);
    if n_hidden > 0 {
        out.push_str(&format!("and {n_hidden} more: musher list --sort status\n"));
    }
}

/// Returns a name as a word of a shell.
fn word(name: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_.:@/+".contains(letter);
    if name.chars().all(is_plain) && !name.starts_with('-') {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

fn sort(processes: &mut [Process<'_>], order: &str) {
    let (field, direction) = order.split_once(':').unwrap_or((order, "asc"));
    let by_field = |a: &Process<'_>, b: &Process<'_>| match field {
        "namespace" => a.namespace().cmp(b.namespace()),
        "pid" => a.pid().cmp(&b.pid()),
        "id" => a.id().cmp(&b.id()),
        "cpu" => by_number(a.cpu(), b.cpu()),
        "memory" => by_number(a.memory(), b.memory()),
        "uptime" => a.number("pm_uptime").cmp(&b.number("pm_uptime")),
        "status" => a.status().cmp(b.status()),
        _ => a.name().cmp(b.name()),
    };
    processes.sort_by(|a, b| {
        let order = by_field(a, b);
        let order = if direction == "desc" {
            order.reverse()
        } else {
            order
        };
        order.then_with(|| a.id().cmp(&b.id()))
    });
}

fn by_number(a: Option<f64>, b: Option<f64>) -> Ordering {
    a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0))
}

fn mini_list(processes: &[Process<'_>], options: &ListOptions) -> String {
    let mut out = String::new();
    for process in processes {
        let watching = if process.is_set("watch") { "yes" } else { "no" };
        let path = |key| process.text(key).unwrap_or("N/A").to_owned();
        let lines = [
            ("namespace", process.namespace().to_owned()),
            (
                "version",
                process.text("version").unwrap_or("undefined").to_owned(),
            ),
            (
                "pid",
                process
                    .pid()
                    .map_or("N/A".to_owned(), |pid| pid.to_string()),
            ),
            ("pm2 id", process.id().to_string()),
            ("status", process.status().to_owned()),
            ("mode", process.mode().to_owned()),
            ("restarted", process.number("restart_time").to_string()),
            ("uptime", uptime(*process, options.now_ms)),
            (
                "memory usage",
                format!("{} ", units::bytes(process.memory().unwrap_or(0.0))),
            ),
            ("error log", path("pm_err_log_path")),
            ("watching", watching.to_owned()),
            ("PID file", path("pm_pid_path")),
        ];
        out.push_str(&format!("+--- {}\n", process.name()));
        for (key, value) in lines {
            out.push_str(&format!("{key} : {value}\n"));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
