//! A process of the supervisor and its stored record, one into the other.
//!
//! The only place that knows both. What a record does not hold (deadlines of
//! phases) starts over in the new daemon, on the safe side: later, never sooner.

use super::children::Children;
use musher_core::app::{AppSpec, ExecMode, Place, description};
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::{Incarnation, PmId};
use musher_core::supervisor::health::Health;
use musher_core::supervisor::lifecycle::WORKER_ONLINE_BOUND;
use musher_core::supervisor::process::{Process, Rest, Revision, Second, Want};
use musher_core::supervisor::reload::{DEFAULT_PROOF, proof_patience};
use musher_core::supervisor::restart::History;
use musher_core::supervisor::run::{Phase, Run, Rung, Said, Stopping};
use musher_core::time::{Millis, Mono, Now, Wall};
use musher_core::view::Axm;
use musher_core::wire::state::{
    SavedApp, SavedAxm, SavedExit, SavedIdle, SavedPhase, SavedPlace, SavedProcess, SavedRevision,
    SavedRole, SavedRun, SavedWant,
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Returns the record of a process. Runs the kernel no longer has are left out.
pub(crate) fn save(p: &Process, children: &Children, boot_id: &str, now: Now) -> SavedProcess {
    let SavedApp { description, env } = save_app(&p.spec);
    let mut runs = Vec::new();
    let places = [
        (p.serving.as_ref(), SavedRole::Current),
        (
            p.second.as_ref().map(Second::run),
            second_role(p.second.as_ref()),
        ),
    ];
    for (run, role) in places {
        if let Some(run) = run {
            runs.extend(save_run(run, role, children, boot_id));
        }
    }
    SavedProcess {
        pm_id: p.pm_id.0,
        description,
        env,
        instance: p.instance,
        increment: p.increment,
        unique_id: p.spec.unique_id.clone(),
        want: match p.want {
            Want::Up => SavedWant::Up,
            Want::Down => SavedWant::Down,
            Want::Gone => SavedWant::Gone,
        },
        idle: save_rest(p, children, now),
        reason: p.reason.clone(),
        announced: p.announced,
        restart_time: p.history.restart_time,
        unstable_restarts: p.history.unstable_restarts,
        created_at: p.history.created.map(|(_, wall)| wall.0),
        pm_uptime: p.history.started_at.0,
        prev_restart_delay: p.history.prev_delay.map(Millis::get),
        last_exit: p.history.last_exit.map(|status| match status {
            ExitStatus::Code(code) => SavedExit::Code(code),
            ExitStatus::Signal(signal) => SavedExit::Signal(signal.0),
            ExitStatus::Unknown => SavedExit::Unknown,
        }),
        monitored: p.monitored,
        axm: SavedAxm {
            actions: p.facts.axm.actions.clone(),
            monitor: p.facts.axm.monitor.clone(),
            options: p.facts.axm.options.clone(),
        },
        version: p.facts.version.clone(),
        node_version: p.facts.node_version.clone(),
        runs,
        keys: p.keys.iter().cloned().collect(),
        revision: p.revision.as_ref().map(save_revision),
        previous: p.previous.as_ref().map(save_revision),
        successor: match &p.second {
            Some(Second::Successor { run, .. }) => Some(save_app(&run.spec)),
            Some(Second::Leaving(_)) | None => None,
        },
    }
}

fn save_app(spec: &AppSpec) -> SavedApp {
    let mut description = description::to_description(spec);
    let env = match description.shift_remove("env") {
        Some(Value::Object(env)) => env,
        _ => Map::new(),
    };
    SavedApp { description, env }
}

fn load_app(
    app: &SavedApp,
    unique_id: &str,
    defaults: &description::Defaults,
) -> Result<Arc<AppSpec>, String> {
    let mut attributes = app.description.clone();
    attributes.insert("env".to_owned(), Value::Object(app.env.clone()));
    attributes.insert("unique_id".to_owned(), unique_id.into());
    let spec = description::spec(&attributes, defaults).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.join("; ")
    })?;
    Ok(Arc::new(spec))
}

fn save_revision(revision: &Revision) -> SavedRevision {
    SavedRevision {
        number: revision.number,
        app: save_app(&revision.spec),
        place: revision.place.as_ref().map(save_place),
    }
}

/// Returns a release of a record; one this musher does not accept is no release
/// to go back to.
fn load_revision(
    saved: &SavedRevision,
    unique_id: &str,
    defaults: &description::Defaults,
) -> Option<Revision> {
    Some(Revision {
        number: saved.number,
        spec: load_app(&saved.app, unique_id, defaults).ok()?,
        place: saved.place.as_ref().map(load_place),
    })
}

fn save_place(place: &Place) -> SavedPlace {
    SavedPlace {
        cwd: place.cwd.clone(),
        script: place.script.clone(),
    }
}

fn load_place(place: &SavedPlace) -> Place {
    Place {
        cwd: place.cwd.clone(),
        script: place.script.clone(),
    }
}

const fn second_role(second: Option<&Second>) -> SavedRole {
    match second {
        Some(Second::Successor { .. }) => SavedRole::Successor,
        Some(Second::Leaving(_)) | None => SavedRole::Predecessor,
    }
}

fn save_rest(p: &Process, children: &Children, now: Now) -> SavedIdle {
    let reason = p.reason.clone().unwrap_or_default();
    let serving = p.serving.as_ref();
    // A run that was not forked: that it failed is yet to be told.
    let is_stillborn = serving.is_some_and(|run| children.get(run.id).is_none());
    match p.rest {
        Rest::Stopped if is_stillborn && p.want == Want::Up => SavedIdle::Due,
        Rest::Due => SavedIdle::Due,
        Rest::Stopped => SavedIdle::Stopped,
        Rest::Errored => SavedIdle::Errored { reason },
        Rest::Waiting { until } => {
            let wait = i64::try_from(until.since(now.mono).get()).unwrap_or(i64::MAX);
            SavedIdle::Waiting {
                due: now.wall.0.saturating_add(wait),
                reason,
            }
        }
    }
}

fn save_run(run: &Run, role: SavedRole, children: &Children, boot_id: &str) -> Option<SavedRun> {
    let child = children.get(run.id)?;
    Some(SavedRun {
        incarnation: run.id.0,
        pid: child.pid,
        start_time: child.start_time,
        boot_id: boot_id.to_owned(),
        phase: match run.phase {
            Phase::Spawning | Phase::Launching { .. } => SavedPhase::Launching,
            Phase::Online { .. } => SavedPhase::Online,
            Phase::Stopping(_) => SavedPhase::Stopping,
        },
        role,
        started: run.started.0,
        listening: run.said.listening.iter().cloned().collect(),
        ready: run.said.ready,
        agent: run.said.agent,
        place: run.place.as_ref().map(save_place),
        draining_until: match &run.phase {
            Phase::Stopping(stopping) => match stopping.rung {
                Rung::Draining { ask_at } => Some(ask_at.0),
                Rung::Asked { .. } | Rung::Killed { .. } | Rung::Stuck => None,
            },
            Phase::Spawning | Phase::Launching { .. } | Phase::Online { .. } => None,
        },
    })
}

/// Returns the process of a record, with the runs that `is_alive` vouches for.
///
/// # Errors
/// A description this musher does not accept, in words.
pub(crate) fn load(
    saved: &SavedProcess,
    defaults: &description::Defaults,
    now: Now,
    is_alive: &mut dyn FnMut(&SavedRun) -> bool,
) -> Result<Process, String> {
    let app = SavedApp {
        description: saved.description.clone(),
        env: saved.env.clone(),
    };
    let unique_id = &saved.unique_id;
    let spec = load_app(&app, unique_id, defaults)?;
    let successor = saved.successor.as_ref();
    let successor = successor.and_then(|app| load_app(app, unique_id, defaults).ok());
    let mut p = Process::new(
        PmId(saved.pm_id),
        Arc::clone(&spec),
        saved.instance,
        saved.increment,
    );
    p.want = match saved.want {
        SavedWant::Up => Want::Up,
        SavedWant::Down => Want::Down,
        SavedWant::Gone => Want::Gone,
    };
    p.rest = load_rest(&saved.idle, now);
    p.history = load_history(saved, now);
    p.reason.clone_from(&saved.reason);
    p.announced = saved.announced;
    p.monitored = saved.monitored;
    p.facts.axm = Axm {
        actions: saved.axm.actions.clone(),
        monitor: saved.axm.monitor.clone(),
        options: saved.axm.options.clone(),
    };
    p.facts.version.clone_from(&saved.version);
    p.facts.node_version.clone_from(&saved.node_version);
    p.keys = saved.keys.iter().cloned().collect();
    let revision = |saved: &Option<SavedRevision>| {
        let saved = saved.as_ref()?;
        load_revision(saved, unique_id, defaults)
    };
    p.revision = revision(&saved.revision);
    p.previous = revision(&saved.previous);
    for saved_run in &saved.runs {
        let spec = match (saved_run.role, &successor) {
            (SavedRole::Successor, Some(spec)) => spec,
            (SavedRole::Successor | SavedRole::Current | SavedRole::Predecessor, _) => &spec,
        };
        if is_alive(saved_run) {
            place(&mut p, saved_run, spec, now);
        }
    }
    Ok(p)
}

fn load_rest(idle: &SavedIdle, now: Now) -> Rest {
    match idle {
        SavedIdle::Due => Rest::Due,
        SavedIdle::Stopped => Rest::Stopped,
        SavedIdle::Errored { .. } => Rest::Errored,
        SavedIdle::Waiting { due, .. } => Rest::Waiting {
            until: now.mono + Wall(*due).since(now.wall),
        },
    }
}

fn load_history(saved: &SavedProcess, now: Now) -> History {
    let mono_of = |wall: i64| now.mono - now.wall.since(Wall(wall));
    History {
        restart_time: saved.restart_time,
        unstable_restarts: saved.unstable_restarts,
        created: saved.created_at.map(|at| (mono_of(at), Wall(at))),
        started_at: Wall(saved.pm_uptime),
        prev_delay: saved.prev_restart_delay.map(Millis),
        last_exit: saved.last_exit.map(|exit| match exit {
            SavedExit::Code(code) => ExitStatus::Code(code),
            SavedExit::Signal(signal) => ExitStatus::Signal(Signal(signal)),
            SavedExit::Unknown => ExitStatus::Unknown,
        }),
    }
}

fn place(p: &mut Process, saved: &SavedRun, spec: &Arc<AppSpec>, now: Now) {
    let mut run = Run::new(
        Incarnation(saved.incarnation),
        Arc::clone(spec),
        Mono(saved.started),
    );
    run.pid = Some(saved.pid);
    run.said = Said {
        // A worker says it once, and the daemon that died may have read it.
        online: saved.phase == SavedPhase::Online || saved.role == SavedRole::Current,
        ready: saved.ready,
        agent: saved.agent,
        listening: saved.listening.iter().cloned().collect(),
    };
    run.place = saved.place.as_ref().map(load_place);
    run.phase = load_phase(saved, spec, now);
    run.health = match (&run.phase, saved.role) {
        // It was well when the daemon died, as far as anybody knew.
        (Phase::Online { .. }, SavedRole::Current) => Health::resume(&spec.probes, now.mono),
        _ => Health::begin(&spec.probes, now.mono),
    };
    match saved.role {
        SavedRole::Current => p.serving = Some(run),
        SavedRole::Successor => {
            p.second = Some(Second::Successor {
                run,
                prove_by: now.mono + DEFAULT_PROOF,
                proven: None,
                started_at: Wall(now.wall.0 - span_since(saved.started, now)),
                facts: Box::default(),
            });
        }
        SavedRole::Predecessor => p.second = Some(Second::Leaving(run)),
    }
}

fn span_since(started: u64, now: Now) -> i64 {
    i64::try_from(now.mono.since(Mono(started)).get()).unwrap_or(i64::MAX)
}

fn load_phase(saved: &SavedRun, spec: &AppSpec, now: Now) -> Phase {
    let online = Phase::Online {
        since: Mono(saved.started),
    };
    match saved.phase {
        SavedPhase::Online => online,
        SavedPhase::Launching if spec.ready.wait_ready => Phase::Launching {
            ready_by: now.mono + spec.ready.listen_timeout,
        },
        SavedPhase::Launching
            if spec.probes.startup.is_some() || spec.probes.readiness.is_some() =>
        {
            Phase::Launching {
                ready_by: now.mono + proof_patience(spec),
            }
        }
        SavedPhase::Launching => match (spec.mode, saved.role) {
            // One that serves is not waited for.
            (ExecMode::Fork, _) | (ExecMode::Cluster, SavedRole::Current) => online,
            (ExecMode::Cluster, SavedRole::Successor | SavedRole::Predecessor) => {
                Phase::Launching {
                    ready_by: now.mono + WORKER_ONLINE_BOUND,
                }
            }
        },
        SavedPhase::Stopping => Phase::Stopping(Stopping {
            rung: match saved.draining_until {
                Some(ask_at) => Rung::Draining {
                    ask_at: Mono(ask_at),
                },
                None => Rung::Asked {
                    kill_at: now.mono + spec.stop.kill_timeout,
                },
            },
            exited: None,
            tree_gone: false,
        }),
    }
}
