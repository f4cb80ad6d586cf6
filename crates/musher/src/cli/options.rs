//! table
//!
//! Every option of the command line that is not an attribute of an app. Those
//! of apps come from the attribute table; together they are the grammar.

use musher_core::app::attributes::FlagValue;
use musher_core::app::attributes::FlagValue::{Maybe, On, One};

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// Without the dashes.
    pub(super) long: &'static str,
    /// One letter.
    pub(super) short: Option<char>,
    /// What follows it.
    pub(super) value: FlagValue,
    /// Verbs that know it; empty for all.
    pub(super) verbs: &'static [&'static str],
    /// Meaning, one line.
    pub(super) doc: &'static str,
}

const fn global(long: &'static str, value: FlagValue, doc: &'static str) -> Opt {
    Opt {
        long,
        short: None,
        value,
        verbs: &[],
        doc,
    }
}

const fn short(short: char, long: &'static str, value: FlagValue, doc: &'static str) -> Opt {
    Opt {
        short: Some(short),
        ..global(long, value, doc)
    }
}

const fn of(
    verbs: &'static [&'static str],
    long: &'static str,
    value: FlagValue,
    doc: &'static str,
) -> Opt {
    Opt {
        verbs,
        ..global(long, value, doc)
    }
}

const LOGS: &[&str] = &["logs"];
const COUNTED: &[&str] = &["logs", "history"];
const JSON: &[&str] = &["logs", "reload", "rollback", "history"];
const STARTUP: &[&str] = &["startup", "unstartup"];

/// The options, in the order of the help.
pub(super) const OPTIONS: &[Opt] = &[
    short('v', "version", On, "print the version"),
    short('h', "help", On, "print help"),
    short('s', "silent", On, "hide all messages"),
    short('m', "mini-list", On, "compact list"),
    short(
        'a',
        "update-env",
        On,
        "restart or reload with the shell's environment",
    ),
    global("env", One("name"), "pick env_<name> of a config file"),
    global("only", One("names"), "restrict a config file to these apps"),
    global(
        "parallel",
        One("number"),
        "processes handled at the same time",
    ),
    global(
        "sort",
        One("field_name:sort"),
        "order of the list: a column, then :asc or :desc",
    ),
    global("ext", One("extensions"), "watch only these extensions"),
    global("no-daemon", On, "stay in the foreground"),
    global("attach", On, "stream logs after the action"),
    global("no-color", On, "no colours"),
    global("hp", One("home"), "home directory of the startup script"),
    global("wait-ip", On, "wait for the network at boot"),
    global("service-name", One("name"), "name of the startup service"),
    of(
        STARTUP,
        "dry-run",
        On,
        "print the files and commands and change nothing",
    ),
    of(
        COUNTED,
        "lines",
        One("n"),
        "lines or entries shown, default 15 or 50",
    ),
    of(LOGS, "raw", On, "no prefixes"),
    of(LOGS, "err", On, "only stderr"),
    of(LOGS, "out", On, "only stdout"),
    of(
        LOGS,
        "timestamp",
        Maybe("format"),
        "put the time before each line",
    ),
    of(JSON, "json", On, "JSON instead of text"),
    of(LOGS, "format", On, "key=value lines"),
    of(LOGS, "nostream", On, "print what is there and end"),
    of(LOGS, "highlight", Maybe("text"), "mark this text"),
];

/// Options that are accepted, because PM2's scripts give them, and do nothing.
pub(super) const WITHOUT_EFFECT: &[&str] = &["attach", "ext", "no-daemon"];
