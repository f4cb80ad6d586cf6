//! Cluster mode: one port, many workers, no client the wiser.

use crate::harness::{Musher, free_port, get, is_alive, kill};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for answers.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(port: u16, extra: &str) -> String {
    let script = Musher::app("http.js");
    format!(
        "module.exports = {{ apps: [{{ name: 'api', script: '{script}', instances: 2, \
         exec_mode: 'cluster', wait_ready: true, env: {{ PORT: {port}, HOST: '127.0.0.1', \
         STAGE: 'dev' }}, env_production: {{ STAGE: 'prod' }}, {extra} }}] }};"
    )
}

/// Returns the pids that answered `n` requests on connections of their own.
fn answering(port: u16, n: usize) -> BTreeSet<i64> {
    (0..n)
        .map(|_| {
            let body = get(port, "/").expect("an answer");
            let body: Value = serde_json::from_str(&body).expect("JSON");
            body["pid"].as_i64().expect("a pid")
        })
        .collect()
}

pub(crate) fn started(mode: &str) -> (Musher, u16) {
    let musher = Musher::new();
    let port = free_port();
    let config = config(port, &format!("balance: '{mode}'"));
    let path = musher.write("ecosystem.config.js", &config);
    musher.ok(&["start", path.to_str().expect("a path")]);
    musher.wait_status("api", 2, "online");
    (musher, port)
}

#[test]
fn every_balance_mode_serves_from_all_workers() {
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        let pids: BTreeSet<i64> = musher.pids("api").into_iter().collect();
        assert_eq!(pids.len(), 2);
        let seen = answering(port, 60);
        assert!(seen.is_subset(&pids), "{mode}: {seen:?} of {pids:?}");
        if mode != "shared" {
            assert_eq!(seen, pids, "{mode} leaves a worker idle");
        }
    }
}

#[test]
fn a_killed_worker_is_replaced_and_the_port_never_closes() {
    let (musher, port) = started("even");
    let before = musher.pids("api");
    kill(before[0], "KILL");
    let after = musher.wait("a replacement", || {
        let list = musher.of("api");
        let pids = musher.pids("api");
        let online = list.iter().all(|p| p["pm2_env"]["status"] == "online");
        (online && pids.len() == 2 && !pids.contains(&before[0])).then_some(pids)
    });
    assert_eq!(after[1], before[1], "the other worker was not touched");
    assert_eq!(musher.of("api")[0]["pm2_env"]["restart_time"], 1);
    assert!(answering(port, 30).is_subset(&after.into_iter().collect()));
}

/// Requests on fresh connections from 4 threads until told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    n_ok: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Requests at the same time.
    pub(crate) const N_CLIENTS: usize = 4;

    pub(crate) fn on(port: u16) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let n_ok = Arc::new(AtomicU64::new(0));
        let threads = (0..Self::N_CLIENTS)
            .map(|_| {
                let (stop, n_ok) = (Arc::clone(&stop), Arc::clone(&n_ok));
                std::thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match get(port, "/") {
                            Ok(_) => {
                                n_ok.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Load {
            stop,
            n_ok,
            threads,
        }
    }

    /// Waits for that many further answers.
    fn more(&self, n: u64) {
        let goal = self.n_ok.load(Ordering::Relaxed) + n;
        let deadline = Instant::now() + PATIENCE;
        while self.n_ok.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < deadline, "hardly any answers");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn n_ok(&self) -> u64 {
        self.n_ok.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a thread"))
            .collect();
        (self.n_ok.load(Ordering::Relaxed), failures)
    }
}

#[test]
fn a_reload_under_load_fails_no_request_in_any_mode() {
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        let before: BTreeSet<i64> = musher.pids("api").into_iter().collect();
        let load = Load::on(port);
        for _ in 0..3 {
            musher.ok(&["reload", "api"]);
        }
        let (n_ok, failures) = load.end();
        assert!(
            failures.is_empty(),
            "{mode}: {} of {n_ok}: {failures:?}",
            failures.len()
        );
        assert!(n_ok > 50, "{mode}: hardly any load: {n_ok}");
        let after: BTreeSet<i64> = musher.pids("api").into_iter().collect();
        assert!(
            before.is_disjoint(&after),
            "{mode}: every worker is a new one"
        );
        for pid in before {
            assert!(!is_alive(pid), "{mode}: predecessor {pid} is gone");
        }
    }
}

#[test]
fn a_bad_build_never_replaces_a_good_one() {
    let musher = Musher::new();
    let port = free_port();
    let good = std::fs::read_to_string(Musher::app("http.js")).expect("a fixture");
    let script = musher.write("app.js", &good);
    let config = format!(
        "module.exports = {{ apps: [{{ name: 'api', script: '{}', instances: 2, \
         listen_timeout: 2000, env: {{ PORT: {port}, HOST: '127.0.0.1' }} }}] }};",
        script.display()
    );
    let path = musher.write("ecosystem.config.js", &config);
    musher.ok(&["start", path.to_str().expect("a path")]);
    musher.wait_status("api", 2, "online");
    // A worker that does not listen yet asks nothing of its successor.
    for pid in musher.pids("api") {
        musher.wait("both workers listen", || {
            musher.log_has("api", &format!("listening pid={pid}\n"))
        });
    }
    let before = musher.pids("api");
    for bad in [
        "process.exit(3)",
        "setInterval(() => {}, 1000)",
        "throw new Error('broken')",
    ] {
        musher.write("app.js", bad);
        let ran = musher.run(&["reload", "api"]);
        assert_eq!(ran.code, 1, "{bad}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(
            musher.pids("api"),
            before,
            "{bad}: the old workers serve on"
        );
        assert!(get(port, "/").is_ok(), "{bad}");
    }
    musher.write("app.js", &good);
    musher.ok(&["reload", "api"]);
    assert_ne!(musher.pids("api"), before);
}

#[test]
fn scaling_up_and_down_keeps_every_request() {
    let (musher, port) = started("even");
    let load = Load::on(port);
    musher.ok(&["scale", "api", "4"]);
    musher.wait_status("api", 4, "online");
    let ids: Vec<i64> = musher
        .of("api")
        .iter()
        .filter_map(|p| p["pm_id"].as_i64())
        .collect();
    assert_eq!(ids, [0, 1, 2, 3]);
    musher.ok(&["scale", "api", "1"]);
    let left = musher.wait_status("api", 1, "online");
    assert_eq!(left[0]["pm_id"], 3, "the lowest ids leave first");
    let (n_ok, failures) = load.end();
    assert!(
        failures.is_empty(),
        "{} of {n_ok}: {failures:?}",
        failures.len()
    );
}

#[test]
fn scaling_reloading_and_stopping_single_workers_keeps_every_request() {
    for mode in ["even", "shared", "round-robin"] {
        let (musher, port) = started(mode);
        let load = Load::on(port);
        for n in [4, 1, 4, 2] {
            musher.ok(&["scale", "api", &n.to_string()]);
            musher.wait_status("api", n, "online");
            load.more(30);
        }
        let ids: Vec<String> = musher
            .of("api")
            .iter()
            .map(|p| p["pm_id"].to_string())
            .collect();
        // The slots of the two that left are served by musher meanwhile.
        musher.ok(&["reload", &ids[0]]);
        load.more(30);
        musher.ok(&["stop", &ids[0]]);
        load.more(30);
        musher.ok(&["restart", &ids[0]]);
        musher.wait_status("api", 2, "online");
        load.more(30);
        musher.ok(&["restart", "api"]);
        load.more(30);
        let (n_ok, failures) = load.end();
        assert!(
            failures.is_empty(),
            "{mode}: {} of {n_ok}: {failures:?}",
            failures.len()
        );
    }
}

#[test]
fn a_stopped_app_frees_its_port_and_starts_again() {
    let (musher, port) = started("even");
    musher.ok(&["stop", "api"]);
    let stopped = musher.wait_status("api", 2, "stopped");
    assert!(stopped.iter().all(|p| p["pid"] == 0));
    musher.wait("nobody listens", || get(port, "/").err());
    assert!(
        std::net::TcpListener::bind(("127.0.0.1", port)).is_ok(),
        "the port is free"
    );
    musher.ok(&["restart", "api"]);
    musher.wait_status("api", 2, "online");
    assert!(get(port, "/").is_ok());
}

#[test]
fn an_app_that_is_given_up_frees_its_port() {
    let musher = Musher::new();
    let port = free_port();
    let script = musher.write(
        "app.js",
        "require('http').createServer().listen(process.env.PORT, '127.0.0.1', \
         () => setTimeout(() => process.exit(1), 50))",
    );
    let config = format!(
        "module.exports = {{ apps: [{{ name: 'api', script: '{}', instances: 2, \
         max_restarts: 1, env: {{ PORT: {port} }} }}] }};",
        script.display()
    );
    let path = musher.write("ecosystem.config.js", &config);
    musher.ok(&["start", path.to_str().expect("a path")]);
    musher.wait_status("api", 2, "errored");
    musher.wait("a free port", || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    });
}

#[test]
fn the_named_environment_is_applied_and_instances_are_numbered() {
    let musher = Musher::new();
    let port = free_port();
    let path = musher.write("ecosystem.config.js", &config(port, ""));
    musher.ok(&[
        "start",
        path.to_str().expect("a path"),
        "--env",
        "production",
    ]);
    musher.wait_status("api", 2, "online");
    let body: Value = serde_json::from_str(&get(port, "/").expect("an answer")).expect("JSON");
    assert_eq!(body["env"], "prod");
    let instances: Vec<i64> = musher
        .of("api")
        .iter()
        .filter_map(|p| p["pm2_env"]["NODE_APP_INSTANCE"].as_i64())
        .collect();
    assert_eq!(instances, [0, 1]);
}
