//! What Node's `cluster` gives an unmodified app, in every balance mode.

use crate::harness::{Musher, free_port, get, read_frame};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const MODES: [&str; 3] = ["even", "shared", "round-robin"];

fn config(script: &str, mode: &str, env: &Value) -> String {
    let app = json!({ "name": "app", "script": script, "instances": 2, "exec_mode": "cluster",
                      "balance": mode, "env": env });
    format!("module.exports = {{ apps: [{app}] }};")
}

/// Starts one case of `features.cjs` with two workers and waits until they listen.
fn started(mode: &str, case: &str, port: u16) -> (Musher, Vec<Value>) {
    let musher = Musher::new();
    let facts = listening(&musher, mode, case, port, 2);
    (musher, facts)
}

fn listening(musher: &Musher, mode: &str, case: &str, port: u16, n: usize) -> Vec<Value> {
    let path = musher.cwd().join("app.sock");
    let env = json!({ "APP_CASE": case, "APP_PORT": port, "APP_PATH": path });
    musher.start(&config(&Musher::app("features.cjs"), mode, &env));
    let facts = musher.wait_facts("app", "listening", n);
    assert!(musher.facts("app").iter().all(|f| f["event"] != "error"));
    facts
}

fn pids(musher: &Musher) -> BTreeSet<String> {
    musher.pids("app").iter().map(i64::to_string).collect()
}

/// Checks that workers answered; where the order is fair, all of them.
fn check_answers(musher: &Musher, mode: &str, seen: &BTreeSet<String>) {
    let all = pids(musher);
    assert_eq!(all.len(), 2);
    assert!(seen.is_subset(&all), "{mode}: {seen:?} of {all:?}");
    if mode == "round-robin" {
        assert_eq!(*seen, all, "{mode} leaves a worker idle");
    }
}

#[test]
fn https_is_served_with_the_apps_own_certificate() {
    for mode in MODES {
        let musher = Musher::new();
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(' '))
            .args("-subj /CN=localhost -days 2 -keyout key.pem -out cert.pem".split(' '))
            .current_dir(musher.cwd())
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        listening(&musher, mode, "https", port, 2);
        let seen: BTreeSet<String> = (0..6).map(|_| tls_get(&musher, port)).collect();
        check_answers(&musher, mode, &seen);
    }
}

/// Sends a request through `openssl s_client` that trusts the test's certificate only.
fn tls_get(musher: &Musher, port: u16) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-CAfile"])
        .args(["cert.pem", "-connect", &format!("127.0.0.1:{port}")])
        .current_dir(musher.cwd())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the request is sent");
    let output = client.wait_with_output().expect("it ends");
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout);
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    body.trim().to_owned()
}

#[test]
fn a_net_server_is_served_by_every_worker() {
    for mode in MODES {
        let port = free_port();
        let (musher, _) = started(mode, "net", port);
        let seen = (0..20)
            .map(|_| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
                let mut pid = String::new();
                stream.read_to_string(&mut pid).expect("an answer");
                pid
            })
            .collect();
        check_answers(&musher, mode, &seen);
    }
}

#[test]
fn a_dgram_socket_receives_in_every_mode() {
    for mode in MODES {
        let port = free_port();
        let (musher, _) = started(mode, "dgram", port);
        for _ in 0..20 {
            let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a timeout");
            client.send_to(b"who", ("127.0.0.1", port)).expect("sent");
            let mut buffer = [0; 32];
            let n = client.recv(&mut buffer).expect("an answer");
            let pid = String::from_utf8_lossy(&buffer[..n]).into_owned();
            assert!(pids(&musher).contains(&pid), "{mode}: {pid}");
        }
    }
}

#[test]
fn two_ports_of_one_app_are_not_mixed_up() {
    for mode in MODES {
        let musher = Musher::new();
        let ports = [free_port(), free_port()];
        let env = json!({ "APP_CASE": "two", "APP_PORT": ports[0], "APP_PORT_2": ports[1] });
        musher.start(&config(&Musher::app("features.cjs"), mode, &env));
        musher.wait_facts("app", "listening", 4);
        for (port, word) in [(ports[0], "first "), (ports[1], "second ")] {
            let seen = (0..20)
                .map(|_| {
                    let body = get(port, "/").expect("an answer");
                    let pid = body.strip_prefix(word);
                    pid.unwrap_or_else(|| panic!("{mode}: {body}")).to_owned()
                })
                .collect();
            check_answers(&musher, mode, &seen);
        }
    }
}

#[test]
fn port_zero_is_the_same_port_for_all_workers() {
    for mode in MODES {
        let (musher, facts) = started(mode, "any", 0);
        let ports: BTreeSet<u64> = facts
            .iter()
            .filter_map(|fact| fact["address"]["port"].as_u64())
            .collect();
        assert_eq!(ports.len(), 1, "{mode}: {facts:?}");
        let port = u16::try_from(*ports.first().expect("one")).expect("a port");
        let seen = (0..20)
            .map(|_| get(port, "/").expect("an answer"))
            .collect();
        check_answers(&musher, mode, &seen);
        musher.ok(&["reload", "app"]);
        let again = musher.wait_facts("app", "listening", 4);
        assert_eq!(
            again[3]["address"]["port"], port,
            "{mode}: a reload keeps the port"
        );
    }
}

#[test]
fn a_unix_socket_is_shared_and_goes_with_the_app() {
    for mode in MODES {
        let (musher, _) = started(mode, "unix", 0);
        let path = musher.cwd().join("app.sock");
        let seen = (0..20)
            .map(|_| {
                let mut stream = UnixStream::connect(&path).expect("a connection");
                stream
                    .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    .expect("sent");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                let (_, pid) = answer.split_once("\r\n\r\n").expect("a body");
                pid.to_owned()
            })
            .collect();
        check_answers(&musher, mode, &seen);
        musher.ok(&["reload", "app"]);
        assert!(UnixStream::connect(&path).is_ok(), "{mode}: after a reload");
        musher.ok(&["stop", "app"]);
        musher.wait(&format!("{mode}: nobody listens"), || {
            UnixStream::connect(&path).err()
        });
        musher.ok(&["restart", "app"]);
        musher.wait(&format!("{mode}: it listens again"), || {
            UnixStream::connect(&path).ok()
        });
    }
}

#[test]
fn every_worker_is_a_worker_with_an_id_of_its_own() {
    let (musher, facts) = started("even", "http", free_port());
    assert!(facts.iter().all(|fact| fact["worker"] == true), "{facts:?}");
    musher.ok(&["reload", "app"]);
    let facts = musher.wait_facts("app", "listening", 4);
    let ids: BTreeSet<u64> = facts.iter().filter_map(|f| f["id"].as_u64()).collect();
    assert_eq!(ids.len(), 4, "{facts:?}");
}

#[test]
fn messages_reach_a_worker_and_its_answers_reach_the_bus() {
    let (musher, _) = started("even", "http", free_port());
    let mut bus = UnixStream::connect(musher.home().join("pub.sock")).expect("pub.sock");
    bus.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    let packet = json!({ "id": 1, "type": "process:msg", "topic": "greeting",
                         "data": { "text": "h\u{e9}llo", "n": [1, 2.5, null] } });
    // Publications of the moment before the daemon saw the subscriber are not sent.
    let got = musher.wait("the message in the worker", || {
        let sent = musher.rpc("sendDataToProcessId", &json!([packet]));
        sent.expect("the daemon sends it");
        let mut facts = musher.facts("app");
        facts.retain(|fact| fact["event"] == "got");
        (facts.len() > 2).then_some(facts)
    });
    assert_eq!(got[0]["message"]["data"], packet["data"]);
    assert_eq!(got[0]["pid"], musher.pids("app")[1]);
    loop {
        let frame = read_frame(&mut bus).expect("the answer on the bus");
        let payload: Value = serde_json::from_slice(&frame[1][2..]).expect("JSON");
        if frame[0] == b"s:process:msg" {
            assert_eq!(payload["data"]["echo"], packet["data"], "{payload}");
            assert_eq!(payload["process"]["pm_id"], 1, "{payload}");
            break;
        }
    }
    let refused = musher.rpc("sendDataToProcessId", &json!([{ "id": 1, "topic": "x" }]));
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_worker_that_disconnects_leaves_and_is_replaced() {
    for (mode, path) in [
        ("even", "/process"),
        ("shared", "/worker"),
        ("round-robin", "/worker"),
    ] {
        let port = free_port();
        let (musher, _) = started(mode, "farewell", port);
        let gone: i64 = get(port, path).expect("an answer").parse().expect("a pid");
        let exit = musher.wait_facts("app", "exit", 1);
        assert_eq!(
            (&exit[0]["pid"], &exit[0]["code"]),
            (&json!(gone), &json!(0))
        );
        // Node itself ends a worker whose channel closes unasked, before its listeners.
        let is_asked = path == "/worker";
        assert_eq!(exit[0]["asked"] == true, is_asked, "{mode}: {exit:?}");
        let said = musher.facts("app");
        let said = said.iter().find(|fact| fact["event"] == "disconnect");
        assert_eq!(said.is_some(), is_asked, "{mode}");
        assert!(said.is_none_or(|said| said["connected"] == false), "{mode}");
        let after = musher.wait("a replacement", || {
            let pids = musher.pids("app");
            (pids.len() == 2 && !pids.contains(&gone)).then_some(pids)
        });
        musher.wait_facts("app", "listening", 3);
        let pid: i64 = get(port, "/").expect("an answer").parse().expect("a pid");
        assert!(after.contains(&pid), "{mode}");
    }
}

#[test]
fn an_entry_file_of_any_kind_is_a_worker() {
    let esm = "import http from 'node:http'; import cluster from 'node:cluster';\n\
               const port = await Promise.resolve(Number(process.env.APP_PORT));\n\
               http.createServer((q, r) => r.end(`${import.meta.url} ${cluster.isWorker}`))\
               .listen(port, '127.0.0.1', () => console.log('{\"event\":\"up\"}'));\n";
    let cjs = "const cluster = require('cluster');\n\
               if (require.main !== module) console.error('not the main module');\n\
               require('http').createServer((q, r) => r.end(`${__filename} ${cluster.isWorker}`))\
               .listen(Number(process.env.APP_PORT), '127.0.0.1', () => console.log('{\"event\":\"up\"}'));\n";
    for (file, text, package) in [
        ("a/main.js", cjs, None),
        ("a/main.cjs", cjs, None),
        ("a/main.mjs", esm, None),
        ("a/main.js", esm, Some("{\"type\":\"module\"}")),
    ] {
        let musher = Musher::new();
        let script = musher.write(file, text);
        if let Some(package) = package {
            musher.write("a/package.json", package);
        }
        let port = free_port();
        let env = json!({ "APP_PORT": port });
        musher.start(&config(script.to_str().expect("a path"), "even", &env));
        musher.wait_facts("app", "up", 2);
        let body = get(port, "/").expect("an answer");
        assert!(body.ends_with(&format!("{file} true")), "{file}: {body}");
        assert!(
            musher.log_has("app", "not the main module").is_none(),
            "{file}"
        );
    }
}

#[test]
fn a_typescript_entry_runs_or_says_what_is_missing() {
    let musher = Musher::new();
    let script = musher.write(
        "main.ts",
        "const n: number = 1; setInterval(() => n, 1000);\n",
    );
    let strips = Command::new("node")
        .args(["-p", "process.features.typescript ? 'yes' : 'no'"])
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"yes"));
    let ran = musher.run(&["start", script.to_str().expect("a path"), "--name", "typed"]);
    if strips {
        musher.wait_status("typed", 1, "online");
    } else {
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stderr.contains("bun") || ran.stderr.contains("type"),
            "{}",
            ran.stderr
        );
        assert!(musher.list().is_empty());
    }
}
