//! Finds and reads ecosystem files: JavaScript, JSON5, YAML, TOML.
//!
//! A file is read to plain values here and given a meaning by
//! `musher_core::app::resolve`. JavaScript is evaluated by the user's own
//! Node (or Bun, or Deno) in a child with a time and a size limit, never in
//! this process; without any of them a literal can still be read.

mod data;
mod dotenv;
mod javascript;
mod machine;
mod outcome;
mod position;

pub(crate) use machine::Environment;
pub(crate) use outcome::{App, CliOverrides, render, resolve_file, resolve_script};

use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest an evaluated file may take.
pub(crate) const EVALUATION_LIMIT: Duration = Duration::from_secs(10);
/// Most bytes a file, or the result of evaluating it, may have.
pub(crate) const SIZE_LIMIT: usize = 8 << 20;

/// Names looked for when `start` is given no target, in this order.
pub(crate) const DEFAULT_NAMES: &[&str] = &[
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.config.ts",
    "ecosystem.json",
    "ecosystem.json5",
    "ecosystem.yaml",
    "ecosystem.yml",
    "ecosystem.toml",
];

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON, JSON5, and what of it PM2 evaluates as an expression.
    Json,
    /// YAML 1.2.
    Yaml,
    /// TOML.
    Toml,
    /// A module of JavaScript or TypeScript.
    Script,
}

/// What surrounds the reading of a file.
#[derive(Clone, Debug)]
pub(crate) struct LoadOptions {
    /// Environment the file is evaluated with, in order.
    pub(crate) env: Vec<(String, String)>,
    /// Directory it is evaluated in.
    pub(crate) cwd: PathBuf,
    /// Command line shown to it as `process.argv` from index 2.
    pub(crate) argv: Vec<String>,
    /// Longest evaluation; [`EVALUATION_LIMIT`] but in tests.
    pub(crate) limit: Duration,
}

/// A file, read.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Path as shown to people; `-` for standard input.
    pub(crate) file: String,
    /// Text of the file, for telling lines.
    pub(crate) source: String,
    /// Declared apps in order; elements may be anything.
    pub(crate) apps: Vec<Value>,
    /// `static` entries in order.
    pub(crate) statics: Vec<Value>,
    /// The `deploy` section.
    pub(crate) deploy: Option<Value>,
}

/// Why a file could not be read. The texts begin with PM2's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Nothing readable at the path.
    #[error("File {file} not found")]
    NotFound {
        /// Path as given.
        file: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The content cannot be parsed, or evaluating it threw.
    #[error("File {file} malformated\n{}: {message}\ncheck it with `musher config check {file}`", place(.file, *.at))]
    Malformed {
        /// Path as given.
        file: String,
        /// Line and column, counted from 1.
        at: Option<(u32, u32)>,
        /// What the parser or the engine said.
        message: String,
    },
    /// No engine on this machine, and the file is not a literal.
    #[error(
        "{file} is a program and needs node, bun or deno in PATH; \
         a plain `module.exports = {{ … }}` or ecosystem.json works without"
    )]
    NoRuntime {
        /// Path as given.
        file: String,
    },
    /// It did not come to an end.
    #[error(
        "{file} was still being evaluated after {} s and was stopped; \
         a configuration must not wait for anything",
        .limit.as_secs_f32()
    )]
    TimedOut {
        /// Path as given.
        file: String,
        /// How long it had.
        limit: Duration,
    },
    /// It is bigger than [`SIZE_LIMIT`].
    #[error("{file} is bigger than {} MiB", SIZE_LIMIT >> 20)]
    TooLarge {
        /// Path as given.
        file: String,
    },
    /// The engine could not be started or did not answer.
    #[error("{file} could not be evaluated by {program}: {message}")]
    Engine {
        /// Path as given.
        file: String,
        /// The engine.
        program: String,
        /// What happened.
        message: String,
    },
    /// The value is no configuration.
    #[error(
        "{file} declares no apps: it must hold an app, a list of apps, \
         or an object with `apps`, not {found}"
    )]
    Shape {
        /// Path as given.
        file: String,
        /// What it holds instead.
        found: &'static str,
    },
}

/// Returns true if PM2 would take `name` for a configuration file rather
/// than a script.
pub(crate) fn is_config_file(name: &str) -> bool {
    format_of(name).is_some()
}

/// Returns the configuration file of a directory: the first existing one of
/// [`DEFAULT_NAMES`].
pub(crate) fn find_default(directory: &Path) -> Option<PathBuf> {
    DEFAULT_NAMES
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.is_file())
}

/// Reads a file; `-` is standard input as JSON5.
///
/// # Errors
/// It is missing, malformed, too slow, too large, or no configuration.
pub(crate) fn load(path: &str, options: &LoadOptions) -> Result<Config, LoadError> {
    let file = path.to_owned();
    let absolute = options.cwd.join(path);
    let source = read(path, &absolute)?;
    let format = if path == "-" {
        Format::Json
    } else {
        format_of(path).unwrap_or(Format::Json)
    };
    let value = match format {
        Format::Json => data::json(&file, &source)?,
        Format::Yaml => data::yaml(&file, &source)?,
        Format::Toml => data::toml(&file, &source)?,
        Format::Script => javascript::evaluate(&file, &absolute, &source, options)?,
    };
    shape(file, source, value)
}

fn format_of(path: &str) -> Option<Format> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[
        ".config.js",
        ".config.cjs",
        ".config.mjs",
        ".config.ts",
        ".config.mts",
        ".config.cts",
    ]) {
        Some(Format::Script)
    } else if ends(&[".yml", ".yaml"]) {
        Some(Format::Yaml)
    } else if ends(&[".toml"]) {
        Some(Format::Toml)
    } else if name.contains(".json") {
        Some(Format::Json)
    } else {
        None
    }
}

fn read(path: &str, absolute: &Path) -> Result<String, LoadError> {
    let not_found = |source| LoadError::NotFound {
        file: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let limit = SIZE_LIMIT as u64 + 1;
    if path == "-" {
        std::io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(not_found)?;
    } else {
        let file = std::fs::File::open(absolute).map_err(not_found)?;
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(not_found)?;
    }
    if bytes.len() > SIZE_LIMIT {
        return Err(LoadError::TooLarge {
            file: path.to_owned(),
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| LoadError::Malformed {
        file: path.to_owned(),
        at: None,
        message: "the file is not UTF-8".to_owned(),
    })?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

/// Takes the apps out of the shapes PM2 knows: a list, `{apps}`, `{pm2}`, one app.
fn shape(file: String, source: String, value: Value) -> Result<Config, LoadError> {
    let mut config = Config {
        file,
        source,
        apps: Vec::new(),
        statics: Vec::new(),
        deploy: None,
    };
    let mut top = match value {
        Value::Array(apps) => {
            config.apps = apps;
            return Ok(config);
        }
        Value::Object(top) => top,
        other => {
            let found = kind(&other);
            return Err(LoadError::Shape {
                file: config.file,
                found,
            });
        }
    };
    config.deploy = top.shift_remove("deploy");
    let sections = ["apps", "pm2"];
    let section = sections.iter().find_map(|key| top.get(*key)).cloned();
    let statics = top.get("static").cloned();
    match section {
        Some(Value::Array(apps)) => config.apps = apps,
        // `pm2` of a package.json may itself hold `apps`.
        Some(Value::Object(inner)) if inner.contains_key("apps") => {
            return shape(config.file, config.source, Value::Object(inner)).map(|found| Config {
                deploy: config.deploy,
                ..found
            });
        }
        Some(Value::Object(app)) => config.apps = vec![Value::Object(app)],
        Some(other) => {
            let found = kind(&other);
            return Err(LoadError::Shape {
                file: config.file,
                found,
            });
        }
        None if statics.is_some() || config.deploy.is_some() && top.is_empty() => {}
        None => config.apps = vec![Value::Object(top)],
    }
    config.statics = match statics {
        Some(Value::Array(entries)) => entries,
        Some(entry) => vec![entry],
        None => Vec::new(),
    };
    Ok(config)
}

impl Config {
    /// Returns `deploy.<name>.env`.
    fn deploy_env(&self, name: Option<&str>) -> Option<&Map<String, Value>> {
        self.deploy.as_ref()?.get(name?)?.get("env")?.as_object()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns `file:line:column` as far as it is known.
fn place(file: &str, at: Option<(u32, u32)>) -> String {
    match at {
        Some((line, column)) => format!("{file}:{line}:{column}"),
        None => file.to_owned(),
    }
}

#[cfg(test)]
mod tests;
