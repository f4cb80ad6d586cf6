//! A seeded world: clocks, clients, a fake kernel, and the supervisor in it.

use crate::generate::{self, MEMORY_LIMIT, Periods, Swarm};
use crate::invariants::INVARIANTS;
use crate::kernel::Kernel;
use crate::model::{Model, Processes, Step, run_of, target};
use crate::rng::Rng;
use crate::store::Store;
use crate::support::settings;
use musher_core::exit::Signal;
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::supervisor::Action;
use musher_core::supervisor::{
    Calendar, Event, Outcome as Part, Process, Record, RequestError, Sample, Supervisor,
    process::Rest, process::Want,
};
use musher_core::time::{Millis, Mono, Now, Wall};
use musher_core::view::Status;
use std::cell::Cell;
use std::rc::Rc;

/// How many processes a daemon of this world supervises.
const MOST_PROCESSES: u32 = 8;
/// More turns than a world needs to come to rest.
const MOST_TURNS_TO_REST: u32 = 4000;

/// What takes the decisions: the supervisor, or one with a planted bug.
pub(crate) trait Decider {
    fn step(&mut self, event: Event, now: Now, out: &mut Vec<Action>);
    fn state(&self) -> &Supervisor;
    fn resume(&mut self, now: Now, out: &mut Vec<Action>);
    /// The daemon died; this one goes on.
    fn replace(&mut self, successor: Supervisor);
    fn next_deadline(&self, now: Now) -> Option<Mono> {
        self.state().next_deadline(now)
    }
}

impl Decider for Supervisor {
    fn step(&mut self, event: Event, now: Now, out: &mut Vec<Action>) {
        Supervisor::step(self, event, now, out);
    }
    fn state(&self) -> &Supervisor {
        self
    }
    fn resume(&mut self, now: Now, out: &mut Vec<Action>) {
        Supervisor::resume(self, now, out);
    }
    fn replace(&mut self, successor: Supervisor) {
        *self = successor;
    }
}

/// A rule that was broken.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

type Outcome = Result<(), Broken>;

/// A kind of event in a process's life, and the order it is known by.
type Story = (&'static str, fn(&Action) -> bool);

/// What has to happen in the histories, or their rules prove nothing.
pub(crate) const STORIES: &[Story] = &[
    ("spawn", |a| matches!(a, Action::Spawn { .. })),
    (
        "sigkill",
        |a| matches!(a, Action::Kill { signal, .. } if *signal == Some(Signal::KILL)),
    ),
    ("unkillable", |a| logs(a, "could not be stopped")),
    ("exec failed", |a| logs(a, "exec: no")),
    ("delayed restart", |a| logs(a, "will restart in")),
    ("given up", |a| logs(a, "too many unstable restarts")),
    ("taken over", |a| logs(a, "New worker ready")),
    ("not proven", |a| logs(a, "the old process goes on serving")),
    ("successor died", |a| logs(a, "before it was ready")),
    ("cron", |a| logs(a, "cron restart is due")),
    ("memory", |a| logs(a, "exceeds --max-memory-restart")),
    ("superseded", |a| {
        matches!(a, Action::Reply(_, Err(RequestError::Superseded { .. })))
    }),
    ("reload refused", |a| {
        matches!(a, Action::Reply(_, Err(RequestError::ReloadInProgress(_))))
    }),
    ("erased", |a| matches!(a, Action::Erase(_))),
    ("drained", |a| matches!(a, Action::Drain { .. })),
    ("probed", |a| matches!(a, Action::Probe { .. })),
    ("traffic off", |a| {
        matches!(a, Action::TakeTraffic { on: false, .. })
    }),
    ("liveness failed", |a| logs(a, "liveness probe failed")),
    ("rolled", |a| {
        is_roll(a, |failure, parts| failure.is_none() && parts.len() > 1)
    }),
    ("roll failed", |a| {
        is_roll(a, |failure, _| failure.is_some())
    }),
    ("rolled back", |a| {
        is_roll(a, |_, parts| parts.contains(&Part::RolledBack))
    }),
    ("left untouched", |a| {
        is_roll(a, |_, parts| parts.contains(&Part::Untouched))
    }),
];

fn is_roll(action: &Action, what: impl Fn(Option<&String>, &[Part]) -> bool) -> bool {
    let Action::Record(Record::Reload(receipt)) = action else {
        return false;
    };
    let parts: Vec<Part> = receipt.parts.iter().map(|p| p.outcome.clone()).collect();
    what(receipt.failure.as_ref(), &parts)
}

fn logs(action: &Action, text: &str) -> bool {
    matches!(action, Action::Log(line) if line.contains(text))
}

pub(crate) struct World<D> {
    rng: Rng,
    swarm: Swarm,
    decider: D,
    kernel: Kernel,
    store: Store,
    model: Model,
    calendar: Rc<Cell<bool>>,
    mono: Mono,
    wall_ahead: i64,
    last_request: u64,
    n_deaths: u32,
    processes: Processes,
    pub(crate) n_steps: u64,
    /// How often each of [`STORIES`] was lived through.
    pub(crate) n_stories: [u64; STORIES.len()],
    is_told: bool,
}

fn calendar(is_on: &Rc<Cell<bool>>) -> Box<dyn Calendar> {
    Box::new(Periods {
        is_on: Rc::clone(is_on),
    })
}

impl<D: Decider> World<D> {
    /// Returns the world of a seed. `is_told` prints every step.
    pub(crate) fn new(seed: u64, is_told: bool, wrap: impl FnOnce(Supervisor) -> D) -> World<D> {
        let mut rng = Rng::new(seed);
        let swarm = Swarm::draw(&mut rng);
        let is_on = Rc::new(Cell::new(true));
        let supervisor = Supervisor::new(settings(MOST_PROCESSES), calendar(&is_on));
        World {
            rng,
            swarm,
            decider: wrap(supervisor),
            kernel: Kernel::default(),
            store: Store::default(),
            n_deaths: 0,
            model: Model::default(),
            calendar: is_on,
            mono: Mono(1_000_000),
            wall_ahead: 1_700_000_000_000,
            last_request: 0,
            processes: Processes::new(),
            n_steps: 0,
            n_stories: [0; STORIES.len()],
            is_told,
        }
    }

    /// Lives through a whole history: trouble, rest, shutdown.
    pub(crate) fn live(&mut self) -> Outcome {
        if self.is_told {
            println!("{:?}", self.swarm);
        }
        for _ in 0..20 + self.rng.below(90) {
            self.turn()?;
        }
        self.rest()?;
        self.shut_down()
    }

    fn now(&self) -> Now {
        let wall = i64::try_from(self.mono.0).unwrap() + self.wall_ahead;
        Now {
            mono: self.mono,
            wall: Wall(wall),
        }
    }

    fn turn(&mut self) -> Outcome {
        match self.rng.below(100) {
            0..=49 => {
                if !self.happen()? {
                    self.pass_time()?;
                }
                Ok(())
            }
            50..=54 => self.ask(),
            55..=69 if self.swarm.busy || self.processes.is_empty() => self.ask(),
            70..=75 => self.disturb(),
            _ => self.pass_time(),
        }
    }

    /// Lets something happen in the kernel. Returns false if nothing was due.
    fn happen(&mut self) -> Result<bool, Broken> {
        let happened = self.kernel.happen(self.mono, &mut self.rng, &self.swarm);
        let Some(heard) = happened else {
            return Ok(false);
        };
        if let Some(event) = heard {
            self.step(event)?;
        }
        Ok(true)
    }

    fn ask(&mut self) -> Outcome {
        let ids: Vec<PmId> = self.processes.keys().copied().collect();
        let request = generate::request(&mut self.rng, &self.swarm, &ids);
        self.last_request += 1;
        self.step(Event::Request(RequestId(self.last_request), request))
    }

    fn disturb(&mut self) -> Outcome {
        match self.rng.below(5) {
            4 if self.swarm.releases => {
                self.kernel.flip(&mut self.rng);
                Ok(())
            }
            0 if self.swarm.wall_jumps => {
                let span = i64::try_from(self.rng.below(864_000_000)).unwrap();
                self.wall_ahead += if self.rng.percent(50) { span } else { -span };
                Ok(())
            }
            1 if self.swarm.abandons && self.last_request > 0 => {
                let id = self.last_request - self.rng.below(self.last_request.min(4));
                self.step(Event::Abandoned(RequestId(id)))
            }
            2 if self.swarm.deaths => self.die(),
            _ => self.sample(),
        }
    }

    /// The daemon dies; another goes on from the store. With it the keeper or
    /// the whole machine may go.
    fn die(&mut self) -> Outcome {
        self.n_deaths += 1;
        let is_reboot = self.swarm.reboots && self.rng.percent(30);
        if is_reboot {
            let down = 1000 + self.rng.below(100_000);
            let wall = self.now().wall.0 + i64::try_from(down).unwrap();
            self.mono = Mono(10_000 + self.rng.below(20_000));
            self.wall_ahead = wall - i64::try_from(self.mono.0).unwrap();
        }
        if self.is_told {
            println!("{} the daemon dies (reboot: {is_reboot})", self.mono.0);
        }
        let now = self.now();
        if is_reboot {
            self.store.reboot();
        }
        let (stored, last_run) = self.store.load(now, &mut self.rng);
        let known: Vec<_> = stored
            .iter()
            .flat_map(Process::runs)
            .map(|run| (run.id, run.is_stopping(), run.spec.stop.treekill))
            .collect();
        let ended = self.kernel.bury(&known, is_reboot, &mut self.rng);
        let calendar = calendar(&self.calendar);
        let settings = settings(MOST_PROCESSES);
        let successor = Supervisor::restore(settings, calendar, stored, last_run, now);
        self.processes = processes(&successor);
        let last_run = successor.last_run();
        self.decider.replace(successor);
        self.model.mourn(&self.processes, last_run, now);
        self.announce();
        for (run, status) in ended {
            self.kernel.note_end_told(run);
            self.take(Event::Exited { run, status }, false)?;
            self.take(Event::TreeGone { run }, false)?;
        }
        self.resume()?;
        self.expire()
    }

    /// The slots in use are not what the dead daemon said last: the new one
    /// says them again when it resumes.
    fn announce(&mut self) {
        self.model.slots.clear();
        for p in self.processes.values().filter(|p| p.uses_slot()) {
            let live = self.model.slots.entry(p.app_key()).or_default();
            live.push(p.instance);
            live.sort_unstable();
        }
    }

    /// The new daemon takes up what was left half done.
    fn resume(&mut self) -> Outcome {
        let now = self.now();
        let mut actions = Vec::new();
        self.decider.resume(now, &mut actions);
        if self.is_told {
            println!("{} it resumes: {actions:?}", now.mono.0);
        }
        // A name for the step: nobody made this request.
        let event = Event::Abandoned(RequestId(0));
        self.judge(&event, None, &actions, false)
    }

    fn sample(&mut self) -> Outcome {
        let mut samples = Vec::new();
        for (run, fake) in &self.kernel.fakes {
            if fake.is_alive || self.swarm.stale {
                let memory_bytes = self.rng.below(MEMORY_LIMIT * 2);
                samples.push(Sample {
                    run: *run,
                    memory_bytes,
                    cpu_percent: 1.0,
                });
            }
        }
        self.step(Event::Sampled(samples))
    }

    fn next_target(&self) -> Option<Mono> {
        let deadline = self.decider.next_deadline(self.now());
        [self.kernel.next_at(), deadline]
            .into_iter()
            .flatten()
            .min()
    }

    fn pass_time(&mut self) -> Outcome {
        let target = self.next_target().unwrap_or(self.mono + Millis(1000));
        let is_late = self.swarm.late && self.rng.percent(20);
        let extra = if is_late { self.rng.below(4000) } else { 0 };
        self.mono = self.mono.max(target) + Millis(extra);
        if self.swarm.late && self.rng.percent(20) {
            return Ok(());
        }
        self.expire()
    }

    fn expire(&mut self) -> Outcome {
        let is_due = self
            .decider
            .next_deadline(self.now())
            .is_some_and(|at| at <= self.mono);
        if !is_due {
            return Ok(());
        }
        let n_deaths = self.n_deaths;
        self.step(Event::Deadline)?;
        if n_deaths < self.n_deaths {
            return Ok(());
        }
        self.take(Event::Deadline, true)
    }

    /// Ends all trouble and lets time pass until nothing happens any more.
    fn rest(&mut self) -> Outcome {
        self.swarm = Swarm::CALM;
        self.kernel.heal();
        // Whatever the clock did, what is scheduled for it comes, once.
        self.wall_ahead += 10_000_000_000;
        self.calendar.set(false);
        self.come_to_rest()?;
        let waiting = self
            .model
            .asked
            .iter()
            .find(|(_, asked)| !asked.is_abandoned && asked.n_answers != 1);
        if let Some((id, asked)) = waiting {
            let detail = format!("{id}: {:?} got {} answers", asked.request, asked.n_answers);
            return Err(broken("at_rest_every_request_is_answered_once", detail));
        }
        if self.model.rolls.n_open() > 0 {
            let detail = format!("{:?}", self.model.rolls);
            return Err(broken("at_rest_no_roll_is_open", detail));
        }
        for p in self.processes.values() {
            self.check_rest(p)?;
        }
        Ok(())
    }

    fn check_rest(&self, p: &Process) -> Outcome {
        let gives_up = !p.spec.restart.autorestart
            || !p.spec.restart.stop_exit_codes.is_empty()
            || self.model.was_ending;
        let is_fine = match p.want {
            Want::Up => match p.status() {
                Status::Online | Status::Errored => p.second.is_none(),
                Status::Stopped => gives_up && p.rest == Rest::Stopped,
                Status::Launching | Status::Stopping | Status::WaitingRestart => false,
            },
            Want::Down => p.status() == Status::Stopped,
            Want::Gone => false,
        };
        if is_fine {
            return Ok(());
        }
        let detail = format!("slot {}: {:?} {:?}", p.pm_id, p.want, p.status());
        Err(broken("at_rest_wish_and_fact_agree", detail))
    }

    fn come_to_rest(&mut self) -> Outcome {
        for _ in 0..MOST_TURNS_TO_REST {
            if self.happen()? {
                continue;
            }
            let Some(target) = self.next_target() else {
                return Ok(());
            };
            self.mono = self.mono.max(target);
            self.expire()?;
        }
        let detail = format!("{MOST_TURNS_TO_REST} turns were not enough");
        Err(broken("the_world_comes_to_rest", detail))
    }

    fn shut_down(&mut self) -> Outcome {
        self.step(Event::Shutdown)?;
        if self.rng.percent(50) {
            self.ask()?;
        }
        self.come_to_rest()?;
        self.step(Event::Deadline)?;
        self.step(Event::Shutdown)?;
        if self.model.n_exits != 1 {
            let detail = format!("{} times", self.model.n_exits);
            return Err(broken("shutdown_ends_in_one_exit", detail));
        }
        let survivor = self.kernel.fakes.iter().find(|(_, fake)| !fake.end_told);
        if let Some((run, _)) = survivor {
            return Err(broken("no_process_outlives_the_exit", format!("run {run}")));
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Outcome {
        if self.swarm.torn && self.swarm.deaths && self.rng.percent(2) {
            return self.tear(event);
        }
        self.take(event, false)
    }

    /// The daemon dies in the middle of a step: what it ordered so far is done,
    /// the rest is not.
    fn tear(&mut self, event: Event) -> Outcome {
        let now = self.now();
        self.model.hear(&event, &self.processes, now);
        let mut actions = Vec::new();
        self.decider.step(event.clone(), now, &mut actions);
        let n = self.rng.below(actions.len() as u64 + 1);
        actions.truncate(usize::try_from(n).unwrap());
        let after = processes(self.decider.state());
        if self.is_told {
            println!("torn after {n} orders:");
            tell(now, &event, &actions, &after);
        }
        for action in &actions {
            self.carry_out(action, &after);
        }
        self.die()
    }

    fn carry_out(&mut self, action: &Action, after: &Processes) {
        self.kernel
            .carry_out(action, self.mono, &mut self.rng, &self.swarm);
        if !self.swarm.deaths {
            return;
        }
        let now = self.now();
        let last_run = self.decider.state().last_run();
        match action {
            Action::Persist(id) => {
                if let Some(p) = after.get(id) {
                    self.store.save(p, &self.kernel, last_run, now);
                }
            }
            Action::Erase(id) => self.store.erase(*id),
            _ => {}
        }
    }

    /// Lets the decider take one event, carries out its orders, checks all rules.
    fn take(&mut self, event: Event, is_repeated: bool) -> Outcome {
        let now = self.now();
        self.model.hear(&event, &self.processes, now);
        let owner_before = run_of(&event).and_then(|run| self.decider.state().owner(run));
        let mut actions = Vec::new();
        self.decider.step(event.clone(), now, &mut actions);
        self.judge(&event, owner_before, &actions, is_repeated)
    }

    fn judge(
        &mut self,
        event: &Event,
        owner_before: Option<PmId>,
        actions: &[Action],
        is_repeated: bool,
    ) -> Outcome {
        let now = self.now();
        self.n_steps += 1;
        let after = processes(self.decider.state());
        if self.is_told {
            tell(now, event, actions, &after);
        }
        for id in moved(event, owner_before, actions, &self.processes, &after) {
            self.model.rolls.moves(id);
        }
        let seen = self.model.see(actions, &after, now);
        seen.map_err(|(rule, detail)| broken(rule, detail))?;
        let watched = self
            .model
            .rolls
            .watch(&self.processes, &after, self.model.is_ending);
        watched.map_err(|(rule, detail)| broken(rule, detail))?;
        for (story, (_, is_it)) in STORIES.iter().enumerate() {
            self.n_stories[story] += actions.iter().filter(|a| is_it(a)).count() as u64;
        }
        // The writer is seldom far behind.
        if self.rng.percent(70) {
            let n = self.store.n_pending();
            self.store.write(n);
        }
        for action in actions {
            self.carry_out(action, &after);
        }
        let step = Step {
            event,
            actions,
            before: &self.processes,
            after: &after,
            state: self.decider.state(),
            kernel: &self.kernel,
            model: &self.model,
            owner_before,
            deadline_after: self.decider.next_deadline(now),
            now,
            is_repeated,
        };
        for (rule, check) in INVARIANTS {
            check(&step).map_err(|detail| broken(rule, detail))?;
        }
        self.model.remember(&after, now);
        self.processes = after;
        Ok(())
    }
}

/// Returns the slots in which a step did something that no roll asked for.
fn moved(
    event: &Event,
    owner: Option<PmId>,
    actions: &[Action],
    before: &Processes,
    after: &Processes,
) -> Vec<PmId> {
    let mut moved = Vec::new();
    match event {
        Event::Exited { .. } | Event::SpawnFailed { .. } | Event::Probed { .. } => {
            let runs = owner.and_then(|id| before.get(&id)).map(Process::runs);
            let run = runs.and_then(|mut runs| runs.find(|run| Some(run.id) == run_of(event)));
            // The end of one that was asked to end is what a roll waits for.
            if run.is_none_or(|run| !run.is_stopping()) {
                moved.extend(owner);
            }
        }
        Event::Request(_, request) => moved.extend(target(request)),
        Event::Deadline | Event::Sampled(_) | Event::Shutdown => {
            for p in after.values() {
                let is_it = |run: &Incarnation| p.runs().any(|known| known.id == *run);
                let acts = actions.iter().any(|action| match action {
                    Action::Spawn { run, .. } | Action::Kill { run, .. } => is_it(run),
                    _ => false,
                });
                moved.extend(acts.then_some(p.pm_id));
            }
        }
        _ => {}
    }
    moved
}

fn processes(state: &Supervisor) -> Processes {
    state.processes().map(|p| (p.pm_id, p.clone())).collect()
}

fn broken(rule: &'static str, detail: String) -> Broken {
    Broken { rule, detail }
}

fn tell(now: Now, event: &Event, actions: &[Action], after: &Processes) {
    println!("{} {event:?}", now.mono.0);
    for action in actions {
        match action {
            Action::Spawn { run, pm_id, .. } => println!("      Spawn run {run} slot {pm_id}"),
            Action::Emit { event, process, .. } => {
                println!("      Emit {event:?} slot {}", process.pm_id);
            }
            Action::Reply(id, Ok(_)) => println!("      Reply {id} Ok"),
            _ => println!("      {action:?}"),
        }
    }
    for p in after.values() {
        let runs: Vec<_> = p.runs().map(|r| (r.id.0, &r.phase)).collect();
        println!(
            "   {} {:?} {:?} {} restarts, {} unstable, {runs:?}",
            p.pm_id, p.want, p.rest, p.history.restart_time, p.history.unstable_restarts
        );
    }
}
