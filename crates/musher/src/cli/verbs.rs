//! table
//!
//! Every verb: names, what follows it, which group of the help it is in, and
//! the function that carries it out.

use super::commands;
use super::context::Context;
use super::output::Failure;

/// What a command gives: the exit code, or what went wrong.
pub(super) type Outcome = Result<u8, Failure>;

/// One verb.
#[derive(Clone, Copy)]
pub(super) struct Verb {
    /// Canonical name.
    pub(super) name: &'static str,
    /// Further names.
    pub(super) aliases: &'static [&'static str],
    /// What follows it, as shown in help.
    pub(super) operands: &'static str,
    /// How many operands it needs.
    pub(super) n_required: usize,
    /// Refuses more than it needs.
    pub(super) strict: bool,
    /// Meaning, one line; empty hides it from help.
    pub(super) doc: &'static str,
    /// Carries it out.
    pub(super) run: fn(&mut Context) -> Outcome,
}

const fn verb(
    name: &'static str,
    operands: &'static str,
    n_required: usize,
    doc: &'static str,
    run: fn(&mut Context) -> Outcome,
) -> Verb {
    Verb {
        name,
        aliases: &[],
        operands,
        n_required,
        strict: false,
        doc,
        run,
    }
}

impl Verb {
    /// Returns true when attributes of apps may follow it.
    pub(super) fn takes_attributes(&self) -> bool {
        matches!(self.name, "start" | "restart" | "reload")
    }

    const fn alias(self, aliases: &'static [&'static str]) -> Verb {
        Verb { aliases, ..self }
    }

    const fn strict(self) -> Verb {
        Verb {
            strict: true,
            ..self
        }
    }
}

const TARGETS: &str = "id|name|namespace|all|json|stdin";

/// The verbs, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    verb(
        "start",
        "[name|namespace|file|ecosystem|id...]",
        0,
        "start and daemonize an app",
        commands::start::run,
    ),
    verb(
        "stop",
        TARGETS,
        1,
        "stop a process",
        commands::actions::stop,
    ),
    verb(
        "restart",
        TARGETS,
        1,
        "restart a process",
        commands::actions::restart,
    ),
    verb(
        "reload",
        "id|name|namespace|all",
        1,
        "replace running processes without downtime",
        commands::reload::run,
    ),
    verb(
        "delete",
        "name|id|namespace|script|all|json|stdin",
        1,
        "stop a process and forget it",
        commands::actions::delete,
    )
    .alias(&["del"]),
    verb(
        "scale",
        "<app_name> <number>",
        2,
        "set, add (+n) or remove (-n) processes of an app",
        commands::scale::run,
    ),
    verb(
        "startOrRestart",
        "<json>",
        1,
        "start or restart a config file",
        commands::start::start_or_restart,
    ),
    verb(
        "startOrReload",
        "<json>",
        1,
        "start or reload a config file",
        commands::start::start_or_reload,
    )
    .alias(&["startOrGracefulReload"]),
    verb("list", "", 0, "list all processes", commands::list::run)
        .alias(&["ls", "l", "ps", "status"]),
    verb(
        "jlist",
        "",
        0,
        "list all processes as JSON",
        commands::list::jlist,
    ),
    verb(
        "prettylist",
        "",
        0,
        "list all processes as readable JSON",
        commands::list::prettylist,
    )
    .strict(),
    verb(
        "describe",
        "<name|id>",
        1,
        "everything about a process",
        commands::describe::run,
    )
    .alias(&["desc", "info", "show"]),
    verb(
        "env",
        "<id>",
        1,
        "environment of a process",
        commands::env::run,
    ),
    verb("id", "<name>", 1, "ids of a name", commands::id::id),
    verb(
        "pid",
        "[name]",
        0,
        "pids of a name, or all",
        commands::id::pid,
    ),
    verb(
        "logs",
        "[id|name|namespace]",
        0,
        "show and follow logs",
        commands::logs::run,
    )
    .alias(&["log"]),
    verb(
        "flush",
        "[name|id]",
        0,
        "empty log files",
        commands::flush::run,
    ),
    verb(
        "reloadLogs",
        "",
        0,
        "open all log files again",
        commands::signals::reload_logs,
    ),
    verb(
        "sendSignal",
        "<signal> <id|name>",
        2,
        "send a signal to a process",
        commands::signals::send_signal,
    ),
    verb(
        "gc",
        "id|name|namespace|all",
        1,
        "run the garbage collector of Node apps",
        commands::gc::run,
    ),
    verb(
        "reset",
        "<name|id|all>",
        1,
        "reset counters of a process",
        commands::reset::run,
    ),
    verb(
        "monitor",
        "[name]",
        0,
        "monitor a process",
        commands::reset::monitor,
    ),
    verb(
        "unmonitor",
        "[name]",
        0,
        "stop monitoring a process",
        commands::reset::unmonitor,
    ),
    verb("save", "", 0, "save the process list", commands::save::run)
        .alias(&["dump"])
        .strict(),
    verb(
        "cleardump",
        "",
        0,
        "empty the saved list",
        commands::save::clear,
    )
    .strict(),
    verb(
        "resurrect",
        "",
        0,
        "start what was saved",
        commands::save::resurrect,
    )
    .strict(),
    verb(
        "startup",
        "[platform]",
        0,
        "start the saved list at boot",
        commands::startup::run,
    ),
    verb(
        "unstartup",
        "[platform]",
        0,
        "start nothing at boot",
        commands::startup::undo,
    ),
    verb(
        "rollback",
        "id|name|namespace|all",
        1,
        "reload the release that served before",
        commands::rollback::run,
    ),
    verb(
        "history",
        "[name]",
        0,
        "how runs ended and reloads went",
        commands::history::run,
    ),
    verb(
        "why",
        "<name|id>",
        1,
        "why a process is in its state",
        commands::history::why,
    ),
    verb(
        "ping",
        "",
        0,
        "ask the daemon for a sign of life",
        commands::kill::ping,
    ),
    verb(
        "kill",
        "",
        0,
        "stop all processes and the daemon",
        commands::kill::run,
    )
    .strict(),
    verb(
        "update",
        "[executable]",
        0,
        "replace the daemon by another version, apps untouched",
        commands::update::run,
    )
    .alias(&["updatePM2"]),
    verb(
        "report",
        "",
        0,
        "facts for a bug report",
        commands::report::run,
    ),
    verb(
        "config",
        "check <file>",
        0,
        "check a config file",
        commands::config::run,
    ),
    verb(
        "completion",
        "[bash|zsh|fish]",
        0,
        "print a script that completes commands and options",
        commands::completion::run,
    ),
];

/// Verbs of PM2 that are recognised and refused.
#[rustfmt::skip]
pub(super) const NOT_IN_THIS_VERSION: &[&str] = &[
    "attach", "autoinstall", "backward", "conf", "create", "dash", "dashboard", "deepUpdate",
    "deploy", "ecosystem", "examples", "expose", "forward", "get", "imonit", "init", "inspect",
    "install", "install-otel", "link", "login", "logout", "logrotate", "module:generate",
    "module:install", "module:publish", "module:uninstall", "module:update", "monit", "multiset",
    "open", "package", "plus", "profile:cpu", "profile:mem", "publish", "pull", "register",
    "send", "serve", "set", "slist", "sysinfos", "trigger", "uninstall",
    "uninstall-otel", "unlink", "unset",
];

/// Returns the verb of a name or alias.
pub(super) fn find(word: &str) -> Option<&'static Verb> {
    VERBS
        .iter()
        .find(|verb| verb.name == word || verb.aliases.contains(&word))
}
