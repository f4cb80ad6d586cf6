//! A fake kernel: processes that start, speak, misbehave and die.
//!
//! It knows nothing of policy. Everything it has to say is queued with a time;
//! the world delivers what is due in any order, so that every order in which
//! a real machine may answer is generated.

use crate::generate::Swarm;
use crate::rng::Rng;
use musher_core::app::Place;
use musher_core::app::probe::ProbeKind;
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::{Incarnation, PmId};
use musher_core::supervisor::{
    Action, AppMessage, Channel, Drained, Event, Oom, SpawnFailure, SpawnPlan,
};
use musher_core::time::{Millis, Mono};
use std::collections::{BTreeMap, BTreeSet};

/// One fake process, kept after its death so that late words of it can come.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) pm_id: PmId,
    pub(crate) pid: u32,
    /// The main process lives.
    pub(crate) is_alive: bool,
    /// Descendants live.
    pub(crate) has_tree: bool,
    /// `Exited` or `SpawnFailed` was delivered.
    pub(crate) end_told: bool,
    /// A `Kill` was carried out: `TreeGone` is owed.
    pub(crate) is_watched: bool,
    kills_tree: bool,
    tree_gone_queued: bool,
    exec_fails: bool,
    /// Not even the fork succeeded: there was never a child.
    pub(crate) never_forked: bool,
    /// What its agent does when it is asked to drain.
    drain: Drain,
    /// How often in a hundred its probes fail, by kind.
    ill: [u64; 3],
    /// Answers its probes gave since the world was told to come to rest.
    n_calm_answers: [u32; 3],
    /// How long it takes to obey; `None` ignores all but SIGKILL.
    obeys_after: Option<u64>,
    unkillable_until: Mono,
    tree_outlives: Option<u64>,
}

/// What a worker does when it is asked to drain.
#[derive(Clone, Copy, Debug)]
enum Drain {
    SaysSo(u64),
    Exits(u64),
    Never,
}

/// Answers a probe gives at rest: more than any threshold.
const MOST_CALM_ANSWERS: u32 = 6;

/// What will happen.
#[derive(Debug)]
enum Pending {
    Answer(Incarnation, ProbeKind, bool),
    Deliver(Event),
    Exit(Incarnation, ExitStatus),
    TreeDies(Incarnation),
    Say(Incarnation, AppMessage),
}

#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) fakes: BTreeMap<Incarnation, Fake>,
    queue: Vec<(Mono, Pending)>,
    /// What the link to the apps' directory points to.
    release: u32,
    /// Whether what it points to works.
    is_bad: bool,
}

impl Kernel {
    /// Makes the link point to another release.
    pub(crate) fn flip(&mut self, rng: &mut Rng) {
        self.release += 1;
        self.is_bad = rng.percent(30);
    }

    /// Ends all trouble: what the link points to works.
    pub(crate) fn heal(&mut self) {
        self.is_bad = false;
    }

    /// Returns when the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Mono> {
        self.queue.iter().map(|(at, _)| *at).min()
    }

    /// Returns whether anything of a slot lives, descendants included if the
    /// stop was to take them along.
    pub(crate) fn lives(&self, pm_id: PmId) -> bool {
        self.fakes
            .values()
            .filter(|fake| fake.pm_id == pm_id)
            .any(|fake| fake.is_alive || (fake.is_watched && fake.kills_tree && fake.has_tree))
    }

    /// Lets one thing happen that is due, chosen by chance. Returns what the
    /// supervisor hears of it, if it does, or `None` if nothing was due.
    pub(crate) fn happen(
        &mut self,
        now: Mono,
        rng: &mut Rng,
        swarm: &Swarm,
    ) -> Option<Option<Event>> {
        let due: Vec<usize> = (0..self.queue.len())
            .filter(|index| self.queue[*index].0 <= now)
            .collect();
        if due.is_empty() {
            return None;
        }
        let (_, pending) = self.queue.swap_remove(rng.pick(&due));
        Some(match pending {
            Pending::Deliver(event) => self.deliver(event, now, rng),
            Pending::Exit(run, status) => {
                self.exit(run, status, now, rng);
                None
            }
            Pending::Answer(run, kind, is_late) => self.answer(run, kind, is_late, rng, swarm),
            Pending::TreeDies(run) => {
                if let Some(fake) = self.fakes.get_mut(&run) {
                    fake.has_tree = false;
                }
                self.watch(run, now, rng);
                None
            }
            Pending::Say(run, message) => {
                let is_alive = self.fakes.get(&run).is_some_and(|fake| fake.is_alive);
                (is_alive || swarm.stale).then_some(Event::Message { run, message })
            }
        })
    }

    fn deliver(&mut self, event: Event, now: Mono, rng: &mut Rng) -> Option<Event> {
        if let Event::Exited { run, .. } = &event
            && let Some(fake) = self.fakes.get_mut(run)
        {
            fake.end_told = true;
        }
        if let Event::SpawnFailed { run, .. } = &event {
            let run = *run;
            if let Some(fake) = self.fakes.get_mut(&run) {
                fake.end_told = true;
                fake.is_alive = false;
                fake.has_tree = false;
            }
            self.watch(run, now, rng);
        }
        Some(event)
    }

    fn exit(&mut self, run: Incarnation, status: ExitStatus, now: Mono, rng: &mut Rng) {
        let Some(fake) = self.fakes.get_mut(&run) else {
            return;
        };
        if !fake.is_alive || fake.exec_fails {
            return;
        }
        fake.is_alive = false;
        let is_kept_back = fake.has_tree && fake.tree_outlives.is_some() && !fake.is_watched;
        if let Some(span) = fake.tree_outlives {
            self.queue
                .push((now + Millis(span), Pending::TreeDies(run)));
        } else {
            fake.has_tree = false;
        }
        let mut heard = now + Millis(rng.below(3));
        if is_kept_back && rng.percent(50) {
            let oom = rng.pick(&[None, Some(Oom::Maybe), Some(Oom::Certain)]);
            self.queue
                .push((heard, Pending::Deliver(Event::Died { run, oom })));
            heard = heard + Millis(rng.pick(&[1, 300, 2600]));
        }
        self.queue
            .push((heard, Pending::Deliver(Event::Exited { run, status })));
        self.watch(run, now, rng);
    }

    /// Queues the `TreeGone` that is owed, once.
    fn watch(&mut self, run: Incarnation, now: Mono, rng: &mut Rng) {
        let Some(fake) = self.fakes.get_mut(&run) else {
            return;
        };
        let is_left = fake.is_alive || (fake.kills_tree && fake.has_tree);
        if fake.is_watched && !is_left && !fake.tree_gone_queued {
            fake.tree_gone_queued = true;
            let heard = now + Millis(rng.below(3));
            self.queue
                .push((heard, Pending::Deliver(Event::TreeGone { run })));
        }
    }

    /// A probe's question is answered: by the run, or because it took too long.
    fn answer(
        &mut self,
        run: Incarnation,
        kind: ProbeKind,
        is_late: bool,
        rng: &mut Rng,
        swarm: &Swarm,
    ) -> Option<Event> {
        let fake = self.fakes.get_mut(&run)?;
        if swarm.is_calm {
            let n = &mut fake.n_calm_answers[kind as usize];
            *n += 1;
            if *n > MOST_CALM_ANSWERS {
                return None;
            }
        }
        let is_ill = swarm.ill && rng.percent(fake.ill[kind as usize]);
        let is_well = fake.is_alive && !is_ill && (!is_late || swarm.is_calm);
        let outcome = match is_well {
            true => Ok(()),
            false => Err("no answer".to_owned()),
        };
        Some(Event::Probed { run, kind, outcome })
    }

    fn drain(&mut self, run: Incarnation, now: Mono, rng: &mut Rng) {
        let Some(fake) = self.fakes.get(&run).filter(|fake| fake.is_alive) else {
            return;
        };
        match fake.drain {
            Drain::Never => {}
            Drain::Exits(after) => {
                let exit = Pending::Exit(run, ExitStatus::Code(0));
                self.queue.push((now + Millis(after), exit));
            }
            Drain::SaysSo(after) => {
                let n = if rng.percent(20) { 2 } else { 1 };
                for _ in 0..n {
                    let told = AppMessage::Drained(Drained::default());
                    self.queue
                        .push((now + Millis(after), Pending::Say(run, told)));
                }
            }
        }
    }

    /// Carries out an action.
    pub(crate) fn carry_out(&mut self, action: &Action, now: Mono, rng: &mut Rng, swarm: &Swarm) {
        if let Action::Spawn { run, pm_id, plan } = action {
            self.spawn(*run, *pm_id, plan, now, rng, swarm);
        }
        if let Action::Drain { run, .. } = action {
            self.drain(*run, now, rng);
        }
        if let Action::Probe { run, kind, probe } = action {
            let timeout = probe.timeout.get();
            let is_late = swarm.ill && rng.percent(10);
            let span = match is_late {
                true => timeout,
                false => rng.below(timeout),
            };
            let answer = Pending::Answer(*run, *kind, is_late);
            self.queue.push((now + Millis(span), answer));
        }
        if let Action::Kill { run, signal, tree } = action {
            self.kill(*run, *signal, *tree, now, rng);
        }
        if let Action::AskToShutDown { run } = action {
            self.ask(*run, ExitStatus::Code(0), now);
        }
        if let Action::Signal { run, signal } = action
            && rng.percent(30)
        {
            self.ask(*run, ExitStatus::Signal(*signal), now);
        }
    }

    fn spawn(
        &mut self,
        run: Incarnation,
        pm_id: PmId,
        plan: &SpawnPlan,
        now: Mono,
        rng: &mut Rng,
        swarm: &Swarm,
    ) {
        let exec_fails = swarm.spawn_faults && rng.percent(15);
        let is_bad = self.is_bad && plan.cwd == "/srv";
        let fake = Fake {
            pm_id,
            pid: self.lowest_free_pid(),
            is_alive: true,
            has_tree: swarm.trees && rng.percent(40),
            end_told: false,
            is_watched: false,
            kills_tree: false,
            tree_gone_queued: false,
            exec_fails,
            never_forked: exec_fails && rng.percent(30),
            drain: match rng.below(4) {
                0 => Drain::Never,
                1 => Drain::Exits(rng.below(900)),
                _ => Drain::SaysSo(rng.pick(&[0, 10, 250, 2000])),
            },
            ill: match is_bad {
                true => [100; 3],
                false => [(); 3].map(|()| rng.pick(&[0, 0, 10, 50, 100])),
            },
            n_calm_answers: [0; 3],
            obeys_after: (!(swarm.deaf && rng.percent(40))).then(|| rng.pick(&[0, 5, 300, 1600])),
            unkillable_until: if swarm.unkillable && rng.percent(25) {
                now + Millis(rng.below(20_000))
            } else {
                now
            },
            tree_outlives: (swarm.trees && rng.percent(60)).then(|| rng.pick(&[1, 200, 9000])),
        };
        let exec = if swarm.slow_exec && rng.percent(30) {
            rng.below(5000)
        } else {
            rng.below(4)
        };
        let exec = if fake.never_forked { 0 } else { exec };
        let told = now + Millis(exec);
        let answer = if exec_fails {
            let kind = rng.pick(&[SpawnFailure::Permanent, SpawnFailure::Transient]);
            let reason = "exec: no".to_owned();
            Event::SpawnFailed { run, reason, kind }
        } else {
            let (pid, version) = (fake.pid, Some(run.to_string()));
            Event::Spawned {
                run,
                pid,
                version,
                place: self.place(plan, swarm, rng),
            }
        };
        self.fakes.insert(run, fake);
        self.queue.push((told, Pending::Deliver(answer)));
        if exec_fails {
            return;
        }
        if is_bad && rng.percent(60) {
            let exit = Pending::Exit(run, ExitStatus::Code(1));
            self.queue.push((told + Millis(10), exit));
        } else if is_bad && rng.percent(50) {
            return;
        }
        self.plan_words(run, plan.channel, told, rng, swarm);
        self.plan_death(run, told, rng, swarm);
    }

    /// Returns where a run really is: behind the link, or where it is pinned to.
    fn place(&self, plan: &SpawnPlan, swarm: &Swarm, rng: &mut Rng) -> Option<Place> {
        let cwd = match plan.cwd == "/srv" {
            true => format!("/srv/{}", self.release),
            false => plan.cwd.clone(),
        };
        let script = plan.script.clone();
        let is_unknown = swarm.stale && rng.percent(5);
        (!is_unknown).then_some(Place { cwd, script })
    }

    fn plan_words(
        &mut self,
        run: Incarnation,
        channel: Channel,
        from: Mono,
        rng: &mut Rng,
        swarm: &Swarm,
    ) {
        let mut words = vec![AppMessage::Ready, AppMessage::NodeVersion(run.to_string())];
        if channel == Channel::Worker {
            words.push(AppMessage::Online);
            words.push(AppMessage::Listening {
                key: "4:3000".to_owned(),
            });
            if rng.percent(20) {
                words.push(AppMessage::Disconnecting);
            }
        }
        if swarm.agents && rng.percent(75) {
            words.push(AppMessage::AgentUp);
        }
        words.push(AppMessage::Action(
            serde_json::json!({"action_name": run.to_string()}),
        ));
        for word in words {
            if swarm.silent && rng.percent(25) {
                continue;
            }
            // Sometimes before `Spawned` is heard of, sometimes long after.
            let at = if swarm.late && rng.percent(30) {
                from + Millis(rng.below(6000))
            } else {
                Mono(from.0.saturating_sub(1)) + Millis(rng.below(30))
            };
            self.queue.push((at, Pending::Say(run, word)));
        }
        if channel == Channel::Worker && swarm.silent && rng.percent(15) {
            let key = "4:3000".to_owned();
            let at = from + Millis(rng.below(6000));
            self.queue.push((
                at,
                Pending::Say(run, AppMessage::Closed { key: key.clone() }),
            ));
            if rng.percent(70) {
                let at = at + Millis(1 + rng.below(3000));
                self.queue
                    .push((at, Pending::Say(run, AppMessage::Listening { key })));
            }
        }
    }

    fn plan_death(&mut self, run: Incarnation, from: Mono, rng: &mut Rng, swarm: &Swarm) {
        if !(swarm.crashes && rng.percent(70)) {
            return;
        }
        let life = rng.pick(&[0, 10, 400, 1500, 7000, 31_000]);
        let status = rng.pick(&[
            ExitStatus::Code(0),
            ExitStatus::Code(1),
            ExitStatus::Signal(Signal(11)),
            ExitStatus::Unknown,
        ]);
        self.queue
            .push((from + Millis(life), Pending::Exit(run, status)));
    }

    fn ask(&mut self, run: Incarnation, status: ExitStatus, now: Mono) {
        if let Some(fake) = self.fakes.get(&run)
            && let Some(grace) = fake.obeys_after
        {
            self.queue
                .push((now + Millis(grace), Pending::Exit(run, status)));
        }
    }

    fn kill(
        &mut self,
        run: Incarnation,
        signal: Option<Signal>,
        tree: bool,
        now: Mono,
        rng: &mut Rng,
    ) {
        let Some(fake) = self.fakes.get_mut(&run) else {
            return;
        };
        fake.is_watched = true;
        // Once its tree was reported gone the rest is nobody's business.
        fake.kills_tree |= tree && !fake.tree_gone_queued;
        if signal == Some(Signal::KILL) {
            let at = fake.unkillable_until.max(now) + Millis(rng.below(5));
            let status = ExitStatus::Signal(Signal::KILL);
            self.queue.push((at, Pending::Exit(run, status)));
            if tree {
                self.queue.push((at, Pending::TreeDies(run)));
            }
        } else if let Some(signal) = signal {
            self.ask(run, ExitStatus::Signal(signal), now);
        }
        self.watch(run, now, rng);
    }

    /// The daemon died. Its successor finds these runs in its store and no
    /// other: what it does not know is killed. Returns the runs that ended
    /// while nobody looked, and how.
    pub(crate) fn bury(
        &mut self,
        known: &[(Incarnation, bool, bool)],
        is_reboot: bool,
        rng: &mut Rng,
    ) -> Vec<(Incarnation, ExitStatus)> {
        let is_known = |run: &Incarnation| known.iter().any(|(known, ..)| known == run);
        self.fakes.retain(|run, _| is_known(run) && !is_reboot);
        let fakes = &self.fakes;
        let lives = |run: &Incarnation| {
            let fake = fakes.get(run);
            fake.is_some_and(|fake| fake.is_alive && !fake.exec_fails)
        };
        self.queue.retain(|(_, pending)| match pending {
            Pending::Deliver(_) | Pending::Answer(..) => false,
            Pending::Exit(run, _) | Pending::TreeDies(run) | Pending::Say(run, _) => lives(run),
        });
        let is_keeper_gone = rng.percent(30);
        let mut ended = Vec::new();
        for (run, is_stopping, kills_tree) in known {
            let Some(fake) = self.fakes.get_mut(run) else {
                continue;
            };
            fake.tree_gone_queued = false;
            if fake.is_alive && !fake.exec_fails {
                fake.end_told = false;
                fake.is_watched = *is_stopping;
                fake.kills_tree = *is_stopping && *kills_tree;
                continue;
            }
            fake.is_alive = false;
            fake.has_tree = false;
            fake.end_told = false;
            fake.is_watched = false;
            let status = match is_keeper_gone || fake.exec_fails {
                true => ExitStatus::Unknown,
                false => rng.pick(&[
                    ExitStatus::Unknown,
                    ExitStatus::Code(0),
                    ExitStatus::Code(1),
                ]),
            };
            ended.push((*run, status));
        }
        ended
    }

    /// The end of a run was told by somebody else than its kernel.
    pub(crate) fn note_end_told(&mut self, run: Incarnation) {
        if let Some(fake) = self.fakes.get_mut(&run) {
            fake.end_told = true;
        }
    }

    /// The smallest pid no living process has: pids are reused all the time.
    fn lowest_free_pid(&self) -> u32 {
        let used: BTreeSet<u32> = self
            .fakes
            .values()
            .filter(|fake| fake.is_alive)
            .map(|fake| fake.pid)
            .collect();
        (100..).find(|pid| !used.contains(pid)).unwrap()
    }
}
