use super::*;
use crate::app::probe::{Check, HttpCheck, Probe, ProbeKind};
use serde_json::json;

fn of(value: Value) -> Objects {
    read(value.as_object().unwrap(), ExecMode::Fork)
}

fn good(value: Value) -> Objects {
    let objects = of(value.clone());
    assert!(
        objects.mistakes.is_empty(),
        "{value}: {:?}",
        objects.mistakes
    );
    objects
}

fn mistakes(value: Value) -> Vec<String> {
    let mistakes = of(value).mistakes;
    mistakes.iter().map(ToString::to_string).collect()
}

fn http(port: u16, path: &str) -> Check {
    Check::Http(HttpCheck {
        host: "127.0.0.1".to_owned(),
        port,
        path: path.to_owned(),
        headers: Vec::new(),
    })
}

fn http_at(host: &str, port: u16, path: &str) -> Check {
    let Check::Http(check) = http(port, path) else {
        unreachable!()
    };
    Check::Http(HttpCheck {
        host: host.to_owned(),
        ..check
    })
}

fn tcp(host: &str, port: u16) -> Check {
    let host = host.to_owned();
    Check::Tcp { host, port }
}

#[test]
fn every_way_to_write_a_check_is_the_same_check() {
    let exec = || Check::Exec {
        command: vec!["curl".to_owned(), "-f".to_owned(), "1".to_owned()],
    };
    for (written, check) in [
        (json!({"http": "/healthz"}), http(0, "/healthz")),
        (json!({"http": {"path": "/healthz"}}), http(0, "/healthz")),
        (json!({"http": {}}), http(0, "/")),
        (json!({"http": {"port": 3000}}), http(3000, "/")),
        (
            json!({"httpGet": {"port": "3000", "path": "/a?b=c"}}),
            http(3000, "/a?b=c"),
        ),
        (
            json!({"httpGet": {"port": 1, "scheme": "HTTP"}}),
            http(1, "/"),
        ),
        (
            json!({"http": "http://127.0.0.1:3000/healthz"}),
            http(3000, "/healthz"),
        ),
        (json!({"http": "http://127.0.0.1"}), http(80, "/")),
        (
            json!({"http": "http://[::1]:8080/x"}),
            http_at("::1", 8080, "/x"),
        ),
        (json!({"http": "http://[::1]/x"}), http_at("::1", 80, "/x")),
        (
            json!({"http": {"host": "localhost", "port": 9}}),
            http_at("localhost", 9, "/"),
        ),
        (json!({"tcp": 3000}), tcp("127.0.0.1", 3000)),
        (json!({"tcp": "3000"}), tcp("127.0.0.1", 3000)),
        (json!({"tcp": "localhost:3000"}), tcp("localhost", 3000)),
        (json!({"tcp": "[::1]:3000"}), tcp("::1", 3000)),
        (
            json!({"tcpSocket": {"port": 5432, "host": "10.0.0.7"}}),
            tcp("10.0.0.7", 5432),
        ),
        (json!({"exec": ["curl", "-f", 1]}), exec()),
        (json!({"exec": {"command": ["curl", "-f", "1"]}}), exec()),
    ] {
        let found = good(json!({"env": {"PORT": 8}, "readiness": written.clone()}));
        assert_eq!(found.probes.readiness.unwrap().check, check, "{written}");
    }
}

#[test]
fn header_fields_are_an_object_or_kubernetes_list() {
    for headers in [
        json!({"headers": {"Host": "shop", "X-A": 1}}),
        json!({"httpHeaders": [{"name": "Host", "value": "shop"}, {"name": "X-A", "value": "1"}]}),
    ] {
        let mut check = json!({"port": 1});
        check
            .as_object_mut()
            .unwrap()
            .extend(headers.as_object().unwrap().clone());
        let found = good(json!({"liveness": {"http": check}}));
        let Check::Http(check) = found.probes.liveness.unwrap().check else {
            panic!("no http")
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(check.headers, [pair("Host", "shop"), pair("X-A", "1")]);
    }
}

#[test]
fn times_are_kubernetes_seconds_or_milliseconds_and_defaults_are_kubernetes() {
    let plain = Probe {
        check: tcp("127.0.0.1", 1),
        initial_delay: Millis(0),
        period: Millis(10_000),
        timeout: Millis(1000),
        success_threshold: 1,
        failure_threshold: 3,
    };
    let found = good(json!({"readiness": {"tcp": 1}}));
    assert_eq!(found.probes.get(ProbeKind::Readiness), Some(&plain));
    assert_eq!(found.probes.startup, None);
    let set = Probe {
        initial_delay: Millis(2000),
        period: Millis(500),
        timeout: Millis(250),
        success_threshold: 2,
        failure_threshold: 5,
        ..plain
    };
    for times in [
        json!({"tcp": 1, "initial_delay": "2s", "period": 500, "timeout": "250ms",
            "success_threshold": 2, "failure_threshold": 5}),
        json!({"tcp": 1, "initialDelaySeconds": 2, "periodSeconds": 0.5, "timeoutSeconds": "0.25",
            "successThreshold": 2, "failureThreshold": "5"}),
    ] {
        let found = good(json!({"readiness": times}));
        assert_eq!(found.probes.readiness, Some(set.clone()));
    }
}

#[test]
fn every_mistake_in_a_probe_names_its_key_and_what_is_right() {
    for (probe, words) in [
        (
            json!({}),
            "readiness: `readiness` does not say what to ask (help: readiness: {http: ",
        ),
        (
            json!({"tcp": 1, "exec": ["a"]}),
            "readiness: `readiness` asks several things",
        ),
        (
            json!({"tcp": 1, "perod": 5}),
            "readiness.perod: unknown key `readiness.perod` (help: known are `initial_delay`",
        ),
        (
            json!({"tcp": 1, "period": 99}),
            "readiness.period: `readiness.period` must be milliseconds or a span like '10s', at least 100 ms and at most a day, not 99",
        ),
        (
            json!({"tcp": 1, "periodSeconds": 0}),
            "readiness.periodSeconds: `readiness.periodSeconds` must be seconds, at least 0.1 and at most a day, not 0",
        ),
        (
            json!({"tcp": 1, "timeout": "soon"}),
            "readiness.timeout: `readiness.timeout` must be milliseconds",
        ),
        (
            json!({"tcp": 1, "timeoutSeconds": "1e300"}),
            "readiness.timeoutSeconds: ",
        ),
        (
            json!({"tcp": 1, "initialDelaySeconds": 86_401}),
            "readiness.initialDelaySeconds: ",
        ),
        (
            json!({"tcp": 1, "failure_threshold": 0}),
            "readiness.failure_threshold: `readiness.failure_threshold` must be a whole number from 1 to 1000, not 0",
        ),
        (
            json!({"tcp": 1, "terminationGracePeriodSeconds": 1}),
            "readiness.terminationGracePeriodSeconds: a failed probe",
        ),
        (
            json!({"grpc": {"port": 1}}),
            "readiness.grpc: grpc is not asked",
        ),
        (
            json!({"tcp": 0}),
            "readiness.tcp: `readiness.tcp` must be a port from 1 to 65535, or 'host:port'",
        ),
        (json!({"tcp": 70_000}), "readiness.tcp: "),
        (json!({"tcp": true}), "readiness.tcp: "),
        (json!({"tcp": "localhost"}), "readiness.tcp: "),
        (
            json!({"tcp": "db.example:1"}),
            "readiness.tcp: `readiness.tcp`: \"db.example:1\" is no numeric address or localhost with a port (a probe looks no names up)",
        ),
        (
            json!({"tcpSocket": {"port": "x"}}),
            "readiness.tcpSocket.port: ",
        ),
        (
            json!({"tcpSocket": {"port": 1, "hots": ""}}),
            "readiness.tcpSocket.hots: unknown key",
        ),
        (
            json!({"http": true}),
            "readiness.http: `readiness.http` must be a path",
        ),
        (
            json!({"http": "healthz"}),
            "readiness.http: `readiness.http` must begin with /",
        ),
        (json!({"http": "/a b"}), "readiness.http: "),
        (json!({"http": "/a\r\nX: y"}), "readiness.http: "),
        (
            json!({"http": "https://127.0.0.1/"}),
            "readiness.http: `readiness.http`: https is not asked",
        ),
        (json!({"http": "http://shop.example/"}), "readiness.http: "),
        (json!({"http": {"path": 1}}), "readiness.http.path: "),
        (
            json!({"http": {"port": 0}}),
            "readiness.http.port: `readiness.http.port` must be a whole number from 1 to 65535, not 0",
        ),
        (
            json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}),
            "readiness.httpGet.scheme: ",
        ),
        (
            json!({"http": {"host": "a.b", "port": 1}}),
            "readiness.http.host: `readiness.http.host` must be a numeric address or localhost",
        ),
        (
            json!({"http": {"port": 1, "headers": {"A": "b\r\nC: d"}}}),
            "readiness.http.headers: ",
        ),
        (
            json!({"http": {"port": 1, "headers": {"Connection": "close"}}}),
            "readiness.http.headers: ",
        ),
        (
            json!({"http": "/"}),
            "readiness.http: `readiness.http` does not say which port to ask (help: add `port`",
        ),
        (
            json!({"exec": "curl -f x"}),
            "readiness.exec: `readiness.exec` must be a list of a program and its arguments (help: ",
        ),
        (json!({"exec": []}), "readiness.exec: "),
        (json!({"exec": ["a\0b"]}), "readiness.exec: "),
        (
            json!({"exec": {"command": "x"}}),
            "readiness.exec.command: ",
        ),
    ] {
        let found = mistakes(json!({"readiness": probe.clone()}));
        assert_eq!(found.len(), 1, "{probe}: {found:?}");
        assert!(found[0].starts_with(words), "{probe}: {}", found[0]);
    }
    let several = json!({"tcp": 0, "period": 1, "timeout": 1});
    assert_eq!(mistakes(json!({"startup": several})).len(), 3);
    let twice = json!({"tcp": 1, "success_threshold": 2});
    assert_eq!(mistakes(json!({"liveness": twice.clone()})).len(), 1);
    assert!(mistakes(json!({"readiness": twice})).is_empty());
    assert_eq!(mistakes(json!({"readiness": "/healthz"})).len(), 1);
}

#[test]
fn a_probe_without_a_port_finds_that_of_the_app() {
    for app in [
        json!({"env": {"PORT": "3000"}}),
        json!({"increment_var": "PORT"}),
        json!({"listen": [3000]}),
    ] {
        let mut app = app;
        app["readiness"] = json!({"http": "/"});
        good(app);
    }
    let app = json!({"listen": ["unix:/run/a.sock"], "readiness": {"http": "/"}});
    assert_eq!(mistakes(app).len(), 1);
    let app = json!({"readiness": {"http": "/"}});
    let cluster = read(app.as_object().unwrap(), ExecMode::Cluster);
    assert!(cluster.mistakes.is_empty());
}

#[test]
fn a_variable_of_the_shell_is_no_attribute() {
    let app = json!({"env": {"listen": "x", "startup": "y", "reload": "z"},
        "listen": "x", "startup": "y", "reload": "z"});
    let found = good(app);
    assert!(found.listen.is_empty());
    assert_eq!(mistakes(json!({"listen": "x"})).len(), 1);
}

#[test]
fn a_reload_says_how_it_goes() {
    let found = good(
        json!({"reload": {"parallel": "4", "min_ready": "2s", "on_failure": "rollback",
        "drain": 500, "websockets": {"close": "10s"}}}),
    );
    let expected = ReloadPolicy {
        parallel: 4,
        min_ready: Millis(2000),
        on_failure: OnFailure::Rollback,
        drain: Millis(500),
        websockets: Upgraded::Close {
            over: Millis(10_000),
        },
    };
    assert_eq!(found.reload, expected);
    assert_eq!(good(json!({"reload": {}})).reload, ReloadPolicy::default());
    assert_eq!(good(json!({})).reload, ReloadPolicy::default());
    let camel =
        good(json!({"reload": {"minReady": 7, "onFailure": "abort", "websockets": "close"}}));
    assert_eq!(camel.reload.min_ready, Millis(7));
    assert_eq!(
        camel.reload.websockets,
        Upgraded::Close { over: CLOSE_OVER }
    );
    for (reload, words) in [
        (json!(true), "reload: `reload` must be an object"),
        (json!({"parallel": 0}), "reload.parallel: "),
        (json!({"min_ready": -1}), "reload.min_ready: "),
        (
            json!({"on_failure": "retry"}),
            "reload.on_failure: `reload.on_failure` must be 'abort' or 'rollback', not \"retry\"",
        ),
        (json!({"drain": "2d"}), "reload.drain: "),
        (json!({"websockets": "cut"}), "reload.websockets: "),
        (json!({"websockets": {"close": "x"}}), "reload.websockets: "),
        (
            json!({"canary": 1}),
            "reload.canary: unknown key `reload.canary` (help: known are `parallel`",
        ),
    ] {
        let found = mistakes(json!({"reload": reload.clone()}));
        assert_eq!(found.len(), 1, "{reload}: {found:?}");
        assert!(found[0].starts_with(words), "{reload}: {}", found[0]);
    }
}

#[test]
fn sockets_are_listed_in_order_and_each_once() {
    let found = good(
        json!({"listen": [3000, "127.0.0.1:3001", "[::]:3002", "unix:/run/a.sock",
        {"name": "admin", "address": "127.0.0.1:9000"}]}),
    );
    let texts: Vec<String> = found.listen.iter().map(|it| it.at.to_string()).collect();
    let expected = [
        "3000",
        "127.0.0.1:3001",
        "[::]:3002",
        "unix:/run/a.sock",
        "127.0.0.1:9000",
    ];
    assert_eq!(texts, expected);
    let names: Vec<&str> = found.listen.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["unknown", "unknown", "unknown", "unknown", "admin"]);
    assert_eq!(good(json!({"listen": 3000})).listen.len(), 1);
    for (listen, words) in [
        (
            json!(["localhost:80"]),
            "listen[0]: `listen[0]` must be a port, '127.0.0.1:3000', ",
        ),
        (json!([1, 1]), "listen[1]: `listen[1]`: 1 is there twice"),
        (json!([0]), "listen[0]: "),
        (json!([{"name": "a:b", "address": 1}]), "listen[0].name: "),
        (
            json!([{"name": "a"}]),
            "listen[0].address: `listen[0].address` is missing",
        ),
        (
            json!([{"address": 1, "backlog": 5}]),
            "listen[0].backlog: unknown key",
        ),
        (
            json!((1..=17).collect::<Vec<u16>>()),
            "listen: `listen` must hold at most 16",
        ),
    ] {
        let found = mistakes(json!({"listen": listen.clone()}));
        assert_eq!(found.len(), 1, "{listen}: {found:?}");
        assert!(found[0].starts_with(words), "{listen}: {}", found[0]);
    }
    let cluster = json!({"listen": [3000]});
    let cluster = read(cluster.as_object().unwrap(), ExecMode::Cluster).mistakes;
    assert!(cluster[0].message.contains("its own `listen()`"));
}
