//! An app while it is being resolved: script, name, interpreter, mode, user.

use super::{Context, Source, User, absolute, paths, stem};
use crate::app::attributes::{self, ConfigError};
use crate::app::interpreter::{self, Content};
use crate::app::value;
use serde_json::{Map, Value};

/// A script found, or what stands in for one that was not.
pub(super) struct Script {
    pub(super) path: String,
    /// What the app is named after.
    pub(super) title: String,
    pub(super) content: Content,
    /// Set when the script is run by itself, whatever its content.
    pub(super) runs_itself: bool,
    /// Arguments that replace the declared ones.
    pub(super) args: Option<Vec<String>>,
    pub(super) found: bool,
}

/// The interpreter and what stands before the script.
pub(super) struct Program {
    pub(super) interpreter: String,
    pub(super) args: Vec<String>,
}

/// An app while it is being resolved.
pub(super) struct Draft<'a> {
    pub(super) attributes: &'a Map<String, Value>,
    pub(super) ctx: &'a Context<'a>,
    pub(super) mistakes: Vec<ConfigError>,
}

impl Draft<'_> {
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.attributes
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.attributes
            .get(key)
            .and_then(Value::as_bool)
            .unwrap_or(default)
    }

    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.mistakes.push(ConfigError::error(key, message));
    }

    pub(super) fn script(&mut self, cwd: &str) -> Script {
        let machine = self.ctx.machine;
        let Some(text) = self.text("script").map(str::to_owned) else {
            // A value of the wrong type has been reported already.
            if !self.mistakes.iter().any(|mistake| {
                attributes::find(&mistake.key).is_some_and(|row| row.name == "script")
            }) {
                self.mistakes.push(
                    ConfigError::error("script", "No script path - aborting")
                        .with_help("add `script`: a path, a program in PATH or a command line"),
                );
            }
            return missing("", "");
        };
        let path = absolute(&text, cwd);
        let title = stem(&text).to_owned();
        if let Some(content) = machine.file(&path) {
            return Script {
                path,
                title,
                content,
                runs_itself: false,
                args: None,
                found: true,
            };
        }
        if text.contains(char::is_whitespace) {
            return self.command_line(text);
        }
        if !text.contains('/')
            && let Some(program) = machine.program(&text)
        {
            let content = Content::Binary;
            return Script {
                path: program,
                title,
                content,
                runs_itself: true,
                args: None,
                found: true,
            };
        }
        self.mistakes.push(
            ConfigError::error("script", format!("Script not found: {path}")).with_help(format!(
                "relative paths start from {cwd}; `cwd` changes that"
            )),
        );
        missing(&path, &title)
    }

    fn command_line(&mut self, text: String) -> Script {
        let machine = self.ctx.machine;
        let Some(shell) = machine.program("bash").or_else(|| machine.program("sh")) else {
            self.error("script", "a command line needs bash or sh in PATH");
            return missing(&text, &text);
        };
        if self.attributes.contains_key("args") {
            self.mistakes.push(ConfigError::warning(
                "args",
                "arguments are ignored because `script` is a command line",
            ));
        }
        Script {
            path: shell,
            title: text.clone(),
            content: Content::Binary,
            runs_itself: true,
            args: Some(vec!["-c".to_owned(), text]),
            found: true,
        }
    }

    pub(super) fn name(&self, script: &Script) -> String {
        let name = self.text("name").unwrap_or(&script.title);
        match self.ctx.env_name {
            Some(env) if self.flag("append_env_to_name", false) => format!("{name}-{env}"),
            Some(_) | None => name.to_owned(),
        }
    }

    pub(super) fn interpreter(&mut self, script: &Script, cwd: &str) -> Program {
        let declared = value::words(self.attributes.get("node_args").unwrap_or(&Value::Null))
            .unwrap_or_default();
        let explicit = self.text("exec_interpreter").map(str::to_owned);
        if let Some(word) = explicit {
            let interpreter = self.explicit_interpreter(word, cwd);
            return Program {
                interpreter,
                args: declared,
            };
        }
        if script.runs_itself || !script.found {
            let interpreter = "none".to_owned();
            return Program {
                interpreter,
                args: declared,
            };
        }
        match interpreter::infer(&script.path, &script.content, self.ctx.machine) {
            Ok(choice) => {
                self.must_exist(&choice.interpreter);
                let mut args = choice.args;
                args.extend(declared);
                Program {
                    interpreter: choice.interpreter,
                    args,
                }
            }
            Err(message) => {
                self.error("script", message);
                Program {
                    interpreter: "none".to_owned(),
                    args: declared,
                }
            }
        }
    }

    fn explicit_interpreter(&mut self, word: String, cwd: &str) -> String {
        if let Some(version) = word.strip_prefix("node@") {
            let home = self.ctx.inherited.iter().find(|(key, _)| key == "NVM_DIR");
            let nvm =
                home.map_or_else(|| format!("{}/.nvm", self.ctx.home), |(_, dir)| dir.clone());
            let version = version.trim_start_matches('v');
            let path = format!("{nvm}/versions/node/v{version}/bin/node");
            if self.ctx.machine.file(&path).is_none() {
                self.mistakes.push(
                    ConfigError::error(
                        "exec_interpreter",
                        format!("node {version} is not installed: no {path}"),
                    )
                    .with_help(format!("nvm install {version}")),
                );
            }
            return path;
        }
        if word.contains('/') {
            let path = paths::expanded(&word, cwd, self.ctx);
            self.must_exist(&path);
            return path;
        }
        self.must_exist(&word);
        word
    }

    fn must_exist(&mut self, program: &str) {
        let machine = self.ctx.machine;
        let found = program == "none"
            || (program.contains('/') && machine.file(program).is_some())
            || machine.program(program).is_some();
        if !found {
            self.error(
                "exec_interpreter",
                format!(
                    "Interpreter {program} is NOT AVAILABLE in PATH. (type 'which {program}' to double check.)"
                ),
            );
        }
    }

    pub(super) fn mode(&mut self, interpreter: &str) -> &'static str {
        if self.flag("execute_command", false) {
            return "fork_mode";
        }
        let counted = self.attributes.contains_key("instances");
        match self.text("exec_mode") {
            Some("fork" | "fork_mode") => "fork_mode",
            Some(_) if interpreter::never_clusters(interpreter) => {
                self.mistakes.push(
                    ConfigError::warning(
                        "exec_mode",
                        format!("{interpreter} cannot be a Node cluster worker; fork mode is used"),
                    )
                    .with_help("remove `exec_mode`, or let each instance listen on its own port"),
                );
                "fork_mode"
            }
            Some(_) => "cluster_mode",
            None if counted && interpreter::runs_javascript(interpreter) => "cluster_mode",
            None => "fork_mode",
        }
    }

    pub(super) fn user(&mut self) -> Option<(User, u32)> {
        let uid = self.attributes.get("uid").and_then(value::text);
        let gid = self.attributes.get("gid").and_then(value::text);
        if uid.is_none() && gid.is_none() {
            return None;
        }
        let tested = self
            .ctx
            .inherited
            .iter()
            .any(|(key, value)| key == "NODE_ENV" && value == "test");
        if !self.ctx.is_root && !tested {
            let key = if uid.is_some() { "uid" } else { "gid" };
            self.error(key, "To use --uid and --gid please run pm2 as root");
            return None;
        }
        let machine = self.ctx.machine;
        let name = uid.unwrap_or_else(|| self.ctx.username.to_owned());
        let user = machine.user(&name);
        if user.is_none() {
            self.error("uid", format!("User {name} cannot be found"));
        }
        let group = match &gid {
            Some(name) => machine.group(name),
            None => user.as_ref().map(|user| user.gid),
        };
        if let (Some(name), None) = (&gid, group) {
            self.error("gid", format!("Group {name} cannot be found"));
        }
        Some((user?, group?))
    }

    pub(super) fn cron(&mut self) {
        let Some(pattern) = self.attributes.get("cron_restart").and_then(value::text) else {
            return;
        };
        if !matches!(pattern.trim(), "" | "0")
            && let Some(mistake) = self.ctx.machine.cron_mistake(&pattern)
        {
            self.error("cron_restart", format!("Cron pattern error: {mistake}"));
        }
    }

    /// Puts the leading keys in PM2's order.
    pub(super) fn defaults(
        &self,
        out: &mut Map<String, Value>,
        name: &str,
        script: &Script,
        env: Map<String, Value>,
    ) {
        let given = |key: &str| self.attributes.get(key).cloned();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(key.to_owned(), value);
            }
        };
        let args = script
            .args
            .clone()
            .map(Value::from)
            .or_else(|| given("args"));
        let watch = given("watch").or((self.ctx.source == Source::Script).then_some(false.into()));
        let forked = !self
            .text("exec_mode")
            .is_some_and(|mode| mode.starts_with("cluster"));
        // PM2 takes a literal 0 in a file for absent here; `-i 0` counts as given.
        let alone = forked
            && match self.attributes.get("instances") {
                None => true,
                Some(n) => self.ctx.source == Source::File && n.as_i64() == Some(0),
            };
        let automation = self.flag("automation", true);
        let pmx = if automation {
            given("pmx").or(Some(true.into()))
        } else {
            Some(false.into())
        };
        put("name", Some(name.into()));
        let no_filter = (self.ctx.source == Source::Script).then(|| Value::Array(Vec::new()));
        put("filter_env", given("filter_env").or(no_filter));
        put(
            "namespace",
            Some(given("namespace").unwrap_or_else(|| "default".into())),
        );
        put("args", args);
        put("env", Some(Value::Object(env)));
        put(
            "merge_logs",
            given("merge_logs").or(alone.then_some(true.into())),
        );
        put("vizion", given("vizion").or(Some(true.into())));
        put("autostart", given("autostart").or(Some(true.into())));
        put("autorestart", given("autorestart").or(Some(true.into())));
        put("watch", watch);
        put(
            "instance_var",
            Some(given("instance_var").unwrap_or_else(|| "NODE_APP_INSTANCE".into())),
        );
        put("pmx", pmx);
        put("automation", Some(automation.into()));
        put("treekill", given("treekill").or(Some(true.into())));
        put(
            "username",
            Some(given("username").unwrap_or_else(|| self.ctx.username.into())),
        );
        put("windowsHide", given("windowsHide").or(Some(true.into())));
        put(
            "kill_retry_time",
            given("kill_retry_time").or(Some(100.into())),
        );
    }

    /// Puts the attributes that no other step has given a meaning.
    pub(super) fn rest(&self, out: &mut Map<String, Value>) {
        const CONSUMED: [&str; 12] = [
            "script",
            "cwd",
            "env",
            "args",
            "exec_interpreter",
            "node_args",
            "exec_mode",
            "instances",
            "out_file",
            "error_file",
            "log_file",
            "pid_file",
        ];
        if self.flag("time", false) {
            out.insert("log_date_format".to_owned(), super::TIME_FORMAT.into());
        }
        for (key, value) in self.attributes {
            if !CONSUMED.contains(&key.as_str()) && !out.contains_key(key) {
                out.insert(key.clone(), value.clone());
            }
        }
    }
}

fn missing(path: &str, title: &str) -> Script {
    Script {
        path: path.to_owned(),
        title: title.to_owned(),
        content: Content::Text,
        runs_itself: false,
        args: None,
        found: false,
    }
}
