//! The variables of an app, layer over layer.

use super::draft::Draft;
use super::{Context, Source};
use crate::app::attributes::{self, ConfigError};
use serde_json::{Map, Value};

/// PM2's own keys: left out of an inherited environment that comes from a
/// process PM2 or musher runs, because there they describe the caller.
const OWN_KEYS: &[&str] = &[
    "name",
    "namespace",
    "exec_mode",
    "env",
    "args",
    "status",
    "created_at",
    "restart_time",
    "unstable_restarts",
    "instances",
    "watch",
    "autorestart",
    "autostart",
    "automation",
    "treekill",
    "vizion",
    "vizion_running",
    "pmx",
    "merge_logs",
    "username",
    "windowsHide",
    "kill_retry_time",
    "instance_var",
    "node_args",
    "exec_interpreter",
    "filter_env",
    "km_link",
    "unique_id",
    "version",
    "node_version",
    "exit_code",
    "prev_restart_delay",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "max_memory_restart",
    "cron_restart",
    "wait_ready",
    "kill_timeout",
    "listen_timeout",
    "log_date_format",
    "time",
];

/// Inherited variables that stay with `filter_env: true`: without them no
/// interpreter is found.
const ESSENTIAL: [&str; 2] = ["PATH", "HOME"];

/// What musher itself sets.
pub(super) struct Extra<'a> {
    /// Working directory, if the app declares one.
    pub(super) cwd: Option<&'a str>,
    /// Home of the user it runs as, if it declares one.
    pub(super) home: Option<&'a str>,
    /// Name of the app.
    pub(super) name: &'a str,
}

/// Returns the inherited variables the app gets.
pub(super) fn inherited(attributes: &Map<String, Value>, ctx: &Context<'_>) -> Map<String, Value> {
    let nested = ctx.inherited.iter().any(|(key, _)| key == "pm_id");
    let own = |key: &str| {
        nested && (OWN_KEYS.contains(&key) || key.starts_with("pm_") || key.starts_with("axm_"))
    };
    let filter = attributes.get("filter_env");
    ctx.inherited
        .iter()
        .filter(|(key, _)| !own(key) && !filtered(filter, key))
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect()
}

fn filtered(filter: Option<&Value>, key: &str) -> bool {
    match filter {
        Some(Value::Bool(all)) => *all && !ESSENTIAL.contains(&key),
        Some(Value::String(name)) => key == name,
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(Value::as_str)
            .any(|part| !part.is_empty() && key.contains(part)),
        Some(Value::Null | Value::Number(_) | Value::Object(_)) | None => false,
    }
}

/// Returns the app's own variables: files, deploy, `env`, `env_<name>`.
pub(super) fn declared(draft: &mut Draft<'_>) -> Map<String, Value> {
    let (attributes, ctx) = (draft.attributes, draft.ctx);
    let mut env = ctx.file_env.clone();
    overlay(&mut env, ctx.deploy_env);
    for key in attributes.keys() {
        if (key == "env" || attributes::is_env_block(key)) && attributes[key].is_string() {
            draft.mistakes.push(
                ConfigError::warning(key, "a string of variables is ignored")
                    .with_help("write an object: { NAME: \"value\" }"),
            );
        }
    }
    overlay(&mut env, attributes.get("env").and_then(Value::as_object));
    let Some(name) = ctx.env_name else { return env };
    match attributes
        .get(&format!("env_{name}"))
        .and_then(Value::as_object)
    {
        Some(block) => overlay(&mut env, Some(block)),
        None if ctx.source == Source::File && ctx.deploy_env.is_none() => {
            draft.mistakes.push(ConfigError::warning(
                "",
                format!("Environment [{name}] is not defined in process file"),
            ));
        }
        None => {}
    }
    env
}

fn overlay(env: &mut Map<String, Value>, block: Option<&Map<String, Value>>) {
    for (key, value) in block.into_iter().flatten() {
        let value = match value {
            // Only scalars can be a variable; the rest travels as JSON text.
            Value::Null | Value::Array(_) | Value::Object(_) => value.to_string().into(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        };
        env.insert(key.clone(), value);
    }
}

/// Returns everything an app gets, in order of layers.
pub(super) fn merged(
    inherited: Map<String, Value>,
    declared: &Map<String, Value>,
    attributes: &Map<String, Value>,
    extra: &Extra<'_>,
    ctx: &Context<'_>,
) -> Map<String, Value> {
    let mut env = inherited;
    let mut put = |key: &str, value: Value| {
        env.insert(key.to_owned(), value);
    };
    put("PM2_HOME", ctx.pm2_home.into());
    put("PM2_USAGE", "CLI".into());
    if let Some(cwd) = extra.cwd {
        put("PWD", cwd.into());
    }
    if let Some(home) = extra.home {
        put("HOME", home.into());
    }
    // PM2 puts the module configuration of that name here; empty without one.
    let module = match ctx.source {
        Source::File => {
            put("PM2_JSON_PROCESSING", "true".into());
            Value::from("{}")
        }
        Source::Script => Value::Object(Map::new()),
    };
    if !extra.name.is_empty() {
        put(extra.name, module);
    }
    for (key, value) in declared {
        put(key, value.clone());
    }
    if let Some(port) = attributes.get("port") {
        put("PORT", port.clone());
    }
    env
}
