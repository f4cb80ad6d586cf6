//! What every command needs: paths, console, parsed line, the connection.

use super::output::{Console, Failure};
use super::parse::Parsed;
use super::process::Process;
use super::table::{self, ListOptions};
use crate::client::{self, Client};
use crate::paths::{Paths, Style};
use musher_core::id::PmId;
use musher_core::target::{Candidate, Target, TargetError};
use serde_json::{Value, json};

/// The world of one command.
pub(super) struct Context {
    /// Files of the home.
    pub(super) paths: Paths,
    /// Where to talk.
    pub(super) console: Console,
    /// The command line.
    pub(super) parsed: Parsed,
    /// The caller's environment, in order.
    pub(super) env: Vec<(String, String)>,
    /// The caller's directory.
    pub(super) cwd: String,
    /// The connection, once there is one.
    pub(super) client: Option<Client>,
}

impl Context {
    /// Returns the value of a variable of the caller, unless it is empty.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        let found = self.env.iter().find(|(key, _)| key == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the connection to the daemon, which is started if need be.
    pub(super) fn daemon(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            let discrete = self.var("PM2_DISCRETE_MODE").is_some();
            let console = &mut self.console;
            let home = self.paths.home.display().to_string();
            let mut started = false;
            let client = client::ensure_daemon(&self.paths, &mut || {
                started = true;
                if !discrete {
                    console.err_line(&spawning(console.style, &home));
                }
            })?;
            if started && !discrete {
                let text = daemonized(self.console.style);
                self.console.err_line(text);
            }
            self.client = Some(client);
        }
        Ok(self.client.as_mut().expect("a connection was just made"))
    }

    /// Returns the connection if a daemon runs; never starts one.
    pub(super) fn running_daemon(&mut self) -> Result<Option<&mut Client>, Failure> {
        if self.client.is_none() {
            self.client = Client::connect(&self.paths)?;
        }
        Ok(self.client.as_mut())
    }

    /// Asks the daemon for the list of processes, ascending ids.
    pub(super) fn list(&mut self) -> Result<Vec<Value>, Failure> {
        match self.daemon()?.read("getMonitorData", json!({}))? {
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
        let options = ListOptions {
            width: self.console.width,
            color: self.console.color_out,
            sort: self.parsed.value("sort").unwrap_or("name").to_owned(),
            mini: self.parsed.has("mini-list"),
            reasons: self.console.style == Style::Musher,
            now_ms: musher_os::clock::now().wall.0,
        };
        let text = table::list(list, &options);
        if !self.console.silent {
            self.console.data(&text);
        }
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
        match Target::parse(word, &self.cwd).select(&candidates, &matches) {
            Ok(ids) => Ok(ids),
            Err(error @ TargetError::NoneFound) => {
                self.console.warn_err(&error.to_string());
                Err(Failure::Told)
            }
            Err(error @ (TargetError::NotFound(_) | TargetError::BadRegex { .. })) => {
                Err(error.into())
            }
        }
    }
}

fn matches(pattern: &str, name: &str) -> Result<bool, String> {
    match regex_lite::Regex::new(pattern) {
        Ok(regex) => Ok(regex.is_match(name)),
        Err(error) => Err(error.to_string()),
    }
}

fn spawning(style: Style, home: &str) -> String {
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
