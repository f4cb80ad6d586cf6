//! The whole way from a file or a script to descriptions for `prepare`.
//!
//! Every problem of every app is collected before anything may be started.

use super::machine::Environment;
use super::{Config, EVALUATION_LIMIT, LoadError, LoadOptions, dotenv, load, place, position};
use musher_core::app::attributes::{self, ConfigError, Severity};
use musher_core::app::resolve::{self, Context, Resolved, Source};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the command line changes about the apps of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct CliOverrides {
    /// Names of the apps to take; empty takes all.
    pub(crate) only: Vec<String>,
    /// The name given by `--env`.
    pub(crate) env_name: Option<String>,
    /// Attributes that replace those of every app, canonical names
    /// (`cwd`, `uid`, `gid`, `instances`, `ignore_watch`).
    pub(crate) replace: Map<String, Value>,
    /// Attributes for apps that have none of their own (`namespace`, `watch`).
    pub(crate) fill: Map<String, Value>,
    /// Command line shown to an evaluated file.
    pub(crate) argv: Vec<String>,
}

/// A valid app of a file.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Name, also `description.name`.
    pub(crate) name: String,
    /// Description, attributes and own variables.
    pub(crate) resolved: Resolved,
}

/// Everything a file says.
#[derive(Clone, Debug)]
pub(crate) struct FileOutcome {
    /// Valid apps in order. Start none of them if there is an error.
    pub(crate) apps: Vec<App>,
    /// Errors and warnings of all apps in order.
    pub(crate) problems: Vec<ConfigError>,
    /// The file as read; `static` and `deploy` are in it.
    pub(crate) config: Config,
}

impl FileOutcome {
    /// Returns true if nothing may be started.
    pub(crate) fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads and resolves a file.
///
/// # Errors
/// The file cannot be read at all; problems of apps are part of the outcome.
pub(crate) fn resolve_file(
    path: &str,
    overrides: &CliOverrides,
    environment: &Environment,
) -> Result<FileOutcome, LoadError> {
    let options = LoadOptions {
        env: environment.inherited.clone(),
        cwd: PathBuf::from(&environment.cwd),
        argv: overrides.argv.clone(),
        limit: EVALUATION_LIMIT,
    };
    let config = load(path, &options)?;
    let mut apps = Vec::new();
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (index, app) in config.apps.iter().enumerate() {
        let label = format!("apps[{index}]");
        let Some(raw) = app.as_object() else {
            problems.push(no_object(&label, app));
            continue;
        };
        let declared = resolve::declared_name(raw);
        if !overrides.only.is_empty()
            && !declared.is_some_and(|name| overrides.only.contains(&name))
        {
            continue;
        }
        let raw = with_overrides(raw, overrides);
        let deploy = config.deploy_env(overrides.env_name.as_deref());
        let origin = Origin {
            label: &label,
            source: Source::File,
            env_name: overrides.env_name.as_deref(),
            deploy,
        };
        let (resolved, mut mistakes) = resolve_one(&raw, &origin, environment);
        if let Some(resolved) = resolved {
            let name = resolved.description["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if !names.insert(name.clone()) {
                let mut twice = ConfigError::warning(
                    "name",
                    "another app of this file has the same name",
                )
                .with_help(
                    "give each app its own name; processes of one app come from `instances`",
                );
                twice.app = format!("{label} \"{name}\"");
                mistakes.push(twice);
            }
            apps.push(App { name, resolved });
        }
        for mistake in &mut mistakes {
            mistake.at = position::of_key(&config.source, &config.apps, index, &mistake.key);
        }
        problems.extend(mistakes);
    }
    if config.apps.is_empty() && config.statics.is_empty() {
        problems.push(ConfigError::warning("apps", "the file declares no apps"));
    }
    Ok(FileOutcome {
        apps,
        problems,
        config,
    })
}

/// Resolves `start <target> --flags`: `attributes` are the flags under
/// canonical names.
///
/// # Errors
/// Every mistake; their texts are PM2's.
pub(crate) fn resolve_script(
    target: &str,
    attributes: &Map<String, Value>,
    env_name: Option<&str>,
    environment: &Environment,
) -> Result<Resolved, Vec<ConfigError>> {
    let mut raw = attributes.clone();
    raw.insert("script".to_owned(), target.into());
    let origin = Origin {
        label: "",
        source: Source::Script,
        env_name,
        deploy: None,
    };
    let (resolved, mistakes) = resolve_one(&raw, &origin, environment);
    resolved.ok_or(mistakes)
}

/// Returns a problem as one line: `file:line:column: error: app: key: message (help: …)`.
pub(crate) fn render(file: &str, problem: &ConfigError) -> String {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    format!("{}: {severity}: {problem}", place(file, problem.at))
}

fn no_object(label: &str, app: &Value) -> ConfigError {
    let found = super::kind(app);
    ConfigError {
        app: label.to_owned(),
        ..ConfigError::error("", format!("an app must be an object, not {found}"))
    }
}

/// Where one declaration comes from.
struct Origin<'a> {
    label: &'a str,
    source: Source,
    env_name: Option<&'a str>,
    deploy: Option<&'a Map<String, Value>>,
}

/// Returns the app if it is valid, and everything to say about it.
fn resolve_one(
    raw: &Map<String, Value>,
    origin: &Origin<'_>,
    environment: &Environment,
) -> (Option<Resolved>, Vec<ConfigError>) {
    let mut mistakes = Vec::new();
    let file_env = env_files(raw, origin, environment, &mut mistakes);
    let ctx = Context {
        cwd: &environment.cwd,
        home: &environment.home,
        pm2_home: &environment.pm2_home,
        log_dir: &environment.log_dir,
        pid_dir: &environment.pid_dir,
        inherited: &environment.inherited,
        env_name: origin.env_name,
        file_env: &file_env,
        deploy_env: origin.deploy,
        username: &environment.username,
        is_root: environment.is_root,
        source: origin.source,
        label: origin.label,
        machine: environment,
    };
    for mistake in &mut mistakes {
        origin.label.clone_into(&mut mistake.app);
    }
    let readable = mistakes.is_empty();
    match resolve::resolve(raw, &ctx) {
        Ok(resolved) => {
            mistakes.extend(resolved.warnings.iter().cloned());
            (readable.then_some(resolved), mistakes)
        }
        Err(more) => {
            mistakes.extend(more);
            (None, mistakes)
        }
    }
}

/// Returns the variables of the app's `env_file`: each file, then its
/// sibling `<file>.<env name>` if that exists; later over earlier.
fn env_files(
    raw: &Map<String, Value>,
    origin: &Origin<'_>,
    environment: &Environment,
    mistakes: &mut Vec<ConfigError>,
) -> Map<String, Value> {
    let get = |name: &str| {
        raw.iter()
            .find(|(key, _)| attributes::find(key).is_some_and(|row| row.name == name))
            .map(|(_, value)| value)
    };
    let paths: Vec<&str> = match get("env_file") {
        Some(Value::Bool(true)) => vec![".env"],
        Some(Value::String(path)) => vec![path],
        Some(Value::Array(paths)) => paths.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(false) | Value::Number(_) | Value::Object(_)) | None => {
            vec![]
        }
    };
    let directory = get("cwd").and_then(Value::as_str).unwrap_or(".");
    let base = resolve::absolute(directory, &environment.cwd);
    let mut out = Map::new();
    for path in paths {
        let path = resolve::absolute(path, &base);
        match dotenv::read(Path::new(&path)) {
            Ok(variables) => out.extend(variables),
            Err(error) => mistakes.push(
                ConfigError::error("env_file", format!("{path} cannot be read: {error}"))
                    .with_help("relative paths start from the app's `cwd`"),
            ),
        }
        let Some(name) = origin.env_name else {
            continue;
        };
        let sibling = format!("{path}.{name}");
        if Path::new(&sibling).is_file() {
            match dotenv::read(Path::new(&sibling)) {
                Ok(variables) => out.extend(variables),
                Err(error) => mistakes.push(ConfigError::error(
                    "env_file",
                    format!("{sibling} cannot be read: {error}"),
                )),
            }
        }
    }
    out
}

fn with_overrides(raw: &Map<String, Value>, overrides: &CliOverrides) -> Map<String, Value> {
    let mut out = raw.clone();
    let same = |key: &str, name: &str| attributes::find(key).is_some_and(|row| row.name == name);
    for (name, value) in &overrides.replace {
        out.retain(|key, _| !same(key, name));
        out.insert(name.clone(), value.clone());
    }
    for (name, value) in &overrides.fill {
        if !out.keys().any(|key| same(key, name)) {
            out.insert(name.clone(), value.clone());
        }
    }
    out
}
