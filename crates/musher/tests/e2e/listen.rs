//! Sockets musher holds for programs of any runtime: they outlive crashes,
//! restarts, reloads and the daemon, and nothing else.

use crate::harness::{Musher, free_port, get, is_alive, kill, wait_for};
use serde_json::json;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Starts `script` as an app called `held` with these attributes too.
fn start(musher: &Musher, script: &str, more: &serde_json::Value) {
    let mut app = json!({ "name": "held", "script": Musher::app(script), "exec_mode": "fork",
        "kill_signal": "SIGTERM", "kill_timeout": 8000, "min_uptime": 100 });
    let more = more.as_object().expect("an object").clone();
    app.as_object_mut().expect("an object").extend(more);
    musher.start(&format!("module.exports = {{ apps: [{app}] }};"));
}

/// Waits until the app answers, and returns the pid that does.
fn answering(musher: &Musher, port: u16) -> i64 {
    musher.wait("an answer", || get(port, "/").ok()?.parse().ok())
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Clients with a connection for every request, until dropped.
struct Load {
    is_over: Arc<AtomicBool>,
    n_answered: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(port: u16) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let n_answered = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (is_over, n_answered) = (Arc::clone(&is_over), Arc::clone(&n_answered));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    match get(port, "/") {
                        Ok(_) => drop(n_answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error.to_string()),
                    }
                    // The machine is shared with other tests.
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                failures
            })
        };
        let clients = vec![client(), client()];
        Load {
            is_over,
            n_answered,
            clients,
        }
    }

    /// Returns how many were answered and what went wrong.
    fn end(self) -> (usize, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let failures = clients.flat_map(|client| client.join().expect("a client"));
        let failures = failures.collect();
        (self.n_answered.load(Ordering::Relaxed), failures)
    }
}

fn reload_under_load(script: &str, n_reloads: usize) {
    let musher = Musher::new();
    let port = free_port();
    start(&musher, script, &json!({ "listen": [port] }));
    let mut serving = answering(&musher, port);
    let load = Load::on(port);
    for _ in 0..n_reloads {
        musher.ok(&["reload", "held"]);
        assert!(!is_alive(serving), "the predecessor has left");
        let successor = musher.pids("held");
        assert_ne!(successor, [serving]);
        serving = successor[0];
    }
    let (n_answered, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {n_answered}");
    assert!(n_answered > n_reloads, "{n_answered} requests");
    assert_eq!(answering(&musher, port), serving);
}

#[test]
fn twenty_reloads_of_a_python_server_fail_no_connection() {
    reload_under_load("held.py", 20);
}

#[test]
fn reloads_of_pythons_own_http_server_fail_no_connection() {
    reload_under_load("held_http.py", 5);
}

#[test]
fn node_outside_of_cluster_mode_listens_on_a_descriptor_and_keeps_its_channel() {
    let musher = Musher::new();
    let port = free_port();
    let more = json!({ "listen": [format!("127.0.0.1:{port}")], "wait_ready": true,
        "kill_signal": "SIGINT" });
    start(&musher, "held.js", &more);
    // Online means that 'ready' came, over a channel that is not descriptor 3.
    musher.wait_status("held", 1, "online");
    assert_eq!(musher.wait_facts("held", "up", 1)[0]["fds"], "1");
    let before = answering(&musher, port);
    let load = Load::on(port);
    for _ in 0..3 {
        musher.ok(&["reload", "held"]);
    }
    let (n_answered, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {n_answered}");
    assert_ne!(answering(&musher, port), before);
}

#[test]
fn a_program_is_given_its_sockets_in_order_with_names_and_waiting() {
    let musher = Musher::new();
    let (port, path) = (free_port(), musher.cwd().join("held.sock"));
    let unix = format!("unix:{}", path.to_str().expect("a path"));
    let listen = json!([port, { "name": "admin", "address": unix }]);
    start(&musher, "held.py", &json!({ "listen": listen }));
    let fact = &musher.wait_facts("held", "up", 1)[0];
    assert_eq!(fact["names"], json!(["unknown", "admin"]));
    assert_eq!(fact["mine"], true, "LISTEN_PID is the program's own pid");
    assert_eq!(fact["waits"], json!([true, true]), "as systemd passes them");
    assert_eq!(fact["channel"], "5");
    let pid = answering(&musher, port);
    assert_eq!(musher.pids("held"), [pid]);
    UnixStream::connect(&path).expect("the second socket");
    musher.ok(&["stop", "held"]);
    assert!(!path.exists(), "the file goes with the app");
}

#[test]
fn the_port_stays_open_through_crash_and_restart_and_closes_with_the_last_stop() {
    let musher = Musher::new();
    let port = free_port();
    start(
        &musher,
        "held.py",
        &json!({ "listen": [port], "instances": 2, "restart_delay": 600 }),
    );
    answering(&musher, port);
    let pids = musher.pids("held");
    assert_eq!(pids.len(), 2, "instances share the socket");
    for pid in &pids {
        kill(*pid, "KILL");
    }
    let gone = || (!pids.iter().any(|pid| is_alive(*pid))).then_some(());
    musher.wait("their death", gone);
    // Nobody runs, and a client waits instead of being refused.
    assert!(is_open(port));
    assert!(!pids.contains(&answering(&musher, port)));
    musher.wait_status("held", 2, "online");
    let load = Load::on(port);
    musher.ok(&["restart", "held"]);
    let (_, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new());
    musher.ok(&["stop", "0"]);
    assert!(is_open(port), "one is left");
    musher.ok(&["stop", "1"]);
    assert!(!is_open(port));
    musher.ok(&["start", "0"]);
    answering(&musher, port);
    musher.ok(&["delete", "held"]);
    assert!(!is_open(port));
}

#[test]
fn a_later_daemon_holds_the_same_socket() {
    let musher = Musher::new();
    let port = free_port();
    start(
        &musher,
        "held.py",
        &json!({ "listen": [port], "restart_delay": 500 }),
    );
    let pid = answering(&musher, port);
    let load = Load::on(port);
    musher.kill_daemon();
    let (_, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new());
    // Held by the daemon and not by the app alone.
    kill(pid, "KILL");
    musher.wait("its death", || (!is_alive(pid)).then_some(()));
    assert!(is_open(port));
    assert_ne!(answering(&musher, port), pid);
    musher.wait_status("held", 1, "online");
    musher.ok(&["reload", "held"]);
    musher.ok(&["stop", "held"]);
    assert!(!is_open(port));
    // And what is closed is not taken back.
    musher.kill_daemon();
    assert!(!is_open(port));
}

#[test]
fn another_keeper_is_given_the_sockets_too() {
    let musher = Musher::new();
    let port = free_port();
    start(
        &musher,
        "held.py",
        &json!({ "listen": [port], "restart_delay": 500 }),
    );
    let pid = answering(&musher, port);
    let log = || std::fs::read_to_string(musher.home().join("pm2.log")).unwrap_or_default();
    kill(parent(musher.daemon_pid()), "KILL");
    musher.wait("another keeper", || {
        log()
            .contains("another keeper holds everything again")
            .then_some(())
    });
    musher.kill_daemon();
    kill(pid, "KILL");
    musher.wait("its death", || (!is_alive(pid)).then_some(()));
    assert!(is_open(port));
    assert_ne!(answering(&musher, port), pid);
}

fn parent(pid: i32) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let rest = stat.rsplit(')').next().expect("its fields");
    let ppid = rest.split_whitespace().nth(1).expect("its parent");
    ppid.parse().expect("a pid")
}

#[test]
fn an_address_in_use_is_told_with_its_owner() {
    let musher = Musher::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let config = format!(
        "module.exports = {{ apps: [{{ name: 'held', script: {:?}, listen: ['127.0.0.1:{port}'] }}] }};",
        Musher::app("held.py")
    );
    let path = musher.write("ecosystem.config.js", &config);
    let ran = musher.run(&["start", path.to_str().expect("a path")]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let owner = std::fs::read_to_string("/proc/self/comm").expect("our name");
    let reason = format!(
        "cannot listen on 127.0.0.1:{port}: address already in use (EADDRINUSE): {} has it (pid {})",
        owner.trim_end(),
        std::process::id()
    );
    assert!(
        format!("{}{}", ran.stdout, ran.stderr).contains(&reason),
        "{}",
        ran.stderr
    );
    assert_eq!(musher.of("held")[0]["pm2_env"]["status"], "errored");
    drop(taken);
    musher.ok(&["restart", "held"]);
    answering(&musher, port);
}

#[test]
fn a_restart_from_a_changed_file_moves_the_socket() {
    let musher = Musher::new();
    let (old, new) = (free_port(), free_port());
    start(&musher, "held.py", &json!({ "listen": [old] }));
    answering(&musher, old);
    start(&musher, "held.py", &json!({ "listen": [new] }));
    answering(&musher, new);
    let closed = wait_for(Duration::from_secs(5), || (!is_open(old)).then_some(()));
    assert!(closed.is_some(), "nobody wants the old port any more");
}

#[test]
fn mistakes_are_told_before_anything_starts() {
    let musher = Musher::new();
    let config = "module.exports = { apps: [\n\
                  { name: 'a', script: 'sleep', args: '9', listen: ['localhost:80'] },\n\
                  { name: 'b', script: 'sleep', args: '9', readiness: { http: '/', perod: 5 } },\n\
                  ] };";
    let path = musher.write("ecosystem.config.js", config);
    let ran = musher.run(&["start", path.to_str().expect("a path")]);
    assert_eq!(ran.code, 1);
    for words in [
        "ecosystem.config.js:2:42: error: apps[0] \"a\": listen[0]: `listen[0]` must be a port",
        "ecosystem.config.js:3:42: error: apps[1] \"b\": readiness.perod: unknown key `readiness.perod` (help: known are `initial_delay`, `period`, `timeout`, `success_threshold`, `failure_threshold`, `http`, `tcp`, `exec`)",
        "readiness.http: `readiness.http` does not say which port to ask",
        "nothing was started (3 errors, 0 warnings)",
    ] {
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.stderr);
    }
}
