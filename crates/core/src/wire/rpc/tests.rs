//! Tables of calls and answers, in PM2's words.

use super::*;
use crate::supervisor::request::{Changes, Reply, RequestError};
use crate::wire::pm2_env::tests::{object, spec, view};
use proptest::prelude::*;
use serde_json::json;

/// Takes every description for the app of the tests, and a name for granted.
fn describe(description: &Map<String, Value>) -> Result<AppSpec, String> {
    match description.get("name") {
        Some(Value::String(name)) => Ok(AppSpec {
            name: name.clone(),
            n_instances: 4,
            autostart: description.get("autostart") != Some(&Value::Bool(false)),
            ..spec()
        }),
        _ => Err("\"name\" is required".to_owned()),
    }
}

fn call(method: &str, args: Value) -> Result<Call, CallError> {
    let body = json!({ "type": "call", "method": method, "args": args });
    parse_call(&body, &describe)
}

#[track_caller]
fn refuses(method: &str, args: Value, text: &str) {
    let error = call(method, args).unwrap_err().to_string();
    assert_eq!(error, text, "{method}");
}

#[test]
fn protocol_errors_are_pm2s() {
    for (body, text) in [
        (json!({}), ".method required"),
        (json!(null), ".method required"),
        (json!([1]), ".method required"),
        (json!({"type": "x"}), ".method required"),
        (json!({"type": "call", "args": []}), ".method required"),
        (
            json!({"type": "call", "method": "x"}),
            "method \"x\" does not exist",
        ),
        (json!({"type": "call", "method": "ping"}), ".args required"),
    ] {
        let error = parse_call(&body, &describe).unwrap_err();
        assert_eq!(error.to_string(), text, "{body}");
    }
}

#[test]
fn refusals_are_pm2s() {
    for (method, args, text) in [
        ("startProcessId", json!([]), "undefined id unknown"),
        ("startProcessId", json!(["abc"]), "abc id unknown"),
        ("stopProcessId", json!(["abc"]), "abc : id unknown"),
        (
            "restartProcessId",
            json!([{}]),
            "opts.id not passed to restartProcessId",
        ),
        (
            "restartProcessId",
            json!([{"id": "x"}]),
            "God db process id unknown",
        ),
        ("reloadProcessId", json!([{}]), "PM2 ID unknown"),
        (
            "softReloadProcessId",
            json!([{"id": "x"}]),
            "pm_id x not available in x",
        ),
        ("monitor", json!(["x"]), "Unknown pm_id"),
        (
            "sendSignalToProcessId",
            json!([{"process_id": 0, "signal": "SIGNOPE"}]),
            "Error when sending signal (signal unknown)",
        ),
        (
            "sendSignalToProcessName",
            json!([{}]),
            "Unknown process name",
        ),
        (
            "sendLineToStdin",
            json!([{"pm_id": 1}]),
            "pm_id or line field missing",
        ),
        (
            "sendLineToStdin",
            json!([{"pm_id": "x", "line": "a"}]),
            "Process with ID x unknown.",
        ),
        (
            "sendDataToProcessId",
            json!([{"id": 0, "topic": "t"}]),
            "ID, DATA or TOPIC field is missing",
        ),
        (
            "msgProcess",
            json!([{"msg": "gc"}]),
            "method requires name or id field",
        ),
        ("notifyByProcessId", json!([{}]), "process id missing"),
        (
            "notifyByProcessId",
            json!([{"id": "api"}]),
            "process id doesnt exists",
        ),
        ("prepare", json!([{}]), "\"name\" is required"),
    ] {
        refuses(method, args, text);
    }
}

#[test]
fn ids_come_as_numbers_texts_and_fields() {
    for args in [
        json!([7]),
        json!(["7"]),
        json!([{"id": 7}]),
        json!([{"id": "7"}]),
    ] {
        let expected = Call::Request(Request::Stop(PmId(7)), Answer::Stopped);
        assert_eq!(call("stopProcessId", args.clone()), Ok(expected), "{args}");
    }
    for args in [
        json!([-1]),
        json!([1.5]),
        json!(["4294967296"]),
        json!([""]),
    ] {
        assert!(call("stopProcessId", args.clone()).is_err(), "{args}");
    }
}

#[test]
fn changes_follow_pm2s_merge_rules() {
    let args = json!([{ "id": "1", "env": {
        "A": "1", "updateEnv": true, "api": {}, "LIST": [1],
        "current_conf": { "env": {}, "watch": "null", "args": ["b"], "cron_restart": null },
    }}]);
    let expected = Changes {
        env: object(json!({"A": "1", "LIST": [1]})),
        attributes: object(json!({"watch": null, "args": ["b"], "cron_restart": null})),
    };
    let request = Request::Restart(PmId(1), expected);
    assert_eq!(
        call("restartProcessId", args),
        Ok(Call::Request(request, Answer::Started))
    );
}

#[test]
fn an_entry_of_a_dump_is_one_process_and_a_stopped_one_is_only_registered() {
    for (description, n_instances, register_only) in [
        (json!({"name": "a", "instances": 4}), 4, false),
        (json!({"name": "a"}), 1, false),
        (json!({"name": "a", "status": "stopped"}), 1, true),
        (json!({"name": "a", "status": "online"}), 1, false),
        (
            json!({"name": "a", "instances": 4, "status": "stopped"}),
            4,
            false,
        ),
        (
            json!({"name": "a", "instances": 4, "autostart": false}),
            4,
            true,
        ),
    ] {
        let parsed = call("prepare", json!([description])).unwrap();
        let Call::Request(
            Request::Start {
                spec,
                register_only: registers,
            },
            Answer::Prepared,
        ) = parsed
        else {
            panic!("{parsed:?}");
        };
        assert_eq!(
            (spec.n_instances, registers),
            (n_instances, register_only),
            "{description}"
        );
    }
}

#[test]
fn an_action_without_parameters_is_sent_bare() {
    let message = |command: Value| {
        let parsed = call("msgProcess", json!([command])).unwrap();
        let Call::MsgProcess { message, .. } = parsed else {
            panic!("{parsed:?}");
        };
        message
    };
    assert_eq!(message(json!({"msg": "gc", "id": 0})), json!("gc"));
    let full = json!({"msg": "gc", "opts": {"n": 1}, "name": "api"});
    assert_eq!(message(full.clone()), full);
}

#[test]
fn watch_calls_say_whose_and_two_calls_are_never_answered() {
    let watch = |args| {
        let parsed = call("stopWatch", args).unwrap();
        let Call::Watch { who, .. } = parsed else {
            panic!("{parsed:?}");
        };
        who
    };
    assert_eq!(
        watch(json!(["stopProcessId", "3"])),
        Some(Watched::Id(PmId(3)))
    );
    assert_eq!(
        watch(json!(["restartProcessId", {"id": 3}])),
        Some(Watched::Id(PmId(3)))
    );
    assert_eq!(watch(json!(["deleteAll", {"pid": 1}])), Some(Watched::All));
    assert_eq!(watch(json!([])), None);
    for method in METHODS {
        let args = json!([{ "id": 0, "name": "a", "pid": 3 }, 0]);
        let is_answered = call(method.name, args).is_ok_and(|call| !call.is_answered());
        let is_silent = ["killMe", "notifyKillPM2"].contains(&method.name);
        assert_eq!(is_answered, is_silent, "{}", method.name);
    }
}

#[test]
fn an_update_names_an_executable() {
    let update = call("musherUpdate", json!([{ "executable": "/opt/musher" }]));
    let executable = "/opt/musher".to_owned();
    assert_eq!(update, Ok(Call::Update { executable }));
    for args in [json!([]), json!([{}]), json!([{ "executable": "" }])] {
        assert_eq!(call("musherUpdate", args), Err(CallError::NoExecutable));
    }
}

#[test]
fn replies_have_the_shape_of_their_method() {
    let one = Ok(Reply::Process(Box::new(view())));
    let keys = |answer: Answer| -> Vec<String> {
        let body = answer.body(&one, &[]);
        body["args"][0]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(keys(Answer::Started), ["pid", "process", "pm2_env"]);
    assert_eq!(keys(Answer::Stopped), ["pid", "name", "pm2_env", "pm_id"]);
    let prepared = Answer::Prepared.body(&Ok(Reply::Processes(vec![view()])), &[]);
    assert_eq!(prepared["args"][0][0]["process"]["pid"], 4242);
    let done = Ok(Reply::Done);
    let all = Answer::All.body(&done, &[view(), view()]);
    assert_eq!(all["args"][0].as_array().unwrap().len(), 2);
    let monitored = Answer::Monitored(2).body(&done, &[]).to_string();
    assert_eq!(monitored, r#"{"args":[{"success":true,"pm_id":2}]}"#);
    assert_eq!(
        Answer::Nothing.body(&done, &[]).to_string(),
        r#"{"args":[]}"#
    );
}

#[test]
fn errors_of_the_supervisor_keep_their_text_but_for_two_methods() {
    let error = |answer: Answer, error| answer.body(&Err(error), &[])["error"].clone();
    let unknown = RequestError::UnknownId(PmId(5));
    assert_eq!(error(Answer::Started, unknown.clone()), "5 id unknown");
    assert_eq!(error(Answer::Monitored(5), unknown), "Unknown pm_id");
    let reload = RequestError::UnknownIdReload;
    assert_eq!(error(Answer::Stopped, reload.clone()), "PM2 ID unknown");
    assert_eq!(
        error(Answer::SoftReloaded(5), reload),
        "pm_id 5 not available in 5"
    );
}

#[test]
fn the_methods_reply_lists_thirty_methods() {
    let body = methods_body();
    assert_eq!(body["methods"].as_object().unwrap().len(), 30);
    assert_eq!(
        body["methods"]["stopWatch"].to_string(),
        r#"{"name":"stopWatch","params":["method","value","fn"]}"#
    );
}

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        "[0-9]{1,12}".prop_map(Value::from),
    ];
    let keys = "id|env|current_conf|name|signal|process_id|pm_id|line|topic|data|msg|opts|pid|x";
    leaf.prop_recursive(3, 20, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_parsing_panic(
        method in 0..METHODS.len(),
        args in prop::collection::vec(junk(), 0..3),
        body in junk(),
    ) {
        let _ = call(METHODS[method].name, Value::from(args));
        let _ = parse_call(&body, &describe);
    }
}
