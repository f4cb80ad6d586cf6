// tidy: table
//! Every attribute of an app, one row each: name, aliases, kind, default,
//! command line flags, meaning.
//!
//! Aliases, checks, suggestions, command line flags and help are derived from
//! this table, so an attribute cannot exist in one of them and be missing in
//! another. What an attribute *does* is not here: see `resolve` and
//! `description`.

use super::value;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Canonical name.
    pub name: &'static str,
    /// Further spellings; the camelCase of the name comes on top by itself.
    pub aliases: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// Default as shown to people; `None` when there is none.
    pub default: Option<&'static str>,
    /// Command line flags that set it.
    pub flags: &'static [Flag],
    /// Meaning, one line.
    pub doc: &'static str,
    /// Whether it has an effect.
    pub stage: Stage,
    /// Smallest legal number.
    pub min: Option<i64>,
    /// Whose word it is.
    pub origin: Origin,
}

/// What values an attribute takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A boolean.
    Bool,
    /// A whole number, or its text.
    Integer,
    /// Milliseconds as a number, or its text.
    Millis,
    /// A size: number of bytes, or `150M`.
    Bytes,
    /// A span: number of milliseconds, or `10s`.
    Duration,
    /// A cron expression; 0 is none.
    Cron,
    /// An array, or a string split into words.
    Words,
    /// An array.
    List,
    /// A boolean, a path, or an array of paths.
    Paths,
    /// A boolean, a name, or an array of names.
    Names,
    /// A number or an array of numbers.
    Codes,
    /// A number of processes, or `max`.
    Instances,
    /// A name or a number.
    Identity,
    /// A string, or true for a default.
    TextOrBool,
    /// An object of variables (PM2 also lets a string pass).
    Variables,
    /// An object.
    Object,
    /// Anything.
    Any,
}

/// A flag of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub long: &'static str,
    /// One letter.
    pub short: Option<char>,
    /// What follows it.
    pub value: FlagValue,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagValue {
    /// Nothing: the attribute becomes true.
    On,
    /// Nothing: the attribute becomes false.
    Off,
    /// A value of this name.
    One(&'static str),
    /// A value of this name, which may be left out.
    Maybe(&'static str),
    /// A value of this name; the flag may be repeated.
    Many(&'static str),
}

/// Whether an attribute has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It works.
    Works,
    /// It is accepted, kept and shown, without an effect.
    Stored,
}

/// Whose word an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// PM2's.
    Pm2,
    /// musher's.
    Musher,
}

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing may be started.
    Error,
    /// Worth saying.
    Warning,
}

/// One mistake in the declaration of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Which app: its name, or its place like `apps[0]`; empty if unknown.
    pub app: String,
    /// Attribute as it was written; empty when it is about the whole app.
    pub key: String,
    /// What is wrong. PM2's words where PM2 has some.
    pub message: String,
    /// What mends it.
    pub help: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// Line and column, counted from 1, where the reader of the file knows them.
    pub at: Option<(u32, u32)>,
}

impl ConfigError {
    /// Returns an error about `key`, without an app.
    pub fn error(key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError {
            app: String::new(),
            key: key.to_owned(),
            message: message.into(),
            help: None,
            severity: Severity::Error,
            at: None,
        }
    }

    /// Returns a warning about `key`, without an app.
    pub fn warning(key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError {
            severity: Severity::Warning,
            ..ConfigError::error(key, message)
        }
    }

    /// Returns the same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> ConfigError {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.app, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

const fn row(name: &'static str, kind: Kind, doc: &'static str) -> Attribute {
    Attribute {
        name,
        aliases: &[],
        kind,
        default: None,
        flags: &[],
        doc,
        stage: Stage::Works,
        min: None,
        origin: Origin::Pm2,
    }
}

impl Attribute {
    const fn alias(self, aliases: &'static [&'static str]) -> Attribute {
        Attribute { aliases, ..self }
    }
    const fn default(self, default: &'static str) -> Attribute {
        let default = Some(default);
        Attribute { default, ..self }
    }
    const fn flag(self, flags: &'static [Flag]) -> Attribute {
        Attribute { flags, ..self }
    }
    const fn min(self, min: i64) -> Attribute {
        let min = Some(min);
        Attribute { min, ..self }
    }
    const fn stored(self) -> Attribute {
        let stage = Stage::Stored;
        Attribute { stage, ..self }
    }
    const fn musher(self) -> Attribute {
        let origin = Origin::Musher;
        Attribute { origin, ..self }
    }
}

const fn long(long: &'static str, value: FlagValue) -> Flag {
    let short = None;
    Flag { long, short, value }
}

const fn short(letter: char, long: &'static str, value: FlagValue) -> Flag {
    let short = Some(letter);
    Flag { long, short, value }
}

use FlagValue::{Many, Maybe, Off, On, One};

/// The words of `exec_mode`.
const MODES: &[&str] = &["fork", "fork_mode", "cluster", "cluster_mode"];
/// The words of `balance`.
const BALANCES: &[&str] = &["even", "shared", "round-robin", "rr"];

/// The table, sorted by name.
#[rustfmt::skip]
pub const ATTRIBUTES: &[Attribute] = &[
    row("agent", Kind::Bool, "Preload the agent into Node: drain, event loop and heap figures, gc.").default("true").musher().flag(&[long("no-agent", Off)]),
    row("alerts", Kind::Any, "Whom to tell, and about what.").musher().stored(),
    row("append_env_to_name", Kind::Bool, "Append `-<env>` to the name when `--env` is used.").default("false"),
    row("args", Kind::Words, "Arguments of the script."),
    row("automation", Kind::Bool, "False turns `pmx` off.").default("true").flag(&[long("no-automation", Off)]).stored(),
    row("autorestart", Kind::Bool, "Start the app again when it ends.").default("true").flag(&[long("no-autorestart", Off)]),
    row("autoscale", Kind::Object, "Follow a load target with the number of processes.").musher().stored(),
    row("autostart", Kind::Bool, "False only registers the app.").default("true").flag(&[long("no-autostart", Off)]),
    row("balance", Kind::Word(BALANCES), "How connections are spread over the workers.").default("even").musher().flag(&[long("balance", One("mode"))]),
    row("cron_restart", Kind::Cron, "Cron expression that restarts the app; 0 is none.").alias(&["cron"]).flag(&[short('c', "cron", One("pattern")), long("cron-restart", One("pattern"))]),
    row("cwd", Kind::Text, "Working directory, and what relative paths start from.").default("the caller's directory").flag(&[long("cwd", One("path"))]),
    row("deep_monitoring", Kind::Bool, "Ask the agent for detailed tracing.").flag(&[long("deep-monitoring", On)]).stored(),
    row("depends_on", Kind::Any, "Apps that must be ready first.").musher().stored(),
    row("disable_logs", Kind::Bool, "Write neither files nor log events.").default("false").flag(&[long("disable-logs", On)]),
    row("disable_source_map_support", Kind::Bool, "Turn Node's source maps off.").default("false").flag(&[long("disable-source-map-support", On)]).stored(),
    row("disable_trace", Kind::Bool, "Turn tracing off.").flag(&[long("disable-trace", On)]).stored(),
    row("env", Kind::Variables, "Variables of the app, over the inherited ones.").default("{}"),
    row("env_file", Kind::Paths, "Files of variables, below `env`; true is `.env`.").musher(),
    row("error_file", Kind::Text, "File for stderr; /dev/null is none.").alias(&["error", "err", "err_file", "err_log"]).default("<logs>/<name>-error.log").flag(&[short('e', "error", One("path"))]),
    row("event_loop_inspector", Kind::Bool, "Ask the agent for event loop dumps.").flag(&[long("event-loop-inspector", On)]).stored(),
    row("exec_interpreter", Kind::Text, "Program that runs the script; `none` runs it itself.").alias(&["interpreter"]).default("by extension").flag(&[long("interpreter", One("program"))]),
    row("exec_mode", Kind::Word(MODES), "fork or cluster.").default("fork; cluster for Node with instances"),
    row("execute_command", Kind::Bool, "Force fork mode.").flag(&[short('x', "execute-command", On)]),
    row("exp_backoff_restart_delay", Kind::Millis, "First delay of a growing back-off between restarts, ms.").min(0).flag(&[long("exp-backoff-restart-delay", One("ms"))]),
    row("filter_env", Kind::Names, "Inherited variables whose name contains one of these are left out; true leaves all out.").default("[]").flag(&[long("filter-env", Many("text"))]),
    row("force", Kind::Bool, "Start again although it is already launched.").flag(&[short('f', "force", On)]),
    row("gid", Kind::Identity, "Group to run as, name or number.").default("the user's group").flag(&[long("gid", One("group"))]),
    row("hooks", Kind::Object, "Commands around start and stop.").musher().stored(),
    row("ignore_watch", Kind::Words, "Paths and patterns not to watch.").default("dotfiles, node_modules").flag(&[long("ignore-watch", One("list"))]).stored(),
    row("increment_var", Kind::Text, "Variable increased by one per instance."),
    row("install_url", Kind::Text, "Where a module came from.").stored(),
    row("instance_var", Kind::Text, "Variable that carries the instance number.").default("NODE_APP_INSTANCE"),
    row("instances", Kind::Instances, "Number of processes; 0 or max is one per CPU, -1 one fewer.").default("1").flag(&[short('i', "instances", One("number"))]),
    row("io", Kind::Object, "Options of the agent, passed as JSON in the variable `io`.").stored(),
    row("kill_retry_time", Kind::Millis, "Polling period while waiting for a death, ms.").default("100").stored(),
    row("kill_signal", Kind::Text, "First signal of a stop.").default("SIGINT").musher(),
    row("kill_timeout", Kind::Millis, "Patience between the first signal and SIGKILL, ms.").default("1600").min(0).flag(&[short('k', "kill-timeout", One("ms"))]),
    row("limits", Kind::Object, "Limits of CPU, memory and processes.").musher().stored(),
    row("listen", Kind::Any, "Addresses musher listens on for an app that takes descriptors (LISTEN_FDS).").musher(),
    row("listen_timeout", Kind::Millis, "How long to wait for readiness, ms.").default("3000").min(0).flag(&[long("listen-timeout", One("ms"))]),
    row("liveness", Kind::Object, "Probe whose failure restarts the app.").musher(),
    row("log_date_format", Kind::Text, "day.js format put before each line.").flag(&[long("log-date-format", One("format"))]),
    row("log_file", Kind::TextOrBool, "Combined file in addition to the two.").alias(&["log"]).flag(&[short('l', "log", Maybe("path"))]),
    row("log_type", Kind::Text, "`json` writes one record per line.").flag(&[long("log-type", One("type"))]),
    row("logs", Kind::Object, "Rotation, format and sinks of the logs.").musher().stored(),
    row("max_memory_restart", Kind::Bytes, "Restart above this much resident memory, like 300M.").flag(&[long("max-memory-restart", One("size"))]),
    row("max_restarts", Kind::Integer, "This many unstable runs give up.").default("16").min(0).flag(&[long("max-restarts", Maybe("number"))]),
    row("memory", Kind::Object, "Memory steps: gc_at, shed_at, recycle_at, limit.").musher().stored(),
    row("merge_logs", Kind::Bool, "All instances share the log files.").alias(&["combine_logs"]).default("true without instances").flag(&[long("merge-logs", On)]),
    row("min_uptime", Kind::Duration, "A shorter run counts as unstable, ms or like 10s.").default("1000").min(100),
    row("name", Kind::Text, "Name of the app.").default("file name without extension").flag(&[short('n', "name", One("name"))]),
    row("name_prefix", Kind::Text, "Put before the name of a module's app.").stored(),
    row("namespace", Kind::Text, "Group of the app.").default("default").flag(&[long("namespace", One("name"))]),
    row("node_args", Kind::Words, "Arguments between interpreter and script.").alias(&["interpreter_args"]).default("[]").flag(&[long("node-args", One("args")), long("interpreter-args", One("args"))]),
    row("out_file", Kind::Text, "File for stdout; /dev/null is none.").alias(&["out", "output", "out_log"]).default("<logs>/<name>-out.log").flag(&[short('o', "output", One("path"))]),
    row("pid_file", Kind::Text, "File the pid is written to.").alias(&["pid"]).default("<pids>/<name>.pid").flag(&[short('p', "pid", One("path"))]),
    row("pmx", Kind::TextOrBool, "Put the agent into the app.").default("true").flag(&[long("no-pmx", Off)]).stored(),
    row("pmx_module", Kind::Bool, "The app is a module: left out of `all`."),
    row("port", Kind::Integer, "Sets the variable PORT.").min(0),
    row("post_update", Kind::List, "Commands after `pull`.").stored(),
    row("readiness", Kind::Object, "Probe that says when the app takes traffic.").musher(),
    row("reload", Kind::Object, "How a reload goes: parallel, min_ready, on_failure, drain, websockets.").musher(),
    row("restart", Kind::Object, "Restart policy: intensity, backoff.").musher().stored(),
    row("restart_delay", Kind::Millis, "Fixed delay before an automatic restart, ms.").min(0).flag(&[long("restart-delay", One("ms"))]),
    row("schedule", Kind::Any, "Run as a job at these times.").musher().stored(),
    row("script", Kind::Text, "Path of the script, a program in PATH, or a command line.").alias(&["exec", "cmd", "command"]),
    row("secrets", Kind::Any, "Variables from secret files, never shown.").musher().stored(),
    row("services", Kind::Any, "Databases and caches the app needs, watched and reported.").musher().stored(),
    row("shutdown_with_message", Kind::Bool, "Ask to end by the IPC message `shutdown`.").default("false").flag(&[long("shutdown-with-message", On)]),
    row("source_map_support", Kind::Bool, "Source maps are always on.").flag(&[long("source-map-support", On)]).stored(),
    row("startup", Kind::Object, "Probe of a slow start.").musher(),
    row("sticky", Kind::Any, "Keep a client with its worker: ip, sid, cookie or { mode: 'cookie', name }.").musher().flag(&[long("sticky", One("mode"))]),
    row("stop_exit_codes", Kind::Codes, "Exit codes after which no restart happens.").flag(&[long("stop-exit-codes", Many("code"))]),
    row("time", Kind::Bool, "Put the time before each log line.").flag(&[long("time", On)]),
    row("trace", Kind::Bool, "Ask the agent for tracing.").flag(&[long("trace", On)]).stored(),
    row("treekill", Kind::Bool, "Signal all descendants, not only the main process.").default("true").flag(&[long("no-treekill", Off)]),
    row("uid", Kind::Identity, "User to run as, name or number.").alias(&["user"]).flag(&[long("uid", One("user")), short('u', "user", One("user"))]),
    row("username", Kind::Text, "User the app is shown under.").default("the caller"),
    row("v8", Kind::Bool, "Ask the agent for V8 figures.").flag(&[long("v8", On)]).stored(),
    row("vizion", Kind::Bool, "Read git metadata.").default("true").flag(&[long("no-vizion", Off)]).stored(),
    row("wait_ready", Kind::Bool, "Online only after the IPC message `ready`.").default("false").flag(&[long("wait-ready", On)]),
    row("watch", Kind::Paths, "Restart when files change.").flag(&[long("watch", Maybe("paths"))]).stored(),
    row("watch_delay", Kind::Millis, "Wait this long after a change, ms.").flag(&[long("watch-delay", One("seconds"))]).stored(),
    row("watch_options", Kind::Object, "Options of the watcher, in chokidar's words.").stored(),
    row("windowsHide", Kind::Bool, "Hide the console window on Windows.").default("true").stored(),
    row("write", Kind::Bool, "Write the resolved configuration to a file.").flag(&[short('w', "write", On)]).stored(),
];

/// Most edits a suggestion may be away from what was written.
const MAX_SUGGESTION_DISTANCE: usize = 2;

static SPELLINGS: LazyLock<BTreeMap<String, &'static Attribute>> = LazyLock::new(|| {
    let mut map = BTreeMap::new();
    for attribute in ATTRIBUTES {
        for spelling in spellings(attribute) {
            map.insert(spelling, attribute);
        }
    }
    map
});

/// Returns the attribute of a name, alias or camelCase spelling.
pub fn find(spelling: &str) -> Option<&'static Attribute> {
    SPELLINGS.get(spelling).copied()
}

/// Returns every attribute that has a command line flag, sorted by name.
pub fn flags() -> impl Iterator<Item = &'static Attribute> {
    ATTRIBUTES
        .iter()
        .filter(|attribute| !attribute.flags.is_empty())
}

/// Returns the attributes of `declared` that are kept without an effect,
/// canonical names in the order of the table. Those that only say what
/// happens anyway (false, or the default) are left out.
pub fn without_effect(declared: &Map<String, Value>) -> impl Iterator<Item = &'static str> {
    ATTRIBUTES
        .iter()
        .filter(|row| {
            let asked = |value: &Value| {
                *value != Value::Bool(false)
                    && value::text(value).is_none_or(|text| row.default != Some(text.as_str()))
            };
            row.stage == Stage::Stored && declared.get(row.name).is_some_and(asked)
        })
        .map(|row| row.name)
}

/// Returns true for `env_production` and the like: a block of variables
/// chosen by `--env`.
pub fn is_env_block(key: &str) -> bool {
    key.strip_prefix("env_")
        .is_some_and(|name| !name.is_empty() && !name.contains(char::is_whitespace))
}

/// Returns the known spelling nearest to `key`, if one is near.
pub fn suggestion(key: &str) -> Option<&'static str> {
    let folded = key.to_ascii_lowercase().replace('-', "_");
    SPELLINGS
        .iter()
        // A word of three letters is near to many others.
        .map(|(spelling, row)| (spelling.len().min(folded.len()) / 3, spelling, row))
        .map(|(most, spelling, row)| {
            (
                distance(&folded, &spelling.to_ascii_lowercase()),
                most,
                row.name,
            )
        })
        .filter(|(far, most, _)| *far <= MAX_SUGGESTION_DISTANCE.min(*most))
        .min()
        .map(|(_, _, name)| name)
}

/// Brings a declared app to canonical names and values and checks it.
///
/// Null counts as absent. The canonical name wins over an alias when both
/// are truthy. Unknown keys are dropped with a warning; wrong values are
/// dropped with an error. The order of keys is kept.
pub fn canonical(raw: &Map<String, Value>) -> (Map<String, Value>, Vec<ConfigError>) {
    let mut out = Map::new();
    let mut mistakes = Vec::new();
    for (key, value) in raw {
        if value.is_null() {
            continue;
        }
        if is_env_block(key) && find(key).is_none() {
            out.insert(key.clone(), value.clone());
            continue;
        }
        let Some(row) = find(key) else {
            mistakes.push(unknown(key));
            continue;
        };
        if key != row.name && raw.get(row.name).is_some_and(truthy) {
            continue;
        }
        match check(row, value) {
            Ok(value) => {
                out.insert(row.name.to_owned(), value);
            }
            Err(mistake) => mistakes.push(ConfigError {
                key: key.clone(),
                ..mistake
            }),
        }
    }
    (out, mistakes)
}

/// Returns `value` in the form the description holds it: sizes as bytes,
/// spans as milliseconds, words as an array, numbers as numbers.
///
/// # Errors
/// The value has the wrong type, the wrong form, or is out of range.
pub fn check(row: &Attribute, value: &Value) -> Result<Value, ConfigError> {
    let wrong = || Err(wrong_type(row, value));
    let checked = match row.kind {
        Kind::Text if value.is_string() => value.clone(),
        Kind::Word(words) => match value.as_str() {
            Some(word) if words.contains(&word) => value.clone(),
            Some(_) => {
                return Err(wrong_form(
                    row,
                    &format!("it must be one of {}", words.join(", ")),
                ));
            }
            None => return wrong(),
        },
        Kind::Bool if value.is_boolean() => value.clone(),
        Kind::Integer | Kind::Millis => return check_number(row, value),
        Kind::Bytes if value.is_string() || value.is_number() => match value::bytes(value) {
            Some(bytes) => bytes.into(),
            None => return Err(wrong_form(row, "it must be a size like 300M or 1.5G")),
        },
        Kind::Duration if value.is_string() || value.is_number() => match value::duration(value) {
            Some(span) => return in_range(row, span.into()),
            None => return Err(wrong_form(row, "it must be a span like 10s, 5m or 1h")),
        },
        Kind::Cron if value.is_string() || value.is_number() => value.clone(),
        Kind::Words if value.is_array() || value.is_string() => {
            Value::from(value::words(value).unwrap_or_default())
        }
        Kind::List if value.is_array() => value.clone(),
        Kind::Paths | Kind::Names
            if value.is_boolean() || value.is_array() || value.is_string() =>
        {
            value.clone()
        }
        Kind::Codes => return check_codes(row, value),
        Kind::Instances => return check_instances(row, value),
        Kind::Identity if value.is_string() || value.is_number() => value.clone(),
        Kind::TextOrBool if value.is_string() || value.is_boolean() => value.clone(),
        Kind::Variables if value.is_object() || value.is_string() => value.clone(),
        Kind::Object if value.is_object() => value.clone(),
        Kind::Any => value.clone(),
        Kind::Text
        | Kind::Bool
        | Kind::Bytes
        | Kind::Duration
        | Kind::Cron
        | Kind::Words
        | Kind::List
        | Kind::Paths
        | Kind::Names
        | Kind::Identity
        | Kind::TextOrBool
        | Kind::Variables
        | Kind::Object => return wrong(),
    };
    Ok(checked)
}

fn check_number(row: &Attribute, value: &Value) -> Result<Value, ConfigError> {
    match value::integer(value) {
        Some(number) => in_range(row, number.into()),
        None if value.is_number() => Err(wrong_form(row, "it must be a whole number")),
        None => Err(match value::duration(value) {
            Some(span) if row.kind == Kind::Millis => {
                wrong_type(row, value).with_help(format!("write {span}"))
            }
            Some(_) | None => wrong_type(row, value),
        }),
    }
}

fn check_codes(row: &Attribute, value: &Value) -> Result<Value, ConfigError> {
    let items = match value.as_array() {
        Some(items) => items.as_slice(),
        None => std::slice::from_ref(value),
    };
    let codes: Option<Vec<i64>> = items.iter().map(value::integer).collect();
    match codes.as_deref() {
        // PM2 stores one code as a number, so children see it as a variable.
        Some([code]) => Ok((*code).into()),
        Some(codes) => Ok(codes.into()),
        None => Err(wrong_type(row, value)),
    }
}

fn check_instances(row: &Attribute, value: &Value) -> Result<Value, ConfigError> {
    match value {
        Value::String(word) if word.trim() == "max" => Ok(0.into()),
        Value::String(_) | Value::Number(_) => {
            value::integer(value).map(Value::from).ok_or_else(|| {
                ConfigError::error(
                    row.name,
                    format!("`instances` must be a number, \"max\" or -1, not {value}"),
                )
            })
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(wrong_type(row, value))
        }
    }
}

fn in_range(row: &Attribute, value: Value) -> Result<Value, ConfigError> {
    match (row.min, value.as_i64()) {
        (Some(min), Some(number)) if number < min => Err(ConfigError::error(
            row.name,
            format!(
                "The minimum of \"{}\" is {min}, but now is {number}",
                row.name
            ),
        )),
        _ => Ok(value),
    }
}

fn wrong_type(row: &Attribute, value: &Value) -> ConfigError {
    let expected = accepted(row.kind)
        .iter()
        .map(|name| format!("[object {name}]"))
        .collect::<Vec<_>>()
        .join(" / ");
    ConfigError::error(
        row.name,
        format!(
            "Expect \"{}\" to be a typeof {expected}, but now is [object {}]",
            row.name,
            type_name(value)
        ),
    )
}

fn wrong_form(row: &Attribute, hint: &str) -> ConfigError {
    ConfigError::error(
        row.name,
        format!("Verify \"{}\" with regex failed, {hint}", row.name),
    )
}

fn unknown(key: &str) -> ConfigError {
    let warning = ConfigError::warning(key, format!("unknown attribute `{key}` is ignored"));
    match suggestion(key) {
        Some(name) => warning.with_help(format!("did you mean `{name}`?")),
        None => warning,
    }
}

fn accepted(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Text | Kind::Word(_) => &["String"],
        Kind::Bool => &["Boolean"],
        Kind::Integer | Kind::Millis => &["Number"],
        Kind::Bytes | Kind::Cron => &["String", "Number"],
        Kind::Duration | Kind::Instances | Kind::Identity => &["Number", "String"],
        Kind::Words => &["Array", "String"],
        Kind::List => &["Array"],
        Kind::Paths | Kind::Names => &["Boolean", "Array", "String"],
        Kind::Codes => &["Array", "Number"],
        Kind::TextOrBool => &["String", "Boolean"],
        Kind::Variables => &["Object", "String"],
        Kind::Object => &["Object"],
        Kind::Any => &["Boolean", "Number", "String", "Array", "Object"],
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "Null",
        Value::Bool(_) => "Boolean",
        Value::Number(_) => "Number",
        Value::String(_) => "String",
        Value::Array(_) => "Array",
        Value::Object(_) => "Object",
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn spellings(row: &Attribute) -> impl Iterator<Item = String> {
    let names = std::iter::once(row.name).chain(row.aliases.iter().copied());
    names.flat_map(|name| [name.to_owned(), camel(name)])
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

/// Damerau-Levenshtein distance with adjacent swaps, in characters.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_is_sorted_and_every_row_is_documented() {
        for pair in ATTRIBUTES.windows(2) {
            assert!(pair[0].name < pair[1].name, "{}", pair[1].name);
        }
        for row in ATTRIBUTES {
            assert!(row.doc.ends_with('.') && row.doc.len() > 10, "{}", row.name);
        }
    }

    #[test]
    fn no_spelling_and_no_flag_means_two_attributes() {
        let mut seen = BTreeMap::new();
        let mut letters = BTreeMap::new();
        for row in ATTRIBUTES {
            for spelling in spellings(row) {
                if let Some(other) = seen.insert(spelling.clone(), row.name) {
                    assert_eq!(other, row.name, "{spelling}");
                }
            }
            for flag in row.flags {
                assert!(
                    letters.insert(flag.long.to_owned(), row.name).is_none(),
                    "{}",
                    flag.long
                );
                if let Some(letter) = flag.short {
                    assert!(
                        letters.insert(letter.to_string(), row.name).is_none(),
                        "{letter}"
                    );
                }
            }
        }
    }

    #[test]
    fn aliases_and_camel_case_lead_to_the_canonical_name() {
        for (spelling, name) in [
            ("exec", "script"),
            ("cmd", "script"),
            ("interpreter", "exec_interpreter"),
            ("interpreterArgs", "node_args"),
            ("nodeArgs", "node_args"),
            ("maxMemoryRestart", "max_memory_restart"),
            ("execMode", "exec_mode"),
            ("appendEnvToName", "append_env_to_name"),
            ("errLog", "error_file"),
            ("cron", "cron_restart"),
            ("user", "uid"),
            ("combine_logs", "merge_logs"),
        ] {
            assert_eq!(find(spelling).map(|row| row.name), Some(name), "{spelling}");
        }
        assert!(find("executeMode").is_none());
    }

    #[test]
    fn a_slip_of_the_pen_gets_a_suggestion_and_nonsense_gets_none() {
        for (typo, name) in [
            ("wacth", Some("watch")),
            ("instance", Some("instances")),
            ("max_memory_restrat", Some("max_memory_restart")),
            ("max-restarts", Some("max_restarts")),
            ("exec_mod", Some("exec_mode")),
            ("log_rotate", None),
            ("zzz", None),
        ] {
            assert_eq!(suggestion(typo), name, "{typo}");
        }
    }

    #[test]
    fn checks_speak_with_pm2s_words() {
        for (key, value, message) in [
            (
                "autorestart",
                json!("yes"),
                r#"Expect "autorestart" to be a typeof [object Boolean], but now is [object String]"#,
            ),
            (
                "restart_delay",
                json!("3s"),
                r#"Expect "restart_delay" to be a typeof [object Number], but now is [object String]"#,
            ),
            (
                "name",
                json!(12),
                r#"Expect "name" to be a typeof [object String], but now is [object Number]"#,
            ),
            (
                "watch",
                json!(1),
                r#"Expect "watch" to be a typeof [object Boolean] / [object Array] / [object String], but now is [object Number]"#,
            ),
            (
                "min_uptime",
                json!(5),
                r#"The minimum of "min_uptime" is 100, but now is 5"#,
            ),
            (
                "max_memory_restart",
                json!("5 potatoes"),
                r#"Verify "max_memory_restart" with regex failed, it must be a size like 300M or 1.5G"#,
            ),
            (
                "instances",
                json!("lots"),
                r#"`instances` must be a number, "max" or -1, not "lots""#,
            ),
        ] {
            let raw = Map::from_iter([(key.to_owned(), value)]);
            let (_, mistakes) = canonical(&raw);
            assert_eq!(mistakes.len(), 1, "{key}");
            assert_eq!(mistakes[0].message, message);
        }
    }

    #[test]
    fn values_take_their_canonical_form() {
        for (key, value, expected) in [
            ("max_memory_restart", json!("200M"), json!(200 << 20)),
            ("min_uptime", json!("10s"), json!(10_000)),
            ("restart_delay", json!("3000"), json!(3000)),
            ("args", json!("-p 80"), json!(["-p", "80"])),
            ("instances", json!("max"), json!(0)),
            ("instances", json!("4"), json!(4)),
            ("stop_exit_codes", json!(["0", 143]), json!([0, 143])),
            ("stop_exit_codes", json!([1]), json!(1)),
            ("watch", json!("src"), json!("src")),
        ] {
            let raw = Map::from_iter([(key.to_owned(), value)]);
            let (out, mistakes) = canonical(&raw);
            assert!(mistakes.is_empty(), "{mistakes:?}");
            assert_eq!(out[key], expected);
        }
    }

    #[test]
    fn what_has_no_effect_is_named_unless_it_asks_for_nothing() {
        let declared = json!({"watch": true, "vizion": true, "kill_retry_time": 100,
            "v8": false, "alerts": {"mail": "x"}, "name": "a"});
        let named: Vec<&str> = without_effect(declared.as_object().unwrap()).collect();
        assert_eq!(named, ["alerts", "watch"]);
    }

    #[test]
    fn the_canonical_name_wins_over_an_alias_when_it_is_truthy() {
        let raw = json!({"out": "a.log", "out_file": "b.log", "error": "e.log", "error_file": ""});
        let (out, _) = canonical(raw.as_object().unwrap());
        assert_eq!(out["out_file"], "b.log");
    }
}
