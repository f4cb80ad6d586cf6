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

mod draft;
mod paths;
mod variables;

use super::ExecMode;
use super::attributes::{self, ConfigError, Severity};
use super::description;
use super::interpreter::{Content, base_name};
use draft::Draft;
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

/// The `log_date_format` that `time: true` stands for.
pub const TIME_FORMAT: &str = "YYYY-MM-DDTHH:mm:ss";

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
    if draft.text("cwd").is_some() {
        description.insert("cwd".to_owned(), cwd.as_str().into());
    }
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
    let mode = match mode {
        "cluster_mode" => ExecMode::Cluster,
        _ => ExecMode::Fork,
    };
    mistakes.extend(description::objects::read(&description, mode).mistakes);
    mistakes.extend(description::sticky_mistakes(&description));
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
