//! What every command needs: paths, console, parsed line, the connection.

use super::caller::Caller;
use super::output::{Console, Failure, SEE_LIST};
use super::parse::Parsed;
use super::process::Process;
use super::table::{self, ListOptions};
use crate::client::{self, Client};
use crate::daemon::PM2_VERSION;
use crate::paths::{Paths, Style};
use musher_core::id::PmId;
use musher_core::target::{Candidate, Target, TargetError};
use serde_json::{Value, json};
use std::path::Path;

/// The world of one command.
pub(super) struct Context {
    /// Files of the home.
    pub(super) paths: Paths,
    /// Where to talk.
    pub(super) console: Console,
    /// The command line.
    pub(super) parsed: Parsed,
    /// The caller's environment and directory.
    pub(super) caller: Caller,
    /// The connection, once there is one.
    pub(super) client: Option<Client>,
}

impl Context {
    /// Returns the value of a variable of the caller, unless it is empty.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.caller.var(name)
    }

    /// Returns the connection to the daemon, which is started if need be.
    pub(super) fn daemon(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            let (console, caller, paths) = (&mut self.console, &self.caller, &self.paths);
            let is_discrete = || caller.var("PM2_DISCRETE_MODE").is_some();
            let mut started = false;
            let client = client::ensure_daemon(paths, &mut || {
                started = true;
                if !is_discrete() {
                    console.err_line(&spawning(console.style, &paths.home));
                }
            })?;
            if started && !is_discrete() {
                let text = daemonized(self.console.style);
                self.console.err_line(text);
            }
            let client = self.client.insert(client);
            match self.console.style {
                _ if started => {}
                Style::Pm2 => tell_other_version(client, &mut self.console)?,
                Style::Musher => tell_other_musher(client, &mut self.console),
            }
        }
        Ok(self.client.as_mut().expect("a connection was just made"))
    }

    /// Returns the connection if a daemon runs; never starts one.
    pub(super) fn running_daemon(&mut self) -> Result<Option<&mut Client>, Failure> {
        if self.client.is_none() {
            self.client = client::connect(&self.paths)?;
        }
        Ok(self.client.as_mut())
    }

    /// Asks the daemon for the list of processes, ascending ids, without their
    /// environments, which are most of its bytes. PM2's daemon sends them all
    /// the same.
    pub(super) fn list(&mut self) -> Result<Vec<Value>, Failure> {
        self.monitor_data(json!({"slim": true}))
    }

    /// Asks for the list with environments.
    pub(super) fn full_list(&mut self) -> Result<Vec<Value>, Failure> {
        self.monitor_data(json!({}))
    }

    fn monitor_data(&mut self, argument: Value) -> Result<Vec<Value>, Failure> {
        match self.daemon()?.read("getMonitorData", argument)? {
            Value::Array(list) => Ok(list),
            other => Err(Failure::Error(format!(
                "the daemon sent no process list but {other}"
            ))),
        }
    }

    /// Prints the process table, as most commands do at their end.
    pub(super) fn print_table(&mut self) -> Result<(), Failure> {
        let list = self.list()?;
        self.print_table_of(&list);
        Ok(())
    }

    /// Prints the table of a list at hand.
    pub(super) fn print_table_of(&mut self, list: &[Value]) {
        if !self.console.silent {
            let text = self.table_of(list);
            self.console.data(&text);
        }
    }

    /// Returns the table of a list at hand.
    pub(super) fn table_of(&self, list: &[Value]) -> String {
        let mini = self.parsed.has("mini-list");
        // PM2 sorts its table and leaves blocks in the order of the ids.
        let order = if mini { "id" } else { "name" };
        let options = ListOptions {
            width: self.console.width,
            color: self.console.color_out,
            sort: self.parsed.value("sort").unwrap_or(order).to_owned(),
            mini,
            reasons: self.console.style == Style::Musher,
            now_ms: musher_os::clock::now().wall.0,
        };
        table::list(list, &options)
    }

    /// Returns the ids a word means, in PM2's order of interpretation.
    ///
    /// # Errors
    /// Nobody is meant; PM2's message was printed.
    pub(super) fn select(&mut self, list: &[Value], word: &str) -> Result<Vec<PmId>, Failure> {
        let processes: Vec<Process<'_>> = list.iter().map(Process).collect();
        let candidates: Vec<Candidate<'_>> = processes
            .iter()
            .map(|process| Candidate {
                id: process.id(),
                name: process.name(),
                namespace: process.namespace(),
                exec_path: process.text("pm_exec_path").unwrap_or(""),
                is_module: process.is_module(),
            })
            .collect();
        match Target::parse(word, self.caller.cwd()).select(&candidates, &matches) {
            Ok(ids) => Ok(ids),
            Err(error @ TargetError::NoneFound) => {
                self.console.warn_err(&error.to_string());
                self.console.help(SEE_LIST);
                Err(Failure::Told)
            }
            Err(error @ TargetError::NotFound(_)) => Err(Failure::unlisted(error.to_string())),
            Err(error @ TargetError::BadRegex { .. }) => Err(error.into()),
        }
    }
}

fn matches(pattern: &str, name: &str) -> Result<bool, String> {
    match regex_lite::Regex::new(pattern) {
        Ok(regex) => Ok(regex.is_match(name)),
        Err(error) => Err(error.to_string()),
    }
}

/// Tells, as PM2 does, that the daemon is of another version. On stderr: what
/// scripts read is on stdout.
fn tell_other_version(client: &mut Client, console: &mut Console) -> Result<(), Failure> {
    let answer = client.read("getVersion", json!({}))?;
    let theirs = answer.as_str().unwrap_or("unknown");
    let ours = PM2_VERSION;
    if theirs == ours {
        return Ok(());
    }
    for line in [
        ">>>> In-memory PM2 is out-of-date, do:",
        ">>>> $ pm2 update",
    ] {
        console.err_line(line);
    }
    console.err_line(&format!("In memory PM2 version: {theirs}"));
    console.err_line(&format!("Local PM2 version: {ours}"));
    Ok(())
}

/// Tells, in one line on stderr, that the daemon is another musher than this
/// command, and what brings them together. What it is not told it does not know:
/// the command goes on.
fn tell_other_musher(client: &mut Client, console: &mut Console) {
    let report = client.read("getReport", json!({})).unwrap_or_default();
    let ours = crate::version::own();
    let theirs = report.get("musher_version").and_then(Value::as_str);
    if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
        console.warn_err(&format!(
            "the daemon is musher {theirs}, this command {ours}: `musher update` replaces the daemon"
        ));
    }
}

fn spawning(style: Style, home: &Path) -> String {
    let home = home.display();
    match style {
        Style::Pm2 => format!("[PM2] Spawning PM2 daemon with pm2_home={home}"),
        Style::Musher => format!("[musher] Starting the daemon in {home}"),
    }
}

fn daemonized(style: Style) -> &'static str {
    match style {
        Style::Pm2 => "[PM2] PM2 Successfully daemonized",
        Style::Musher => "[musher] The daemon is ready",
    }
}
