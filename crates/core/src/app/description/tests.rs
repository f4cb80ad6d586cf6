use super::*;
use crate::app::ExecMode;
use proptest::prelude::*;
use serde_json::json;

fn defaults() -> Defaults {
    Defaults {
        kill_signal: Signal::INT,
        kill_timeout: Millis(1600),
        listen_timeout: Millis(3000),
        kill_with_message: false,
        cpu_count: 4,
        unique_id: "u-1".to_owned(),
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn small() -> Map<String, Value> {
    object(json!({
        "name": "api", "namespace": "default", "env": {"A": "1", "watch": "yes", "o": {}},
        "A": "1", "status": "online", "restart_time": 7, "custom": true, "kill_timeout": 500,
        "pm_exec_path": "/srv/app.js", "pm_cwd": "/srv", "exec_interpreter": "node",
        "exec_mode": "cluster_mode", "instances": 2, "pm_out_log_path": "/l/o.log",
        "pm_err_log_path": "NULL", "pm_pid_path": "/p/api.pid", "unique_id": "u-9"
    }))
}

fn good(description: Map<String, Value>) -> AppSpec {
    spec(&description, &defaults()).unwrap()
}

#[test]
fn a_description_becomes_a_spec_and_variables_stay_in_env() {
    let spec = good(small());
    assert_eq!(spec.mode, ExecMode::Cluster);
    assert_eq!(spec.n_instances, 2);
    assert_eq!(spec.stop.kill_timeout, Millis(500));
    assert_eq!(spec.logs.out.as_deref(), Some("/l/o.log"));
    assert_eq!(spec.logs.err, None);
    assert_eq!(spec.unique_id, "u-9");
    assert_eq!(*spec.env, object(json!({"A": "1", "watch": "yes"})));
    let keys: Vec<&str> = spec.declared.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "name",
            "namespace",
            "custom",
            "kill_timeout",
            "node_args",
            "pm_exec_path",
            "pm_cwd",
            "exec_interpreter",
            "exec_mode",
            "instances",
            "pm_out_log_path",
            "pm_err_log_path",
            "pm_pid_path"
        ]
    );
}

#[test]
fn instances_follow_pm2s_arithmetic() {
    for (value, count) in [
        (json!(null), 1),
        (json!(0), 4),
        (json!("max"), 4),
        (json!(-1), 3),
        (json!(-9), 1),
        (json!(i64::MIN), 1),
        (json!("3"), 3),
        (json!(1_000_000_000_000u64), u32::MAX),
    ] {
        let mut description = small();
        description.insert("instances".to_owned(), value.clone());
        assert_eq!(good(description).n_instances, count, "{value}");
    }
}

#[test]
fn every_mistake_is_reported_with_its_key() {
    let mut description = small();
    for (key, value) in [
        ("pm_exec_path", json!("app.js")),
        ("exec_mode", json!("both")),
        ("kill_timeout", json!([])),
        ("uid", json!(-1)),
        ("name", json!("a\u{0}b")),
    ] {
        description.insert(key.to_owned(), value);
    }
    let mistakes = spec(&description, &defaults()).unwrap_err();
    let keys: Vec<&str> = mistakes
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert_eq!(
        keys,
        ["pm_exec_path", "name", "exec_mode", "kill_timeout", "uid"]
    );
    assert!(spec(&Map::new(), &defaults()).is_err());
}

#[test]
fn changes_merge_delete_rename_and_leave_the_fixed_alone() {
    let before = good(small());
    let changes = Changes {
        env: object(json!({"A": "2", "B": 3, "C": {}, "D": null})),
        attributes: object(json!({
            "name": "web", "kill_timeout": null, "max_memory_restart": 1000, "exec_mode": "fork",
            "instances": 9, "pm_cwd": "/x", "cwd": "/x", "script": "y.js", "args": ["b1"],
            "out_file": "/z", "env": {}, "status": "stopped"
        })),
    };
    let after = apply(&before, &changes, &defaults()).unwrap();
    assert_eq!(after.name, "web");
    assert_eq!(after.stop.kill_timeout, Millis(1600));
    assert_eq!(after.max_memory_bytes, Some(1000));
    assert_eq!(after.args, ["b1"]);
    assert_eq!(
        *after.env,
        object(json!({"A": "2", "watch": "yes", "B": 3}))
    );
    assert_eq!(
        (
            after.mode,
            after.n_instances,
            &after.script,
            &after.cwd,
            &after.logs
        ),
        (before.mode, 2, &before.script, &before.cwd, &before.logs)
    );
}

#[test]
fn a_block_of_variables_takes_the_place_of_the_callers_shell() {
    let changes = Changes {
        env: object(json!({"SHELL_ONLY": "1", "A": "shell"})),
        attributes: object(json!({"env": {"A": "block"}})),
    };
    let after = apply(&good(small()), &changes, &defaults()).unwrap();
    assert_eq!(*after.env, object(json!({"A": "block", "watch": "yes"})));
}

#[test]
fn the_text_null_deletes_too_but_never_the_name() {
    let changes = Changes {
        env: Map::new(),
        attributes: object(json!({"kill_timeout": "null", "name": "null"})),
    };
    let after = apply(&good(small()), &changes, &defaults()).unwrap();
    assert_eq!(after.name, "api");
    assert!(!after.declared.contains_key("kill_timeout"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["max", "none", "/a/b", "1h", "150M", "null", "\0"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("\\PC{0,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let known: Vec<String> = attributes::ATTRIBUTES
        .iter()
        .map(|row| row.name)
        .chain(LEADING.iter().copied())
        .chain(TRAILING.iter().copied())
        .chain(STATE_KEYS.iter().chain(NO_ATTRIBUTES).copied())
        .map(str::to_owned)
        .collect();
    prop_oneof![4 => prop::sample::select(known), 1 => "\\PC{0,8}"]
}

fn any_description() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((any_key(), any_json()), 0..24)
        .prop_map(|pairs| pairs.into_iter().collect())
}

proptest! {
    #[test]
    fn no_json_makes_spec_or_apply_panic(wild in any_description(), env in any_description()) {
        let _ = spec(&wild, &defaults());
        let changes = Changes { env, attributes: wild };
        let _ = apply(&good(small()), &changes, &defaults());
    }

    #[test]
    fn a_spec_survives_the_way_through_its_description(wild in any_description()) {
        // One wild key at a time on a valid base, or nearly nothing would be valid.
        for (key, value) in wild {
            let mut description = small();
            description.insert(key, value);
            if let Ok(first) = spec(&description, &defaults()) {
                let again = spec(&to_description(&first), &defaults()).unwrap();
                prop_assert_eq!(&again, &first);
                prop_assert_eq!(to_description(&again), to_description(&first));
            }
        }
    }
}
