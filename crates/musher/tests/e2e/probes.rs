//! Probes ask the process they are about, and what they hear has consequences.

use crate::harness::{Musher, free_port, get, kill};
use serde_json::json;

/// A build whose health is answered with this status.
fn build(status: u16) -> String {
    format!(
        "require('http').createServer((request, response) => {{\n\
         response.statusCode = request.url === '/healthz' ? {status} : 200;\n\
         response.end(String(process.pid));\n\
         }}).listen(Number(process.env.PORT));\n"
    )
}

fn start(musher: &Musher, app: &serde_json::Value) {
    musher.start(&format!("module.exports = {{ apps: [{app}] }};"));
}

#[test]
fn a_successor_that_says_it_is_unwell_replaces_nobody_although_the_old_one_is_well() {
    for balance in ["even", "shared", "round-robin"] {
        let musher = Musher::new();
        let (port, script) = (free_port(), musher.write("app.js", &build(200)));
        start(
            &musher,
            &json!({ "name": "app", "script": script, "instances": 2, "balance": balance,
                "env": { "PORT": port }, "listen_timeout": 2500,
                "readiness": { "http": "/healthz", "period": 100, "failureThreshold": 2 } }),
        );
        musher.wait_status("app", 2, "online");
        musher.ok(&["reload", "app"]);
        let pids = musher.pids("app");
        musher.write("app.js", &build(503));
        let ran = musher.run(&["reload", "app"]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, 1, "{balance}: {said}");
        assert!(said.contains("/healthz answered 503"), "{balance}: {said}");
        assert_eq!(musher.pids("app"), pids, "{balance}");
        get(port, "/").expect("an answer of the old build");
    }
}

#[test]
fn a_worker_that_hangs_is_replaced_although_its_neighbour_answers() {
    let musher = Musher::new();
    let (port, script) = (free_port(), musher.write("app.js", &build(200)));
    start(
        &musher,
        &json!({ "name": "app", "script": script, "instances": 2, "env": { "PORT": port },
            "startup": { "http": "/healthz", "period": 100, "failure_threshold": 200 },
            "liveness": { "http": "/healthz", "period": 200, "timeout": 1000,
                "failure_threshold": 2 } }),
    );
    musher.wait_status("app", 2, "online");
    get(port, "/").expect("an answer");
    let pids = musher.pids("app");
    kill(pids[0], "STOP");
    let successor = musher.wait("another process", || {
        let after = musher.pids("app");
        let is_there = after.len() == 2 && after[0] != pids[0];
        is_there.then_some(after)
    });
    assert_eq!(successor[1], pids[1], "its neighbour is well");
}

#[test]
fn a_server_of_any_runtime_that_hangs_is_replaced_on_its_held_socket() {
    let musher = Musher::new();
    let port = free_port();
    start(
        &musher,
        &json!({ "name": "app", "script": Musher::app("held.py"), "listen": [port],
            "startup": { "tcp": port },
            "liveness": { "http": "/", "periodSeconds": 0.2, "timeoutSeconds": 1,
                "failureThreshold": 2 } }),
    );
    let pid = musher.wait("an answer", || get(port, "/").ok());
    kill(pid.parse().expect("a pid"), "STOP");
    musher.wait("an answer of another process", || {
        get(port, "/").ok().filter(|answer| *answer != pid)
    });
}
