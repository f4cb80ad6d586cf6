//! What a restart or reload changes: only what was typed.

use super::context::Context;
use super::output::Failure;
use super::source;
use musher_core::app::attributes;
use musher_core::app::resolve::{Resolved, TIME_FORMAT};
use serde_json::{Map, Value, json};

/// Attributes the daemon takes only as a start resolves them: users and groups
/// as numbers, and the format that `time` stands for.
const RESOLVED: [&str; 3] = ["log_date_format", "uid", "gid"];

/// Returns `env` of a restart: with `--update-env` the caller's environment,
/// and `current_conf` with the attributes on the line. The text `null` takes
/// an attribute away.
///
/// # Errors
/// Values that are wrong were printed.
pub(super) fn changes(ctx: &mut Context) -> Result<Value, Failure> {
    let mut conf = Map::new();
    let mut n_mistakes = 0;
    for (key, value) in ctx.parsed.attributes.clone() {
        // A restart never scales and never forces; PM2 accepts the options.
        if key == "instances" || key == "force" {
            continue;
        }
        if value == "null" {
            conf.insert(key, Value::Null);
            continue;
        }
        let row = attributes::find(&key).expect("flags come from the attribute table");
        match attributes::check(row, &value) {
            Ok(value) => {
                conf.insert(key, value);
            }
            Err(mistake) => {
                source::tell(ctx, &[mistake]);
                n_mistakes += 1;
            }
        }
    }
    if n_mistakes > 0 {
        return Err(Failure::Told);
    }
    if let Some(rest) = &ctx.parsed.rest {
        conf.insert("args".to_owned(), rest.clone().into());
    }
    spell_time_out(&mut conf);
    let mut env = if ctx.parsed.has("update-env") {
        environment(ctx.caller.env())
    } else {
        Map::new()
    };
    env.insert("current_conf".to_owned(), Value::Object(conf));
    Ok(Value::Object(env))
}

/// Returns `env` of a restart from a config file: the app's own variables, or
/// the caller's environment if it declares none, and all its attributes.
pub(super) fn file_changes(ctx: &Context, app: &Resolved) -> Value {
    let mut env = if app.env.is_empty() || ctx.parsed.has("update-env") {
        environment(ctx.caller.env())
    } else {
        Map::new()
    };
    if let Some(cwd) = app.description.get("cwd") {
        env.insert("PWD".to_owned(), cwd.clone());
    }
    env.extend(app.env.clone());
    let mut conf = app.attributes.clone();
    conf.remove("exec_mode");
    conf.retain(|key, _| !attributes::is_env_block(key));
    conf.insert("env".to_owned(), json!(app.env));
    for key in RESOLVED {
        if let Some(value) = app.description.get(key) {
            conf.insert(key.to_owned(), value.clone());
        }
    }
    env.insert("current_conf".to_owned(), Value::Object(conf));
    Value::Object(env)
}

/// Puts the format that `time` stands for, which wins over a format given
/// beside it, as at a start.
fn spell_time_out(conf: &mut Map<String, Value>) {
    if conf.get("time") == Some(&Value::Bool(true)) {
        conf.insert("log_date_format".to_owned(), TIME_FORMAT.into());
    }
}

fn environment(env: &[(String, String)]) -> Map<String, Value> {
    env.iter()
        .map(|(key, value)| (key.clone(), Value::String(value.clone())))
        .collect()
}
