//! Starting up, which is always taking over: from a daemon that died, or from
//! nobody.
//!
//! Order matters. First the parked descriptors come back from the keeper, then
//! the store says what they belong to, then each run is checked by pid, start
//! time and boot. Only then does anybody get to call.

use super::balance::{BalanceEvent, Balancer};
use super::bus::Bus;
use super::calendar::LocalCalendar;
use super::children::Children;
use super::doors::Doors;
use super::hub::{ERR, Hub, IN, IPC, OUT, Parts, parked_name};
use super::keeping::Keeping;
use super::logs::{LogError, LogEvent, LogPump};
use super::marks::Marks;

use super::readable::readable;
use super::scout::Scout;
use super::stdio::Ends;
use super::store::{Loaded, Store};
use super::tree::{Ending, Scope};
use super::{Inbox, journal, persist, pulse, settings, strangers};
use crate::agent;
use crate::failpoint;
use crate::keeper::client::{KeeperClient, Restored};
use crate::paths::Paths;
use anyhow::Context;
use bytes::Bytes;
use musher_core::app::description;
use musher_core::cluster::takeover_seq;
use musher_core::exit::{ExitStatus, Signal};
use musher_core::id::Incarnation;
use musher_core::supervisor::process::Process;
use musher_core::supervisor::{Event, Supervisor, plan, restore};
use musher_core::time::Now;
use musher_core::wire::state::{SavedProcess, SavedRun};
use musher_os::kill::{Census, Lineage, Member};
use musher_os::signals::SignalReader;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Calls that wait for the loop; further ones wait in their sockets.
const MAX_CALLS: usize = 1024;
/// Log events that wait for the loop; further ones are counted as lost.
const MAX_LOG_EVENTS: usize = 1024;
/// Messages of apps that wait for the loop; further ones are dropped and counted.
const MAX_APP_MESSAGES: usize = 8192;
/// Messages of the keeper, and signals, that wait for the loop.
const MAX_NOTES: usize = 256;

/// Why an app is listed with a reason although it is online.
const NOT_CAPTURED: &str = "its output is not captured until the next restart";

/// Brings the daemon up to the point where it can be called.
///
/// # Errors
/// Whatever makes it useless: no store, no sockets, no threads.
pub(crate) fn set_up(
    paths: Paths,
    keeper_fd: Option<i32>,
    signals: SignalReader,
) -> anyhow::Result<(Hub, Inbox, Doors)> {
    // Without room for descriptors parked ones would be lost on the way.
    musher_os::fd::raise_limit().context("the limit of descriptors cannot be raised")?;
    let (keeper, restored) = call_keeper(keeper_fd)?;
    failpoint::hit("takeover-restored");
    let (store, loaded) = open_store(&paths.state_db)?;
    let (child_events, children_inbox) = mpsc::unbounded_channel();
    let (balance_events, balance_inbox) = mpsc::unbounded_channel();
    let (app_messages, app_inbox) = mpsc::channel(MAX_APP_MESSAGES);
    let n_dropped = Arc::new(AtomicU64::new(0));
    let (log_events, log_inbox) = mpsc::channel(MAX_LOG_EVENTS);
    let (calls, calls_inbox) = mpsc::channel(MAX_CALLS);
    let first_seq = first_seq(loaded.records.is_empty());
    let balancer = start_balancer(first_seq, balance_events, app_messages, &n_dropped)?;
    let pump = start_pump(log_events)?;
    let mut parked: BTreeMap<String, OwnedFd> = restored.fds.into_iter().collect();
    let doors = Doors::take(&mut parked, &paths, keeper.as_ref(), calls)?;
    let (notes, keeper_inbox) = mpsc::channel(MAX_NOTES);
    let keeping = Keeping::new(keeper.as_ref(), &doors, &paths, notes)?;
    let children = start_children(child_events, &paths)?;
    let mut past = Past {
        children,
        parked,
        boot_id: musher_os::reap::boot_id(),
        exits: restored.exits.iter().copied().collect(),
        ended: Vec::new(),
        left_behind: Vec::new(),
    };
    let supervisor = past.supervisor(&loaded, &paths);
    strangers::end_unbooked(&paths, &past.children.marks, supervisor.last_run());
    failpoint::hit("takeover-adopted");
    if let Some(keeper) = &keeper {
        drop_left_behind(keeper, &past.left_behind);
        pulse::dismiss_if_old(keeper, &paths);
    }
    let parts = Parts {
        supervisor,
        children: past.children,
        pump,
        balancer,
        bus: Bus::default(),
        store,
        keeper,
        keeping,
        paths,
        boot_id: past.boot_id,
        update_failed: restored.why,
    };
    let mut hub = Hub::new(parts);
    reconnect(&mut hub, past.parked, loaded.tickets);
    hub.mourn(restored.exits, past.ended);
    hub.start_lost(loaded.set_aside.as_deref(), loaded.records.len());
    let inbox = Inbox {
        children: children_inbox,
        balance: balance_inbox,
        apps: app_inbox,
        n_dropped,
        logs: log_inbox,
        keeper: keeper_inbox,
        signals: listen_to_signals(signals),
        calls: calls_inbox,
    };
    Ok((hub, inbox, doors))
}

/// Returns where the numbers of cluster messages begin: above every former
/// daemon's, so that a late answer finds nobody.
fn first_seq(is_fresh: bool) -> u64 {
    if is_fresh {
        return 0;
    }
    takeover_seq(musher_os::clock::now().mono)
}

fn start_children(events: mpsc::UnboundedSender<Event>, paths: &Paths) -> anyhow::Result<Children> {
    let scout = Scout::start().context("the thread that reads /proc cannot be started")?;
    Ok(Children::new(events, Marks::of_home(&paths.home), scout))
}

fn open_store(path: &Path) -> anyhow::Result<(Store, Loaded)> {
    let (store, loaded) = Store::open(path)?;
    if let Some(aside) = &loaded.set_aside {
        journal::error(&format!(
            "the state database was damaged and is kept as {}; the saved list takes its place \
             (what was started since the last save is to be started again)",
            aside.display()
        ));
    }
    Ok((store, loaded))
}

fn start_balancer(
    first_seq: u64,
    events: mpsc::UnboundedSender<BalanceEvent>,
    messages: mpsc::Sender<(Incarnation, Bytes)>,
    n_dropped: &Arc<AtomicU64>,
) -> std::io::Result<Balancer> {
    let n_dropped = Arc::clone(n_dropped);
    Balancer::start(first_seq, move |event| match event {
        BalanceEvent::Raw { run, line } => {
            if messages.try_send((run, line)).is_err() {
                n_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        // A handful per run and socket; closed only while the daemon ends.
        event => drop(events.send(event)),
    })
}

fn start_pump(events: mpsc::Sender<LogEvent>) -> Result<LogPump, LogError> {
    LogPump::start(Box::new(move |event| {
        events.try_send(event).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => {
                event
            }
        })
    }))
}

fn call_keeper(number: Option<i32>) -> anyhow::Result<(Option<KeeperClient>, Restored)> {
    let Some(number) = number else {
        return Ok((None, Restored::default()));
    };
    let socket = musher_os::fd::take_inherited(number).context("no socket to the keeper")?;
    let mut keeper = KeeperClient::from_fd(socket).context("no socket to the keeper")?;
    let restored = keeper
        .take_back()
        .context("the keeper does not give back what it holds")?;
    if let Some(why) = &restored.why {
        journal::error(&format!("the update was undone: {why}"));
    }
    Ok((Some(keeper), restored))
}

fn drop_left_behind(keeper: &KeeperClient, prefixes: &[String]) {
    for prefix in prefixes {
        // A keeper that is gone holds nothing any more.
        let _ = keeper.drop_prefix(prefix);
    }
}

fn listen_to_signals(signals: SignalReader) -> mpsc::Receiver<Signal> {
    let (tell, inbox) = mpsc::channel(MAX_NOTES);
    tokio::task::spawn_local(async move {
        const SIGHUP: Signal = Signal(1);
        loop {
            match signals.next() {
                Ok(Some(SIGHUP)) => {}
                Ok(Some(signal)) => {
                    if tell.send(signal).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    let Ok(fd) = signals.as_fd().try_clone_to_owned() else {
                        return;
                    };
                    if readable(fd).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    inbox
}

/// A run that died while nobody looked.
struct Dead {
    run: Incarnation,
    status: ExitStatus,
    /// How to find what it left.
    lineage: Lineage,
}

/// What the previous daemon left, while it is put together again.
struct Past {
    children: Children,
    parked: BTreeMap<String, OwnedFd>,
    boot_id: String,
    /// How orphans ended that nobody looked after, by pid.
    exits: BTreeMap<u32, ExitStatus>,
    /// Runs the store knows and the kernel does not, and how they ended.
    ended: Vec<Dead>,
    /// Prefixes of parked names nobody will ask for.
    left_behind: Vec<String>,
}

impl Past {
    fn supervisor(&mut self, loaded: &Loaded, paths: &Paths) -> Supervisor {
        let now = musher_os::clock::now();
        let settings = settings::supervisor(paths);
        let processes: Vec<Process> = loaded
            .records
            .iter()
            .filter_map(|(pm_id, record)| self.process(*pm_id, record, &settings.defaults, now))
            .collect();
        if processes
            .iter()
            .all(|process| process.runs().next().is_none())
        {
            agent::remove_former(paths);
        }
        self.left_behind = self.end_strangers(&processes);
        let calendar = Box::new(LocalCalendar::new());
        let last_run = Incarnation(loaded.last_run);
        Supervisor::restore(settings, calendar, processes, last_run, now)
    }

    fn process(
        &mut self,
        pm_id: u32,
        record: &str,
        defaults: &description::Defaults,
        now: Now,
    ) -> Option<Process> {
        let loaded = SavedProcess::decode(record)
            .map_err(|error| error.to_string())
            .and_then(|saved| {
                let mut is_alive = |run: &SavedRun| self.adopt(pm_id, run);
                let mut process = persist::load(&saved, defaults, now, &mut is_alive)?;
                if saved.runs.iter().any(|run| run.boot_id != self.boot_id) {
                    restore::after_reboot(&mut process);
                }
                Ok(process)
            });
        match loaded {
            Ok(mut process) => {
                self.excuse(&mut process);
                Some(process)
            }
            Err(reason) => {
                journal::error(&format!(
                    "the record of process {pm_id} cannot be used: {reason}"
                ));
                None
            }
        }
    }

    /// Takes a run over. True keeps it in the process: alive, or known to have
    /// ended while nobody looked, which the supervisor is then told.
    fn adopt(&mut self, pm_id: u32, saved: &SavedRun) -> bool {
        let run = Incarnation(saved.incarnation);
        let stdin = self.parked.remove(&parked_name(run, saved.pid, IN));
        let pm_id = musher_core::id::PmId(pm_id);
        if saved.boot_id != self.boot_id {
            // Whatever ran went with the machine: `after_reboot` books it.
            return true;
        }
        let (pid, start_time) = (saved.pid, saved.start_time);
        if !self.children.adopt(run, pm_id, pid, start_time, stdin) {
            let status = self.exits.get(&saved.pid).copied();
            let root = Member {
                pid: saved.pid,
                start_time: saved.start_time,
            };
            self.ended.push(Dead {
                run,
                status: status.unwrap_or(ExitStatus::Unknown),
                lineage: self.children.marks.lineage(run, root, None),
            });
        }
        true
    }

    /// Says so where a living run was kept without its descriptors: keeper and
    /// daemon died together. A second copy would be worse than a silent one.
    fn excuse(&self, process: &mut Process) {
        let is_kept = |run: Incarnation, pid: u32| {
            let mut names = [OUT, ERR, IPC].iter();
            names.any(|what| self.parked.contains_key(&parked_name(run, pid, what)))
        };
        let is_mute = process.runs().any(|run| {
            let child = self.children.get(run.id);
            child.is_some_and(|child| !is_kept(run.id, child.pid))
        });
        if is_mute {
            let (name, pm_id) = (&process.spec.name, process.pm_id);
            journal::error(&format!(
                "App [{name}:{pm_id}] lives on, but {NOT_CAPTURED}: \
                 the daemon and its keeper were lost together"
            ));
            process.reason = Some(NOT_CAPTURED.to_owned());
        }
    }

    /// Ends runs that were forked but not stored when the daemon died: their
    /// slot is started again, so they would be second copies. Returns the
    /// prefixes of the names under which the keeper holds what was theirs.
    fn end_strangers(&mut self, processes: &[Process]) -> Vec<String> {
        let known: BTreeSet<(Incarnation, u32)> = processes
            .iter()
            .flat_map(Process::runs)
            .filter_map(|run| Some((run.id, run.pid?)))
            .collect();
        let strangers = strangers::parked(self.parked.keys(), &known);
        for (run, pid) in &strangers {
            let is_ambiguous = known.iter().any(|(known, _)| known == run);
            self.end_stranger(*run, *pid, is_ambiguous);
            let theirs = Some((*run, *pid));
            self.parked
                .retain(|name, _| strangers::run_of(name) != theirs);
        }
        let prefix = |(run, pid): &(Incarnation, u32)| format!("run/{run}/{pid}/");
        strangers.iter().map(prefix).collect()
    }

    /// Kills what a parked name says was forked, if that is still there. The
    /// name holds no start time: a pid the keeper has reaped, or one that does
    /// not lead a session as every run does, is somebody else's. The mark of a
    /// number that is in use again is its user's.
    fn end_stranger(&self, run: Incarnation, pid: u32, is_ambiguous: bool) {
        if self.exits.contains_key(&pid) {
            return;
        }
        let Ok(stat) = musher_os::proc_stat::read(pid) else {
            return;
        };
        if stat.session != pid {
            return;
        }
        journal::line(&format!(
            "ending process {pid}: it was started but not yet booked"
        ));
        let lineage = if is_ambiguous {
            Lineage::of(pid, stat.start_time)
        } else {
            let start_time = stat.start_time;
            let root = Member { pid, start_time };
            self.children.marks.lineage(run, root, Some(pid))
        };
        let pidfd = musher_os::reap::pidfd_open(pid).ok().map(Rc::new);
        Ending::begin(&self.children.scout, lineage, pidfd, Scope::Tree).send(Some(Signal::KILL));
    }
}

/// Gives taken back descriptors to the threads that serve them.
fn reconnect(hub: &mut Hub, parked: BTreeMap<String, OwnedFd>, tickets: Vec<(String, String)>) {
    for (name, data) in tickets {
        if let Ok(data) = serde_json::from_str(&data) {
            hub.balancer.restore_ticket(name, data);
        }
    }
    let mut by_run: HashMap<Incarnation, HashMap<String, OwnedFd>> = HashMap::new();
    for (name, fd) in parked {
        match strangers::run_of(&name) {
            Some((run, _)) => {
                let what = name.rsplit('/').next().unwrap_or_default().to_owned();
                by_run.entry(run).or_default().insert(what, fd);
            }
            None => {
                if let Err(fd) = hub.activation.restore(&name, fd) {
                    hub.balancer.restore_listener(name, fd);
                }
            }
        }
    }
    let now = musher_os::clock::now();
    let runs: Vec<_> = hub
        .supervisor
        .processes()
        .flat_map(|p| {
            p.runs().map(move |run| {
                let plan = plan::spawn_plan(p, p.history.restart_time, now);
                let keys: Vec<String> = run.said.listening.iter().cloned().collect();
                let scope = match run.spec.stop.treekill {
                    true => Scope::Tree,
                    false => Scope::Main,
                };
                (
                    run.id,
                    p.pm_id,
                    plan,
                    keys,
                    run.is_stopping().then_some(scope),
                )
            })
        })
        .collect();
    for (run, pm_id, plan, keys, ending) in runs {
        hub.children.set_pid_path(run, &plan.pid_path);
        let mut fds = by_run.remove(&run).unwrap_or_default();
        let ends = Ends {
            out: fds.remove(OUT),
            err: fds.remove(ERR),
            channel: fds.remove(IPC),
        };
        hub.connect(run, pm_id, &plan, ends, |balancer, child| {
            balancer.restore_worker(child, keys);
        });
        if let Some(scope) = ending {
            hub.children.kill(run, None, scope);
        }
    }
}

impl Hub {
    /// Takes in what ended while there was no daemon.
    fn mourn(&mut self, exits: Vec<(u32, ExitStatus)>, ended: Vec<Dead>) {
        let mut heard = Vec::new();
        for (pid, status) in exits {
            if !self.children.orphan_exited(pid, status) {
                heard.push(pid);
            }
        }
        // One scan for all of them, and none where there is nothing to find.
        let census = (!ended.is_empty()).then(|| Census::take().ok()).flatten();
        for dead in ended {
            self.bury(dead.run, dead.status, dead.lineage, census.as_ref());
        }
        self.heard(heard);
    }
}
