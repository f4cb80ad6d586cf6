//! The agent in real apps: what they see of it, and what it tells.

use crate::harness::{Musher, free_port, get};
use serde_json::{Value, json};

fn config(apps: &[Value]) -> String {
    format!("module.exports = {}", json!({ "apps": apps }))
}

fn app(name: &str, more: Value) -> Value {
    let mut app = json!({ "name": name, "script": Musher::app("environment.js") });
    let fields = app.as_object_mut().expect("an object");
    fields.insert("env".into(), json!({ "APP_PORT": free_port() }));
    for (key, value) in more.as_object().expect("an object") {
        match (key.as_str(), value.as_object()) {
            ("env", Some(env)) => fields["env"]
                .as_object_mut()
                .expect("one")
                .extend(env.clone()),
            _ => drop(fields.insert(key.clone(), value.clone())),
        }
    }
    app
}

#[test]
fn apps_children_and_threads_see_the_node_options_of_the_user() {
    let own = "--max-old-space-size=300  --title=\"a b\"";
    let cases = [
        ("none", json!({}), Value::Null),
        ("own", json!({"env": {"NODE_OPTIONS": own}}), json!(own)),
        ("empty", json!({"env": {"NODE_OPTIONS": ""}}), json!("")),
        ("off", json!({"agent": false}), Value::Null),
        (
            "worker",
            json!({"exec_mode": "cluster", "env": {"NODE_OPTIONS": own}}),
            json!(own),
        ),
    ];
    let musher = Musher::new();
    let apps: Vec<Value> = cases
        .iter()
        .map(|(name, more, _)| app(name, more.clone()))
        .collect();
    musher.start(&config(&apps));
    for (name, _, options) in &cases {
        let seen = &musher.wait_facts(name, "seen", 1)[0];
        assert_eq!(seen["options"], *options, "{name}: {seen}");
        assert_eq!(seen["child"], *options, "{name}: {seen}");
        assert_eq!(seen["thread"]["options"], *options, "{name}: {seen}");
        assert_eq!(seen["execArgv"], json!([]), "{name}");
        assert_eq!(seen["cached"], json!([]), "{name}");
        assert_eq!(seen["thread"]["cached"], json!([]), "{name}");
        assert_eq!(seen["gc"], "undefined", "{name}");
        assert_eq!(seen["main"], true, "{name}");
    }
    let version = |name: &str| musher.of(name)[0]["pm2_env"]["node_version"].clone();
    for (name, ..) in cases {
        if name == "off" {
            assert_eq!(version(name), Value::Null);
        } else {
            musher.wait("its version", || version(name).is_string().then_some(()));
        }
    }
    let described = musher.ok(&["describe", "off"]);
    assert!(described.contains("off by `agent: false`"), "{described}");
}

#[test]
fn figures_of_an_app_are_in_its_record() {
    let musher = Musher::new();
    let port = free_port();
    let more = json!({"env": {"APP_PORT": port}});
    musher.start(&config(&[app("api", more)]));
    let metric = |name: &str| musher.of("api")[0]["pm2_env"]["axm_monitor"][name].clone();
    musher.wait("the first figures", || {
        metric("Event Loop Latency p95").is_object().then_some(())
    });
    let heap = metric("Used Heap Size");
    assert_eq!(heap["unit"], "MiB");
    assert!(
        heap["value"]
            .as_str()
            .expect("a text")
            .parse::<f64>()
            .expect("a number")
            > 1.0
    );
    for _ in 0..20 {
        get(port, "/").expect("an answer");
    }
    let http = musher.wait("the requests", || {
        Some(metric("HTTP")).filter(Value::is_object)
    });
    assert_eq!(http["unit"], "req/min");
    assert!(http["value"].as_f64() >= Some(20.0), "{http}");
    assert!(musher.ok(&["describe", "api"]).contains("HTTP P95 Latency"));
}

#[test]
fn gc_collects_garbage_without_a_flag_and_says_who_cannot() {
    let musher = Musher::new();
    let shell = musher.write("app.sh", "sleep 1000\n");
    let apps = [
        app("api", json!({})),
        app("off", json!({"agent": false})),
        json!({"name": "shell", "script": shell}),
        app("worker", json!({"exec_mode": "cluster"})),
    ];
    musher.start(&config(&apps));
    for name in ["api", "worker"] {
        let seen = musher.wait_facts(name, "seen", 1);
        assert_eq!(seen[0]["gc"], "undefined");
        let said = musher.ok(&["gc", name]);
        assert!(said.contains("heap "), "{said}");
        let id = &musher.of(name)[0]["pm_id"];
        let answer = musher
            .rpc("musherGc", &json!([{ "id": id }]))
            .expect("an answer");
        let bytes = |key: &str| answer[key].as_u64().expect("bytes");
        assert!(bytes("heap_after") <= bytes("heap_before"), "{answer}");
    }
    for (name, why) in [("off", "agent: false"), ("shell", "not run by Node")] {
        let ran = musher.run(&["gc", name]);
        assert_eq!(ran.code, 1);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn an_app_whose_node_may_read_nothing_starts_without_the_agent() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "console.log('{\"event\":\"up\"}'); setInterval(() => 0, 1000);\n",
    );
    let script = script.to_str().expect("a path");
    let flag = format!("--experimental-permission --allow-fs-read={script}");
    musher.start(&config(&[
        json!({"name": "confined", "script": script, "node_args": flag}),
    ]));
    musher.wait("it has begun", || musher.log_has("confined", "up"));
    assert_eq!(musher.of("confined")[0]["pm2_env"]["restart_time"], 0);
}
