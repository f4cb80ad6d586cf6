//! What a daemon's death leaves: the records of its processes, as the daemon's
//! store holds them, and the processes another daemon makes of them.
//!
//! Mirrors `persist` and `takeover` of the daemon: a record holds no deadline
//! but a drain's, no waiting request, nothing a probe told, and no run without
//! a process.

use crate::kernel::Kernel;
use crate::rng::Rng;
use musher_core::app::{AppSpec, ExecMode};
use musher_core::id::{Incarnation, PmId};
use musher_core::supervisor::health::Health;
use musher_core::supervisor::lifecycle::WORKER_ONLINE_BOUND;
use musher_core::supervisor::process::{Process, Rest, Second, Want};
use musher_core::supervisor::reload::{DEFAULT_PROOF, proof_patience};
use musher_core::supervisor::restore;
use musher_core::supervisor::run::{Phase, Run, Rung, Stopping};
use musher_core::time::{Millis, Mono, Now, Wall};
use std::collections::BTreeMap;

/// One record.
#[derive(Clone, Debug)]
struct Saved {
    process: Process,
    at: Now,
    last_run: Incarnation,
    boot: u32,
}

/// The records that are written, and what the writer has still to write.
#[derive(Default)]
pub(crate) struct Store {
    written: BTreeMap<PmId, Saved>,
    last_run: u64,
    /// Which boot of the machine it is.
    boot: u32,
    pending: Vec<(PmId, Option<Saved>)>,
}

impl Store {
    /// Hands a record over to the writer.
    pub(crate) fn save(&mut self, p: &Process, kernel: &Kernel, last_run: Incarnation, at: Now) {
        let mut process = p.clone();
        let is_child = |run: &Run| {
            let fake = kernel.fakes.get(&run.id);
            fake.is_some_and(|fake| !fake.never_forked)
        };
        let had_run = process.serving.is_some();
        process.serving.take_if(|run| !is_child(run));
        process.second.take_if(|second| !is_child(second.run()));
        if had_run && process.serving.is_none() && process.want == Want::Up {
            process.rest = Rest::Due;
        }
        process.waiters.clear();
        process.replacement = None;
        let saved = Saved {
            process,
            at,
            last_run,
            boot: self.boot,
        };
        self.pending.push((p.pm_id, Some(saved)));
    }

    /// Tells the writer to forget a record.
    pub(crate) fn erase(&mut self, id: PmId) {
        self.pending.push((id, None));
    }

    /// The writer writes what it was handed first.
    pub(crate) fn write(&mut self, n: usize) {
        let n = n.min(self.pending.len());
        for (id, saved) in self.pending.drain(..n) {
            match saved {
                Some(saved) => {
                    self.last_run = self.last_run.max(saved.last_run.0);
                    self.written.insert(id, saved);
                }
                None => drop(self.written.remove(&id)),
            }
        }
    }

    /// The machine is started anew.
    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
    }

    pub(crate) fn n_pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the processes of another daemon, and the highest run it knows of.
    pub(crate) fn load(&mut self, now: Now, rng: &mut Rng) -> (Vec<Process>, Incarnation) {
        let n = rng.below(self.pending.len() as u64 + 1);
        self.write(usize::try_from(n).unwrap());
        self.pending.clear();
        let boot = self.boot;
        let processes = self.written.values().map(|saved| {
            let mut p = load(saved, now);
            if saved.boot != boot {
                restore::after_reboot(&mut p);
            }
            p
        });
        (processes.collect(), Incarnation(self.last_run))
    }
}

fn load(saved: &Saved, now: Now) -> Process {
    let mut p = saved.process.clone();
    let wall_of = |at: Mono| {
        let wait = i64::try_from(at.since(saved.at.mono).get()).unwrap();
        Wall(saved.at.wall.0 + wait)
    };
    if let Rest::Waiting { until } = p.rest {
        let wait = wall_of(until).since(now.wall);
        p.rest = Rest::Waiting {
            until: now.mono + wait,
        };
    }
    if let Some((created, at)) = &mut p.history.created {
        *created = now.mono - now.wall.since(*at);
    }
    // A run without a record of its own app is taken as one of what serves.
    let spec = p.spec.clone();
    let of_slot = |run: Run| Run {
        spec: spec.clone(),
        ..run
    };
    p.serving = p.serving.map(|run| load_run(of_slot(run), true, now));
    p.second = p.second.map(|second| match second {
        Second::Leaving(run) => Second::Leaving(load_run(of_slot(run), false, now)),
        Second::Successor { run, .. } => {
            let age = i64::try_from(now.mono.since(run.started).get()).unwrap();
            Second::Successor {
                run: load_run(run, false, now),
                prove_by: now.mono + DEFAULT_PROOF,
                proven: None,
                started_at: Wall(now.wall.0 - age),
                facts: Box::default(),
            }
        }
    });
    p
}

fn load_run(run: Run, serves: bool, now: Now) -> Run {
    let mut loaded = Run::new(run.id, run.spec.clone(), run.started);
    loaded.pid = run.pid;
    loaded.place = run.place;
    loaded.said = run.said;
    // A worker says `online` once; one that serves is not waited for.
    loaded.said.online = serves || matches!(run.phase, Phase::Online { .. });
    loaded.phase = load_phase(&run.phase, &run.spec, serves, run.started, now);
    let probes = &run.spec.probes;
    loaded.health = match loaded.phase {
        Phase::Online { .. } if serves => Health::resume(probes, now.mono),
        _ => Health::begin(probes, now.mono),
    };
    loaded
}

fn load_phase(saved: &Phase, spec: &AppSpec, serves: bool, started: Mono, now: Now) -> Phase {
    let online = Phase::Online { since: started };
    let by = |patience: Millis| Phase::Launching {
        ready_by: now.mono + patience,
    };
    let has_probes = spec.probes.startup.is_some() || spec.probes.readiness.is_some();
    match saved {
        Phase::Online { .. } => online,
        Phase::Spawning | Phase::Launching { .. } if spec.ready.wait_ready => {
            by(spec.ready.listen_timeout)
        }
        Phase::Spawning | Phase::Launching { .. } if has_probes => by(proof_patience(spec)),
        Phase::Spawning | Phase::Launching { .. } => match (spec.mode, serves) {
            (ExecMode::Fork, _) | (ExecMode::Cluster, true) => online,
            (ExecMode::Cluster, false) => by(WORKER_ONLINE_BOUND),
        },
        Phase::Stopping(stopping) => Phase::Stopping(Stopping {
            rung: match stopping.rung {
                Rung::Draining { ask_at } => Rung::Draining { ask_at },
                Rung::Asked { .. } | Rung::Killed { .. } | Rung::Stuck => Rung::Asked {
                    kill_at: now.mono + spec.stop.kill_timeout,
                },
            },
            exited: None,
            tree_gone: false,
        }),
    }
}
