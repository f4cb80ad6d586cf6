//! One declared app to the description that is sent to `prepare`.
//!
//! The client resolves everything: names, absolute paths, interpreter, mode,
//! variables. Every mistake of the app is reported at once. The machine is
//! asked through [`Machine`] and files of variables arrive already read, so
//! this stays free of I/O.
//!
//! Order of variables, later over earlier: inherited ones (filtered), files
//! of `env_file`, `deploy.<name>.env`, `env`, `env_<name>` of `--env`, `port`,
//! then what musher sets (`PWD`, `HOME` of another user, PM2's markers).

mod paths;
mod variables;

use super::attributes::{self, ConfigError, Severity};
use super::interpreter::{self, Content, base_name};
use serde_json::{Map, Value};

pub use paths::absolute;

/// What the declaration is resolved against.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Absolute directory of the caller.
    pub cwd: &'a str,
    /// The user's home directory, for `~`.
    pub home: &'a str,
    /// What becomes `PM2_HOME` of the app.
    pub pm2_home: &'a str,
    /// Directory of log files.
    pub log_dir: &'a str,
    /// Directory of pid files.
    pub pid_dir: &'a str,
    /// The caller's environment, in order.
    pub inherited: &'a [(String, String)],
    /// The name given by `--env`.
    pub env_name: Option<&'a str>,
    /// Variables of the app's `env_file`, already read.
    pub file_env: &'a Map<String, Value>,
    /// `deploy.<env name>.env` of the config file.
    pub deploy_env: Option<&'a Map<String, Value>>,
    /// Name of the calling user.
    pub username: &'a str,
    /// The caller may become another user.
    pub is_root: bool,
    /// Where the declaration comes from.
    pub source: Source,
    /// Place of the app in its file, like `apps[0]`; empty for a script.
    pub label: &'a str,
    /// Answers about this machine.
    pub machine: &'a dyn Machine,
}

/// Where a declaration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A config file.
    File,
    /// A script and flags on the command line.
    Script,
}

/// Answers about the machine the app will run on.
pub trait Machine {
    /// Returns the path of a program in PATH.
    fn program(&self, name: &str) -> Option<String>;
    /// Returns major and minor version of `node` in PATH.
    fn node_version(&self) -> Option<(u32, u32)>;
    /// Returns what is at an absolute path; `None` for nothing or a directory.
    fn file(&self, path: &str) -> Option<Content>;
    /// Returns the user of a name or number.
    fn user(&self, name: &str) -> Option<User>;
    /// Returns the id of a group of a name or number.
    fn group(&self, name: &str) -> Option<u32>;
    /// Returns what is wrong with a cron expression.
    fn cron_mistake(&self, pattern: &str) -> Option<String>;
}

/// A user of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// A declared app, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// What `prepare` takes.
    pub description: Map<String, Value>,
    /// The app's own attributes under canonical names with canonical values,
    /// for `current_conf` of a restart.
    pub attributes: Map<String, Value>,
    /// The app's own variables without the inherited ones: files, `env`,
    /// `env_<name>`.
    pub env: Map<String, Value>,
    /// What is worth saying.
    pub warnings: Vec<ConfigError>,
}

/// Returns the description of one declared app.
///
/// # Errors
/// Every mistake and warning of the app, if at least one is an error.
pub fn resolve(raw: &Map<String, Value>, ctx: &Context<'_>) -> Result<Resolved, Vec<ConfigError>> {
    let (attributes, mistakes) = attributes::canonical(raw);
    let mut draft = Draft {
        attributes: &attributes,
        ctx,
        mistakes,
    };
    let cwd = paths::directory(draft.text("cwd"), ctx);
    let script = draft.script(&cwd);
    let name = draft.name(&script);
    let env = variables::declared(&mut draft);
    let program = draft.interpreter(&script, &cwd);
    let mode = draft.mode(&program.interpreter);
    let user = draft.user();
    draft.cron();
    let mut description = Map::new();
    let inherited = variables::inherited(&attributes, ctx);
    let extra = variables::Extra {
        cwd: draft.text("cwd").map(|_| cwd.as_str()),
        home: user.as_ref().map(|(user, _)| user.home.as_str()),
        name: &name,
    };
    let full_env = variables::merged(inherited, &env, &attributes, &extra, ctx);
    draft.defaults(&mut description, &name, &script, full_env);
    draft.rest(&mut description);
    if let Some((user, gid)) = &user {
        description.insert("uid".to_owned(), user.uid.into());
        description.insert("gid".to_owned(), (*gid).into());
    }
    let mut put = |key: &str, value: Value| description.insert(key.to_owned(), value);
    put("node_args", program.args.into());
    put("pm_exec_path", script.path.clone().into());
    put("pm_cwd", cwd.clone().into());
    put("exec_interpreter", program.interpreter.into());
    put("exec_mode", mode.into());
    put(
        "instances",
        attributes.get("instances").cloned().unwrap_or(1.into()),
    );
    paths::insert(&mut description, &attributes, &name, &cwd, ctx);
    description.insert("km_link".to_owned(), false.into());
    let mut mistakes = draft.mistakes;
    let app = label(ctx, &name);
    for mistake in &mut mistakes {
        mistake.app.clone_from(&app);
    }
    if mistakes
        .iter()
        .any(|mistake| mistake.severity == Severity::Error)
    {
        return Err(mistakes);
    }
    Ok(Resolved {
        description,
        attributes,
        env,
        warnings: mistakes,
    })
}

/// Returns the name a declared app will have, as far as its text tells;
/// `append_env_to_name` is not looked at.
pub fn declared_name(raw: &Map<String, Value>) -> Option<String> {
    let (attributes, _) = attributes::canonical(raw);
    let text = |key: &str| attributes.get(key).and_then(Value::as_str);
    text("name")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .or_else(|| {
            let script = text("script")?;
            let title = if script.contains(char::is_whitespace) {
                script
            } else {
                stem(script)
            };
            Some(title.to_owned())
        })
}

/// A script found, or what stands in for one that was not.
struct Script {
    path: String,
    /// What the app is named after.
    title: String,
    content: Content,
    /// Set when the script is run by itself, whatever its content.
    runs_itself: bool,
    /// Arguments that replace the declared ones.
    args: Option<Vec<String>>,
    found: bool,
}

/// The interpreter and what stands before the script.
struct Program {
    interpreter: String,
    args: Vec<String>,
}

/// An app while it is being resolved.
struct Draft<'a> {
    attributes: &'a Map<String, Value>,
    ctx: &'a Context<'a>,
    mistakes: Vec<ConfigError>,
}

impl Draft<'_> {
    fn text(&self, key: &str) -> Option<&str> {
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

    fn script(&mut self, cwd: &str) -> Script {
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

    fn name(&self, script: &Script) -> String {
        let name = self.text("name").unwrap_or(&script.title);
        match self.ctx.env_name {
            Some(env) if self.flag("append_env_to_name", false) => format!("{name}-{env}"),
            Some(_) | None => name.to_owned(),
        }
    }

    fn interpreter(&mut self, script: &Script, cwd: &str) -> Program {
        let declared =
            super::value::words(self.attributes.get("node_args").unwrap_or(&Value::Null))
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

    fn mode(&mut self, interpreter: &str) -> &'static str {
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

    fn user(&mut self) -> Option<(User, u32)> {
        let uid = self.attributes.get("uid").and_then(super::value::text);
        let gid = self.attributes.get("gid").and_then(super::value::text);
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

    fn cron(&mut self) {
        let Some(pattern) = self
            .attributes
            .get("cron_restart")
            .and_then(super::value::text)
        else {
            return;
        };
        if !matches!(pattern.trim(), "" | "0")
            && let Some(mistake) = self.ctx.machine.cron_mistake(&pattern)
        {
            self.error("cron_restart", format!("Cron pattern error: {mistake}"));
        }
    }

    /// Puts the leading keys in PM2's order.
    fn defaults(
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
        put(
            "filter_env",
            Some(given("filter_env").unwrap_or_else(|| Value::Array(Vec::new()))),
        );
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
    fn rest(&self, out: &mut Map<String, Value>) {
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
            out.insert("log_date_format".to_owned(), "YYYY-MM-DDTHH:mm:ss".into());
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

fn label(ctx: &Context<'_>, name: &str) -> String {
    match (ctx.label, name) {
        (label, "") => label.to_owned(),
        ("", name) => name.to_owned(),
        (label, name) => format!("{label} \"{name}\""),
    }
}

/// Returns the base name without its last extension; a leading dot is not one.
fn stem(path: &str) -> &str {
    let name = base_name(path);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        Some(_) | None => name,
    }
}

#[cfg(test)]
#[path = "resolve/tests.rs"]
pub(super) mod tests;
