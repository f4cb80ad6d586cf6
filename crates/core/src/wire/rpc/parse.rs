//! From the body of a request to a [`Call`].

use super::{
    Addressee, Answer, Call, CallError, Describe, METHODS, OWN_METHODS, ProfileKind, WatchChange,
    Watched,
};
use crate::exit::Signal;
use crate::id::PmId;
use crate::supervisor::request::{Changes, Request, RollTo};
use serde_json::{Map, Value};

/// How long a profile takes when the client does not say, ms.
const DEFAULT_PROFILE_MS: u64 = 10_000;

/// Entries of the history a client gets that does not say how many.
const DEFAULT_HISTORY: u32 = 50;

/// Stands in texts for an id that is not there.
const UNDEFINED: &str = "undefined";

/// Returns the call of a request's body; `describe` makes apps of descriptions.
///
/// # Errors
///
/// [`CallError`] with PM2's text for whatever cannot be a call.
pub fn parse_call(body: &Value, describe: Describe<'_>) -> Result<Call, CallError> {
    if body["type"] == "methods" {
        return Ok(Call::Methods);
    }
    let method = body["method"].as_str().unwrap_or_default();
    if method.is_empty() {
        return Err(CallError::NoMethod);
    }
    let is_pm2s = METHODS.iter().any(|known| known.name == method);
    if !is_pm2s && !OWN_METHODS.contains(&method) {
        return Err(CallError::UnknownMethod(method.to_owned()));
    }
    let Value::Array(args) = &body["args"] else {
        return Err(CallError::NoArgs);
    };
    let first = args.first().unwrap_or(&Value::Null);
    let second = args.get(1).unwrap_or(&Value::Null);
    dispatch(method, first, second, describe)
}

fn dispatch(
    method: &str,
    arg: &Value,
    second: &Value,
    describe: Describe<'_>,
) -> Result<Call, CallError> {
    let by_id = |make: fn(PmId) -> Request, answer| {
        let id = id(arg).ok_or_else(|| CallError::UnknownId(text(arg)))?;
        Ok(Call::Request(make(id), answer))
    };
    let end = |make: fn(PmId) -> Request| {
        let id = id_or_field(arg).ok_or_else(|| CallError::UnknownIdStop(text(arg)))?;
        Ok(Call::Request(make(id), Answer::Stopped))
    };
    match method {
        "ping" => Ok(Call::Ping),
        "getVersion" => Ok(Call::GetVersion),
        "getMonitorData" => Ok(Call::GetMonitorData {
            slim: arg["slim"] == true,
        }),
        "getSystemData" => Ok(Call::GetSystemData),
        "getReport" => Ok(Call::GetReport),
        "prepare" => prepare(arg, describe),
        "startProcessId" => by_id(Request::StartProcess, Answer::Started),
        "duplicateProcessId" => by_id(Request::Duplicate, Answer::Started),
        "resetMetaProcessId" => by_id(Request::ResetMeta, Answer::All),
        "stopProcessId" => end(Request::Stop),
        "deleteProcessId" => end(Request::Delete),
        "musherReload" => roll(arg, RollTo::Changed(changes(&arg["env"]))),
        "musherRollback" => roll(arg, RollTo::Previous),
        "musherRetire" => end(Request::Retire),
        "restartProcessId" => restart(arg),
        "reloadProcessId" => reload(arg),
        "softReloadProcessId" => soft_reload(arg),
        "monitor" => monitor(arg, true),
        "unmonitor" => monitor(arg, false),
        "sendSignalToProcessId" => signal_id(arg),
        "sendSignalToProcessName" => signal_name(arg),
        "sendLineToStdin" => send_line(arg),
        "sendDataToProcessId" => send_data(arg),
        "msgProcess" => msg_process(arg),
        "startWatch" => Ok(watch(WatchChange::Start, arg, second)),
        "stopWatch" => Ok(watch(WatchChange::Stop, arg, second)),
        "toggleWatch" => Ok(watch(WatchChange::Toggle, arg, second)),
        "notifyByProcessId" => notify(arg),
        "notifyKillPM2" => Ok(Call::Request(Request::PrepareShutdown, Answer::Nothing)),
        "killMe" => Ok(Call::KillMe {
            pid: arg["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()),
        }),
        "musherHistory" => Ok(Call::History {
            name: non_empty(&arg["name"]),
            limit: number(&arg["limit"]).unwrap_or(DEFAULT_HISTORY),
        }),
        "musherBalance" => Ok(Call::Balance),
        "musherGc" => {
            let id = id_or_field(arg).ok_or_else(|| CallError::UnknownId(text(arg)))?;
            Ok(Call::CollectGarbage { id })
        }
        "reloadLogs" => Ok(Call::ReloadLogs),
        "musherUpdate" => match non_empty(&arg["executable"]) {
            Some(executable) => Ok(Call::Update { executable }),
            None => Err(CallError::NoExecutable),
        },
        "profileCPU" => Ok(profile(ProfileKind::Cpu, arg)),
        "profileMEM" => Ok(profile(ProfileKind::Memory, arg)),
        _ => Err(CallError::UnknownMethod(method.to_owned())),
    }
}

fn prepare(arg: &Value, describe: Describe<'_>) -> Result<Call, CallError> {
    let Value::Object(description) = arg else {
        return Err(CallError::NotADescription);
    };
    let mut spec = describe(description).map_err(CallError::BadDescription)?;
    let mut register_only = !spec.autostart;
    // Without `instances` the entry comes from a dump: exactly one process, as it was.
    if description.get("instances").is_none_or(Value::is_null) {
        spec.n_instances = 1;
        register_only |= description
            .get("status")
            .is_some_and(|status| status == "stopped");
    }
    let request = Request::Start {
        spec: Box::new(spec),
        register_only,
    };
    Ok(Call::Request(request, Answer::Prepared))
}

fn restart(opts: &Value) -> Result<Call, CallError> {
    if opts["id"].is_null() {
        return Err(CallError::RestartWithoutId);
    }
    let id = id(&opts["id"]).ok_or(CallError::UnknownIdRestart)?;
    let request = Request::Restart(id, changes(&opts["env"]));
    Ok(Call::Request(request, Answer::Started))
}

fn reload(opts: &Value) -> Result<Call, CallError> {
    let id = id(&opts["id"]).ok_or(CallError::UnknownIdReload)?;
    let request = Request::Reload(id, changes(&opts["env"]));
    Ok(Call::Request(request, Answer::Stopped))
}

fn roll(opts: &Value, to: RollTo) -> Result<Call, CallError> {
    let ids = opts["ids"].as_array().map_or(&[][..], Vec::as_slice);
    let targets: Option<Vec<PmId>> = ids.iter().map(id).collect();
    let targets = targets.ok_or(CallError::UnknownIdReload)?;
    let request = Request::Roll {
        targets,
        to,
        parallel: number(&opts["parallel"]),
    };
    Ok(Call::Request(request, Answer::Rolled))
}

fn soft_reload(opts: &Value) -> Result<Call, CallError> {
    let id = id(&opts["id"]).ok_or_else(|| CallError::UnknownIdSoftReload(text(&opts["id"])))?;
    let request = Request::Reload(id, changes(&opts["env"]));
    Ok(Call::Request(request, Answer::SoftReloaded(id.0)))
}

/// PM2's merge rules, as far as they are about the message: objects beside
/// `current_conf` are no variables, the text `null` deletes like null does,
/// and an empty `env` changes nothing.
fn changes(env: &Value) -> Changes {
    let mut changes = Changes::default();
    let Value::Object(entries) = env else {
        return changes;
    };
    for (name, value) in entries {
        // `updateEnv` tells PM2's daemon to do what it does anyway.
        if !value.is_object() && name != "updateEnv" {
            changes.env.insert(name.clone(), value.clone());
        }
    }
    if let Value::Object(attributes) = &entries.get("current_conf").unwrap_or(&Value::Null) {
        changes.attributes = attributes.iter().filter_map(attribute).collect();
    }
    changes
}

fn attribute((key, value): (&String, &Value)) -> Option<(String, Value)> {
    let is_empty_env = key == "env" && value.as_object().is_some_and(Map::is_empty);
    let value = if value == "null" { &Value::Null } else { value };
    (!is_empty_env).then(|| (key.clone(), value.clone()))
}

fn monitor(arg: &Value, on: bool) -> Result<Call, CallError> {
    let id = id(arg).ok_or(CallError::UnknownMonitored)?;
    let request = Request::SetMonitored(id, on);
    Ok(Call::Request(request, Answer::Monitored(id.0)))
}

fn signal_id(opts: &Value) -> Result<Call, CallError> {
    let id =
        id(&opts["process_id"]).ok_or_else(|| CallError::UnknownId(text(&opts["process_id"])))?;
    let signal = signal(&opts["signal"])?;
    Ok(Call::Request(Request::Signal(id, signal), Answer::All))
}

fn signal_name(opts: &Value) -> Result<Call, CallError> {
    let name = non_empty(&opts["process_name"]).ok_or(CallError::UnknownName)?;
    let signal = signal(&opts["signal"])?;
    Ok(Call::SignalName { name, signal })
}

fn signal(value: &Value) -> Result<Signal, CallError> {
    Signal::parse(&text(value)).ok_or(CallError::UnknownSignal)
}

fn send_line(packet: &Value) -> Result<Call, CallError> {
    if packet["pm_id"].is_null() {
        return Err(CallError::LineFieldMissing);
    }
    let line = non_empty(&packet["line"]).ok_or(CallError::LineFieldMissing)?;
    let id = receiver(&packet["pm_id"])?;
    Ok(Call::SendLine { id, line })
}

fn send_data(packet: &Value) -> Result<Call, CallError> {
    if ["id", "topic", "data"]
        .iter()
        .any(|key| packet[*key].is_null())
    {
        return Err(CallError::DataFieldMissing);
    }
    Ok(Call::SendData {
        id: receiver(&packet["id"])?,
        packet: packet.clone(),
    })
}

fn receiver(value: &Value) -> Result<PmId, CallError> {
    id(value).ok_or_else(|| CallError::UnknownReceiver(text(value)))
}

fn msg_process(command: &Value) -> Result<Call, CallError> {
    let to = if !command["id"].is_null() {
        let id = id(&command["id"]).ok_or_else(|| CallError::UnknownId(text(&command["id"])))?;
        Addressee::Id(id)
    } else {
        Addressee::Name(non_empty(&command["name"]).ok_or(CallError::NoAddressee)?)
    };
    let action = non_empty(&command["msg"]).unwrap_or_default();
    let is_bare = command["opts"].is_null() && command["uuid"].is_null();
    let message = if is_bare {
        Value::String(action.clone())
    } else {
        command.clone()
    };
    Ok(Call::MsgProcess {
        to,
        action,
        message,
    })
}

fn watch(change: WatchChange, method: &Value, value: &Value) -> Call {
    let who = match method.as_str() {
        Some("deleteAll") => Some(Watched::All),
        Some(_) => id_or_field(value).map(Watched::Id),
        None => None,
    };
    Call::Watch { change, who }
}

fn notify(opts: &Value) -> Result<Call, CallError> {
    if opts["id"].is_null() {
        return Err(CallError::NotifyWithoutId);
    }
    Ok(Call::Notify {
        id: id(&opts["id"]).ok_or(CallError::NotifyUnknownId)?,
        action: non_empty(&opts["action_name"]).unwrap_or_default(),
        manually: opts["manually"] == true,
    })
}

fn profile(kind: ProfileKind, opts: &Value) -> Call {
    Call::Profile {
        kind,
        file: non_empty(&opts["pwd"]).unwrap_or_default(),
        timeout_ms: opts["timeout"].as_u64().unwrap_or(DEFAULT_PROFILE_MS),
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// Ids come as numbers and, from a command line, as text.
fn id(value: &Value) -> Option<PmId> {
    let number = match value {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse().ok())??
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    u32::try_from(number).ok().map(PmId)
}

fn id_or_field(value: &Value) -> Option<PmId> {
    id(value).or_else(|| id(&value["id"]))
}

/// A value as JavaScript puts it into a text, near enough for a message.
fn text(value: &Value) -> String {
    match value {
        Value::Null => UNDEFINED.to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(_) => "[object Object]".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

fn non_empty(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
