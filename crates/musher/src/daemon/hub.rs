//! What the loop owns: the supervisor, and everything that carries out its
//! actions.
//!
//! [`Hub::handle`] is the only caller of `Supervisor::step`, and [`Hub::execute`]
//! the only place where an action becomes an effect. Nothing here waits.

use super::activation::Activation;
use super::balance::{self, Balancer};
use super::bus::Bus;
use super::children::{Child, Children};
use super::garbage::Garbage;
use super::journal;
use super::keeping::Keeping;
use super::logs::{LogPump, Source};
use super::persist;

use super::probe::Prober;
use super::rpc::ReplyTo;
use super::sample::Sampler;
use super::stdio::Ends;
use super::store::Store;
use super::store::history::Entry;
use super::tree::Scope;
use super::update::Update;
use crate::failpoint;
use crate::files::{Durability, replace};
use crate::keeper::client::KeeperClient;
use crate::paths::Paths;
use musher_core::id::{Incarnation, PmId, RequestId};
use musher_core::log::Stream;
use musher_core::supervisor::{
    Action, Event, Record, Reply, RequestError, SpawnFailure, SpawnPlan, Supervisor,
};
use musher_core::time::Now;
use musher_core::wire::bus as payload;
use musher_core::wire::receipt;
use musher_core::wire::rpc::Answer;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

/// Last parts of the names of a run's descriptors ([`parked_name`]).
pub(crate) const OUT: &str = "out";
pub(crate) const ERR: &str = "err";
pub(crate) const IPC: &str = "ipc";
pub(crate) const IN: &str = "in";

/// Everything the loop owns.
pub(crate) struct Hub {
    pub(crate) supervisor: Supervisor,
    pub(crate) children: Children,
    pub(crate) activation: Activation,
    pub(crate) prober: Prober,
    pub(crate) pump: LogPump,
    pub(crate) balancer: Balancer,
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) keeper: Option<KeeperClient>,
    pub(crate) keeping: Keeping,
    pub(crate) garbage: Garbage,
    pub(crate) sampler: Sampler,
    pub(crate) paths: Paths,
    pub(crate) boot_id: String,
    pub(crate) started: Now,
    /// Clients that wait for the supervisor's answer.
    pub(crate) waiting: HashMap<RequestId, (Answer, ReplyTo)>,
    /// Who gets SIGQUIT when the daemon is gone (`killMe`).
    pub(crate) killed_by: Option<u32>,
    /// Calls were answered since memory was last given back.
    pub(crate) is_bloated: bool,
    /// The supervisor said `Exit`.
    pub(crate) is_over: bool,
    /// Another executable is to serve in this one's place.
    pub(crate) update: Option<Update>,
    /// Updates that were asked for.
    pub(crate) n_updates: u64,
    /// The keeper knows what follows: this daemon ends and the apps run on.
    pub(crate) is_leaving: bool,
    /// Why this executable serves and not that of an update.
    pub(crate) update_failed: Option<String>,
    queue: VecDeque<Event>,
    out: Vec<Action>,
    /// Records that changed in the step at hand; `None` erases.
    changed: Vec<(u32, Option<String>)>,
    /// Sent when the event they follow from is dealt with.
    answers: Vec<(ReplyTo, Value)>,
}

/// The parts a hub is made of.
pub(crate) struct Parts {
    pub(crate) supervisor: Supervisor,
    pub(crate) children: Children,
    pub(crate) pump: LogPump,
    pub(crate) balancer: Balancer,
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) keeper: Option<KeeperClient>,
    pub(crate) keeping: Keeping,
    pub(crate) paths: Paths,
    pub(crate) boot_id: String,
    pub(crate) update_failed: Option<String>,
}

impl Hub {
    pub(crate) fn new(parts: Parts) -> Hub {
        let Parts {
            supervisor,
            children,
            pump,
            balancer,
            bus,
            store,
            keeper,
            keeping,
            paths,
            boot_id,
            update_failed,
        } = parts;
        Hub {
            prober: Prober::new(children.events(), children.scout.clone()),
            activation: Activation::default(),
            supervisor,
            children,
            pump,
            balancer,
            bus,
            store,
            keeper,
            keeping,
            garbage: Garbage::default(),
            sampler: Sampler::default(),
            paths,
            boot_id,
            started: musher_os::clock::now(),
            waiting: HashMap::new(),
            killed_by: None,
            is_bloated: false,
            is_over: false,
            update: None,
            n_updates: 0,
            is_leaving: false,
            update_failed,
            queue: VecDeque::new(),
            out: Vec::new(),
            changed: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Takes in an event and carries out what follows from it.
    pub(crate) fn handle(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            let now = musher_os::clock::now();
            let mut out = std::mem::take(&mut self.out);
            self.supervisor.step(event, now, &mut out);
            for action in out.drain(..) {
                self.execute(action, now);
            }
            self.out = out;
            self.book();
        }
        self.send_answers();
    }

    /// Sends what was answered once it is stored: what a client was told is
    /// true for the next daemon too.
    fn send_answers(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.answers);
        self.store.after_writing(Box::new(move || {
            failpoint::hit("answer-before");
            for (reply, body) in answers {
                reply.send(&body);
            }
            failpoint::hit("answer-after");
        }));
    }

    /// Carries out what the supervisor wants done without an event.
    pub(crate) fn resume(&mut self) {
        let now = musher_os::clock::now();
        let mut out = Vec::new();
        self.supervisor.resume(now, &mut out);
        for action in out {
            self.execute(action, now);
        }
        self.book();
        self.handle(Event::Deadline);
    }

    fn execute(&mut self, action: Action, now: Now) {
        match action {
            Action::Spawn { run, pm_id, plan } => self.spawn(run, pm_id, &plan),
            Action::Signal { run, signal } => {
                // The process may have ended meanwhile; its exit is on the way.
                let _ = self.children.signal(run, signal);
            }
            Action::Kill { run, signal, tree } => {
                let scope = if tree { Scope::Tree } else { Scope::Main };
                self.children.kill(run, signal, scope);
            }
            Action::AskToShutDown { run } => self.balancer.send(run, b"\"shutdown\"".to_vec()),
            Action::Detach { run } => self.balancer.detach(run),
            Action::Drain {
                run,
                limit,
                websockets,
            } => self.balancer.drain(run, limit, websockets),
            Action::Probe { run, kind, probe } => self.probe(run, kind, *probe, now),
            Action::Forget { run } => self.forget(run),
            Action::Slots { app, live } => {
                self.release_sockets(&app);
                self.balancer.keep_slots(app, live);
            }
            Action::Emit {
                event,
                manually,
                process,
            } => {
                if self.bus.n_subscribers() > 0 {
                    let word = event.pm2_name();
                    let event = payload::process_event(word, manually, &process, now.wall);
                    self.bus.publish("process:event", &event);
                }
            }
            Action::TakeTraffic { run, on: true } => self.balancer.resume(run),
            Action::TakeTraffic { run, on: false } => self.balancer.suspend(run),
            Action::Record(record) => self.record(&record, now),
            Action::Log(line) => self.log(&line, now),
            Action::Persist(pm_id) => self.persist(pm_id, now),
            Action::Erase(pm_id) => self.changed.push((pm_id.0, None)),
            Action::Reply(id, outcome) => self.reply(id, &outcome, now),
            Action::Exit => self.is_over = true,
        }
    }

    fn spawn(&mut self, run: Incarnation, pm_id: PmId, plan: &SpawnPlan) {
        if let Err(reason) = self.bind_all(&plan.app, &plan.listen) {
            let kind = SpawnFailure::Permanent;
            return self
                .queue
                .push_back(Event::SpawnFailed { run, reason, kind });
        }
        let sockets = self.activation.of(&plan.app, &plan.listen);
        let ends = match self.children.spawn(run, pm_id, plan, &sockets) {
            Ok(ends) => ends,
            Err(event) => return self.queue.push_back(*event),
        };
        failpoint::hit("spawn-forked");
        self.park_run(run, &ends);
        failpoint::hit("spawn-parked");
        if let Some(pid) = self.children.get(run).map(|child| child.pid) {
            let path = plan.pid_path.clone();
            self.store
                .in_turn(Box::new(move || write_pid_file(&path, pid)));
        }
        self.connect(run, pm_id, plan, ends, Balancer::add);
    }

    /// Gives the manager's ends of a run to the threads that serve them; `tell`
    /// gives the channel to the balance thread.
    pub(crate) fn connect(
        &self,
        run: Incarnation,
        pm_id: PmId,
        plan: &SpawnPlan,
        ends: Ends,
        tell: impl FnOnce(&Balancer, balance::Child),
    ) {
        let Ends { out, err, channel } = ends;
        for (stream, fd) in [(Stream::Out, out), (Stream::Err, err)] {
            let Some(fd) = fd else { continue };
            self.pump.attach(Source {
                run,
                pm_id,
                name: Arc::from(plan.app.name.as_str()),
                stream,
                fd,
                output: plan.output.clone(),
            });
        }
        let Some(fd) = channel else { return };
        let child = balance::Child {
            run,
            app: plan.app.clone(),
            slot: plan.slot,
            balance: plan.balance,
            sticky: plan.sticky.clone(),
            channel: plan.channel,
            fd,
        };
        tell(&self.balancer, child);
    }

    /// Parks what the app would miss if this daemon died.
    fn park_run(&self, run: Incarnation, ends: &Ends) {
        let stdin = self.children.get(run).and_then(Child::stdin);
        let fds = [
            (OUT, ends.out.as_ref().map(AsFd::as_fd)),
            (ERR, ends.err.as_ref().map(AsFd::as_fd)),
            (IPC, ends.channel.as_ref().map(AsFd::as_fd)),
            (IN, stdin),
        ];
        for (what, fd) in fds {
            if let Some(fd) = fd {
                self.park_of(run, what, fd);
            }
        }
    }

    /// Parks a descriptor of a living run.
    pub(crate) fn park_of(&self, run: Incarnation, what: &str, fd: BorrowedFd<'_>) {
        if let Some(child) = self.children.get(run) {
            self.park(&parked_name(run, child.pid, what), fd);
        }
    }

    /// Parks a descriptor; without a keeper, the next one is given everything.
    pub(crate) fn park(&self, name: &str, fd: BorrowedFd<'_>) {
        if let Some(keeper) = &self.keeper
            && let Err(error) = keeper.park(name, fd)
        {
            journal::error(&format!("could not park {name}: {error}"));
            self.keeping.failed(1);
        }
    }

    fn forget(&mut self, run: Incarnation) {
        self.pump.finish(run);
        self.balancer.forget(run);
        self.prober.forget(run);
        self.garbage.forget(run);
        if let Some(child) = self.children.get(run) {
            let serving = self
                .supervisor
                .process(child.pm_id)
                .and_then(|p| p.serving.as_ref());
            let (path, pid) = (child.pid_path.clone(), child.pid);
            let serving = serving.and_then(|run| run.pid);
            self.store
                .in_turn(Box::new(move || give_up_pid_file(&path, pid, serving)));
        }
        let app = self.children.get(run).map(|child| child.pm_id);
        self.children.forget(run);
        if let Some(process) = app.and_then(|pm_id| self.supervisor.process(pm_id)) {
            self.release_sockets(&process.app_key());
        }
    }

    /// Everything a run wrote is in its files: its descriptors may go.
    pub(crate) fn drained(&self, run: Incarnation) {
        if let Some(keeper) = &self.keeper {
            // A keeper that is gone holds nothing any more.
            let _ = keeper.drop_prefix(&format!("run/{run}/"));
        }
    }

    pub(crate) fn log(&self, line: &str, now: Now) {
        journal::line(line);
        if self.bus.n_subscribers() > 0 {
            self.bus
                .publish("log:PM2", &payload::log_pm2(now.wall, line));
        }
    }

    fn persist(&mut self, pm_id: PmId, now: Now) {
        let Some(process) = self.supervisor.process(pm_id) else {
            return;
        };
        let saved = persist::save(process, &self.children, &self.boot_id, now);
        self.changed.push((pm_id.0, Some(saved.encode())));
    }

    /// Hands over what changed in one step at once: whatever run is not in what
    /// is written has a higher number than the last run written with it.
    fn book(&mut self) {
        if !self.changed.is_empty() {
            let changed = std::mem::take(&mut self.changed);
            self.store.save(changed, self.supervisor.last_run().0);
        }
    }

    /// Keeps a record in the history: an exit under its app, a reload under
    /// each app it was about.
    fn record(&self, record: &Record, now: Now) {
        match record {
            Record::Exit(exit) => self.store.record(Entry {
                app: exit.app.name.clone(),
                at: now.wall.0,
                json: receipt::exit(exit, now.wall).to_string(),
            }),
            Record::Reload(rolled) => {
                let json = receipt::receipt(rolled).to_string();
                let apps: BTreeSet<&str> = rolled.parts.iter().map(|p| &*p.app.name).collect();
                for app in apps {
                    self.store.record(Entry {
                        app: app.to_owned(),
                        at: rolled.began.0,
                        json: json.clone(),
                    });
                }
            }
        }
    }

    fn reply(&mut self, id: RequestId, outcome: &Result<Reply, RequestError>, now: Now) {
        let Some((answer, reply)) = self.waiting.remove(&id) else {
            return;
        };
        let all = match answer {
            Answer::All => self.supervisor.views(now),
            Answer::Prepared
            | Answer::Started
            | Answer::Stopped
            | Answer::SoftReloaded(_)
            | Answer::Monitored(_)
            | Answer::Rolled
            | Answer::Nothing => Vec::new(),
        };
        self.answers.push((reply, answer.body(outcome, &all)));
    }
}

/// Returns the name under which a descriptor of a run is parked.
pub(crate) fn parked_name(run: Incarnation, pid: u32, what: &str) -> String {
    format!("run/{run}/{pid}/{what}")
}

fn write_pid_file(path: &str, pid: u32) {
    let path = Path::new(path);
    if let Some(dir) = path.parent() {
        // The next step tells if there is no directory.
        let _ = std::fs::create_dir_all(dir);
    }
    failpoint::hit("pid-file-before");
    if let Err(error) = replace(path, &pid.to_string(), Durability::Process) {
        journal::error(&format!(
            "could not write pid file {}: {error}",
            path.display()
        ));
    }
    failpoint::hit("pid-file-after");
}

/// Removes a pid file that names this pid, or lets it name who serves on. One
/// that names another pid is that process's.
fn give_up_pid_file(path: &str, pid: u32, serving: Option<u32>) {
    if !std::fs::read_to_string(path).is_ok_and(|text| text.trim() == pid.to_string()) {
        return;
    }
    match serving.filter(|serving| *serving != pid) {
        Some(serving) => write_pid_file(path, serving),
        // Somebody else may have removed it: then it is as wanted.
        None => drop(std::fs::remove_file(path)),
    }
}
