//! What a history is made of: which faults it has, its apps, its requests.

use crate::rng::Rng;
use musher_core::app::probe::{Check, Probe, Probes};
use musher_core::app::{
    AppSpec, ExecMode, OnFailure, ReadyPolicy, ReloadPolicy, RestartPolicy, StopPolicy, Upgraded,
};
use musher_core::exit::Signal;
use musher_core::id::PmId;
use musher_core::supervisor::{Calendar, Changes, Request, RollTo};
use musher_core::time::{Millis, Wall};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Which kinds of trouble a history has. Each seed switches off about half:
/// rare combinations are reached sooner than with everything at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swarm {
    pub(crate) spawn_faults: bool,
    pub(crate) slow_exec: bool,
    pub(crate) crashes: bool,
    pub(crate) deaf: bool,
    pub(crate) unkillable: bool,
    pub(crate) trees: bool,
    pub(crate) silent: bool,
    pub(crate) stale: bool,
    pub(crate) wall_jumps: bool,
    pub(crate) late: bool,
    pub(crate) abandons: bool,
    pub(crate) cron: bool,
    pub(crate) memory: bool,
    pub(crate) delays: bool,
    pub(crate) cluster: bool,
    pub(crate) reloads: bool,
    pub(crate) ending: bool,
    pub(crate) deaths: bool,
    /// A daemon also dies in the middle of a step, before it stored all of it.
    pub(crate) torn: bool,
    pub(crate) reboots: bool,
    pub(crate) agents: bool,
    pub(crate) probes: bool,
    /// Probes fail.
    pub(crate) ill: bool,
    pub(crate) rolls: bool,
    /// The directory behind the app's link changes, now and then to a bad one.
    pub(crate) releases: bool,
    /// The world is to come to rest: probes fall silent once they have said enough.
    pub(crate) is_calm: bool,
    /// Clients ask all the time; else processes are mostly left to themselves.
    pub(crate) busy: bool,
}

impl Swarm {
    pub(crate) fn draw(rng: &mut Rng) -> Swarm {
        Swarm {
            spawn_faults: rng.percent(50),
            slow_exec: rng.percent(50),
            crashes: rng.percent(60),
            deaf: rng.percent(50),
            unkillable: rng.percent(40),
            trees: rng.percent(50),
            silent: rng.percent(50),
            stale: rng.percent(60),
            wall_jumps: rng.percent(40),
            late: rng.percent(50),
            abandons: rng.percent(50),
            cron: rng.percent(40),
            memory: rng.percent(40),
            delays: rng.percent(50),
            cluster: rng.percent(70),
            reloads: rng.percent(60),
            ending: rng.percent(15),
            deaths: rng.percent(40),
            torn: rng.percent(50),
            reboots: rng.percent(20),
            agents: rng.percent(60),
            probes: rng.percent(50),
            ill: rng.percent(60),
            rolls: rng.percent(50),
            releases: rng.percent(60),
            is_calm: false,
            busy: rng.percent(50),
        }
    }

    /// No trouble at all: what liveness is promised for.
    pub(crate) const CALM: Swarm = Swarm {
        spawn_faults: false,
        slow_exec: false,
        crashes: false,
        deaf: false,
        unkillable: false,
        trees: false,
        silent: false,
        stale: false,
        wall_jumps: false,
        late: false,
        abandons: false,
        cron: false,
        memory: false,
        delays: false,
        cluster: true,
        reloads: false,
        ending: false,
        deaths: false,
        torn: false,
        reboots: false,
        agents: true,
        probes: true,
        ill: false,
        rolls: false,
        releases: false,
        is_calm: true,
        busy: false,
    };
}

/// A calendar whose pattern is a period in milliseconds; can be switched off.
pub(crate) struct Periods {
    pub(crate) is_on: Rc<Cell<bool>>,
}

impl Calendar for Periods {
    fn next(&self, pattern: &str, after: Wall) -> Option<Wall> {
        let period: i64 = pattern.parse().ok().filter(|period| *period > 0)?;
        let next = after.0.div_euclid(period).checked_add(1)? * period;
        self.is_on.get().then_some(Wall(next))
    }
}

/// The memory limit of every app that has one, bytes.
pub(crate) const MEMORY_LIMIT: u64 = 1000;

/// Returns a random app.
pub(crate) fn app(rng: &mut Rng, swarm: &Swarm) -> AppSpec {
    let mut spec = crate::support::spec(rng.pick(&["api", "web", "job"]));
    let is_cluster = swarm.cluster && rng.percent(70);
    spec.mode = if is_cluster {
        ExecMode::Cluster
    } else {
        ExecMode::Fork
    };
    spec.n_instances = match swarm.rolls {
        true => rng.pick(&[1, 2, 3, 4]),
        false => rng.pick(&[1, 1, 1, 2, 3]),
    };
    spec.autostart = rng.percent(92);
    spec.restart = RestartPolicy {
        autorestart: rng.percent(85),
        min_uptime: Millis(rng.pick(&[1000, 1000, 0, 5000])),
        max_restarts: rng.pick(&[16, 3, 2, 1, 0]),
        restart_delay: (swarm.delays && rng.percent(40)).then_some(Millis(500)),
        exp_backoff: (swarm.delays && rng.percent(40))
            .then(|| Millis(rng.pick(&[100, 14_000, 14_000]))),
        stop_exit_codes: if rng.percent(20) { vec![0] } else { Vec::new() },
    };
    spec.stop = StopPolicy {
        signal: rng.pick(&[Signal::INT, Signal::TERM]),
        with_message: rng.percent(20),
        kill_timeout: Millis(rng.pick(&[1600, 1600, 100, 0])),
        treekill: rng.percent(80),
    };
    spec.ready = ReadyPolicy {
        wait_ready: rng.percent(30),
        listen_timeout: Millis(rng.pick(&[3000, 200])),
    };
    if swarm.cron && rng.percent(50) {
        spec.cron_restart = Some(rng.pick(&["2000", "60000", "broken"]).to_owned());
    }
    if swarm.memory && rng.percent(70) {
        spec.max_memory_bytes = Some(MEMORY_LIMIT);
    }
    if swarm.probes {
        let mut some = |chance| rng.percent(chance).then(|| probe(rng));
        spec.probes = Probes {
            startup: some(30),
            readiness: some(50),
            liveness: some(50),
        };
        let once = [&mut spec.probes.startup, &mut spec.probes.liveness];
        for probe in once.into_iter().flatten() {
            probe.success_threshold = 1;
        }
    }
    spec.reload = ReloadPolicy {
        parallel: rng.pick(&[1, 1, 2, 3]),
        min_ready: Millis(rng.pick(&[0, 0, 500, 4000])),
        on_failure: rng.pick(&[OnFailure::Abort, OnFailure::Rollback]),
        drain: Millis(rng.pick(&[0, 300, 30_000, 30_000])),
        websockets: Upgraded::Wait,
    };
    spec.declared = Arc::new(declared(&spec, rng.percent(30)));
    spec
}

fn probe(rng: &mut Rng) -> Probe {
    Probe {
        check: Check::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 1,
        },
        initial_delay: Millis(rng.pick(&[0, 50, 2000])),
        period: Millis(rng.pick(&[1000, 5000, 10_000])),
        timeout: Millis(rng.pick(&[100, 1000])),
        success_threshold: rng.pick(&[1, 1, 2]),
        failure_threshold: rng.pick(&[1, 3]),
    }
}

/// Returns the description of an app: what a change of it is applied to.
fn declared(spec: &AppSpec, has_listen_timeout: bool) -> Map<String, Value> {
    let restart = &spec.restart;
    let mut declared = Map::new();
    let mut put = |key: &str, value: Value| declared.insert(key.to_owned(), value);
    put("name", json!(spec.name));
    put("namespace", json!(spec.namespace));
    put("pm_exec_path", json!(spec.script));
    put("pm_cwd", json!(spec.cwd));
    put("exec_mode", json!(spec.mode.pm2_name()));
    put("autorestart", json!(restart.autorestart));
    put("min_uptime", json!(restart.min_uptime.get()));
    put("max_restarts", json!(restart.max_restarts));
    put("stop_exit_codes", json!(restart.stop_exit_codes));
    put("kill_timeout", json!(spec.stop.kill_timeout.get()));
    put("treekill", json!(spec.stop.treekill));
    put("wait_ready", json!(spec.ready.wait_ready));
    if let Some(delay) = restart.restart_delay {
        put("restart_delay", json!(delay.get()));
    }
    if let Some(delay) = restart.exp_backoff {
        put("exp_backoff_restart_delay", json!(delay.get()));
    }
    if let Some(pattern) = &spec.cron_restart {
        put("cron_restart", json!(pattern));
    }
    if let Some(limit) = spec.max_memory_bytes {
        put("max_memory_restart", json!(limit));
    }
    let reload = &spec.reload;
    let on_failure = match reload.on_failure {
        OnFailure::Abort => "abort",
        OnFailure::Rollback => "rollback",
    };
    put(
        "reload",
        json!({
            "parallel": reload.parallel,
            "min_ready": reload.min_ready.get(),
            "on_failure": on_failure,
            "drain": reload.drain.get(),
        }),
    );
    if has_listen_timeout {
        put("listen_timeout", json!(spec.ready.listen_timeout.get()));
    }
    declared
}

/// Returns a random request; now and then about a slot that does not exist.
pub(crate) fn request(rng: &mut Rng, swarm: &Swarm, ids: &[PmId]) -> Request {
    let id = if ids.is_empty() || rng.percent(5) {
        PmId(u32::try_from(rng.below(12)).unwrap())
    } else {
        rng.pick(ids)
    };
    let is_crowded = ids.len() >= 5;
    if ids.is_empty() || (!is_crowded && rng.percent(20)) {
        return Request::Start {
            spec: Box::new(app(rng, swarm)),
            register_only: rng.percent(8),
        };
    }
    if swarm.rolls && rng.percent(45) {
        return roll(rng, ids);
    }
    if swarm.rolls && rng.percent(20) {
        return Request::Retire(id);
    }
    if swarm.reloads && rng.percent(60) {
        return Request::Reload(id, changes(rng));
    }
    if swarm.ending && rng.percent(4) {
        return Request::PrepareShutdown;
    }
    match rng.below(20) {
        0..=4 => Request::Stop(id),
        5..=7 => Request::StartProcess(id),
        8..=11 => Request::Restart(id, changes(rng)),
        12..=13 => Request::Reload(id, changes(rng)),
        14..=15 => Request::Delete(id),
        16 => Request::Duplicate(id),
        17 => Request::ResetMeta(id),
        18 => Request::Signal(id, rng.pick(&[Signal::TERM, Signal(10)])),
        _ => Request::SetMonitored(id, rng.percent(50)),
    }
}

/// Returns a roll over most slots, now and then over one that does not exist or
/// over one named twice.
fn roll(rng: &mut Rng, ids: &[PmId]) -> Request {
    let mut targets = ids.to_vec();
    targets.retain(|_| rng.percent(85));
    if rng.percent(8) {
        targets.push(rng.pick(ids));
    }
    if rng.percent(2) {
        targets.push(PmId(77));
    }
    let to = match rng.below(10) {
        0..=5 => RollTo::Changed(Changes::default()),
        6..=7 => RollTo::Changed(changes(rng)),
        _ => RollTo::Previous,
    };
    let parallel = rng.percent(30).then(|| rng.pick(&[1, 2, 3]));
    Request::Roll {
        targets,
        to,
        parallel,
    }
}

fn changes(rng: &mut Rng) -> Changes {
    let mut changes = Changes::default();
    if rng.percent(40) {
        let value = json!(rng.below(100).to_string());
        changes.env.insert("VERSION".to_owned(), value);
    }
    if rng.percent(15) {
        let pattern = if rng.percent(50) {
            json!("2000")
        } else {
            Value::Null
        };
        let cron = "cron_restart".to_owned();
        changes.attributes.insert(cron, pattern);
    }
    changes
}
