//! The daemon: one loop that decides, and the threads that carry bytes.
//!
//! It may die at any moment: what it knows is in the store, what it holds is
//! parked in the keeper, and the next one goes on where it stopped (see
//! [`takeover`]). The loop never sleeps, never waits for a client, a child or a
//! disk.

mod activation;
pub(crate) mod balance;
pub(crate) mod bus;
pub(crate) mod calendar;
mod calls;
mod check;
pub(crate) mod children;
mod doors;
mod garbage;
mod hub;
pub(crate) mod journal;
mod keeping;
mod leftovers;
pub(crate) mod logs;
mod marks;
mod orphans;
mod package;
mod persist;
mod probe;
mod pulse;
pub(crate) mod readable;
pub(crate) mod rpc;
pub(crate) mod sample;
mod saved;
mod scout;
mod settings;
mod stdio;
pub(crate) mod store;
mod strangers;
mod takeover;
pub(crate) mod tree;
mod update;

pub(crate) use calls::PM2_VERSION;
pub(crate) use check::{CHECKED, check};

use crate::paths::Paths;
use anyhow::Context;
use balance::BalanceEvent;
use bytes::Bytes;
use hub::Hub;
use keeping::KeeperNote;
use logs::{LogEvent, LossReason};
use musher_core::exit::Signal;
use musher_core::id::Incarnation;
use musher_core::log::Stream;
use musher_core::supervisor::Event;
use musher_core::time::Wall;
use musher_core::wire::{bus as payload, dump};
use rpc::Incoming;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

/// Everything that can wake the loop.
struct Inbox {
    /// Kernel facts about children; overtake everything else.
    children: UnboundedReceiver<Event>,
    balance: UnboundedReceiver<BalanceEvent>,
    /// What apps say that is not Node's own.
    apps: Receiver<(Incarnation, Bytes)>,
    /// Messages of apps that found `apps` full.
    n_dropped: Arc<AtomicU64>,
    logs: Receiver<LogEvent>,
    keeper: Receiver<KeeperNote>,
    signals: Receiver<Signal>,
    calls: Receiver<Incoming>,
}

/// What wakes the loop, one at a time.
enum Wake {
    Child(Event),
    Deadline,
    Balance(BalanceEvent),
    App(Incarnation, Bytes),
    Log(LogEvent),
    Keeper(KeeperNote),
    Signal(Signal),
    Call(Incoming),
    Subscribers,
    Worker,
    /// Nothing was asked for a while after a burst.
    Quiet,
}

/// Runs the daemon of a home until it is told to end. `keeper_fd` is the number
/// of the inherited socket to the keeper; without one nothing is parked.
pub(crate) fn run(paths: Paths, keeper_fd: Option<i32>) -> ExitCode {
    match serve(paths, keeper_fd) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::error(&format!("the daemon cannot go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(paths: Paths, keeper_fd: Option<i32>) -> anyhow::Result<()> {
    musher_os::memory::stay_small();
    musher_os::oom::prefer_apps();
    musher_os::signals::ignore_sigpipe();
    // Before any thread is started: the mask is inherited.
    let signals = musher_os::signals::block_and_read(&settings::SIGNALS)
        .context("signals cannot be taken")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("the event loop cannot be made")?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let (mut hub, mut inbox, doors) = takeover::set_up(paths, keeper_fd, signals)?;
        hub.resume();
        // What no process names was left by a former daemon.
        hub.release_all_sockets();
        doors.open(&hub);
        turn(&mut hub, &mut inbox).await;
        match hub.is_leaving && !hub.is_over {
            true => hub.leave(&mut inbox).await,
            false => doors.close(hub),
        }
        Ok(())
    })
}

/// Takes one event after the other until the daemon is over.
async fn turn(hub: &mut Hub, inbox: &mut Inbox) {
    let mut worker = tokio::time::interval(settings::worker_interval());
    worker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !hub.is_over && !hub.is_leaving {
        let deadline = until_deadline(hub);
        let bus = hub.bus.clone();
        let is_bloated = hub.is_bloated;
        // Exits overtake deadlines, deadlines overtake requests.
        let wake = tokio::select! {
            biased;
            Some(event) = inbox.children.recv() => Wake::Child(event),
            () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() => {
                Wake::Deadline
            }
            Some(signal) = inbox.signals.recv() => Wake::Signal(signal),
            Some(note) = inbox.keeper.recv() => Wake::Keeper(note),
            Some(event) = inbox.balance.recv() => Wake::Balance(event),
            Some(incoming) = inbox.calls.recv() => Wake::Call(incoming),
            Some((run, line)) = inbox.apps.recv() => Wake::App(run, line),
            Some(event) = inbox.logs.recv() => Wake::Log(event),
            () = bus.changed() => Wake::Subscribers,
            _ = worker.tick() => Wake::Worker,
            () = tokio::time::sleep(settings::QUIET), if is_bloated => Wake::Quiet,
        };
        let is_tick = matches!(wake, Wake::Worker);
        hub.on_wake(wake);
        hub.go_on_with_update();
        // One line for a whole interval: floods must not flood this log too.
        let n_dropped = if is_tick {
            inbox.n_dropped.swap(0, Ordering::Relaxed)
        } else {
            0
        };
        if n_dropped > 0 {
            journal::error(&format!(
                "{n_dropped} messages of apps dropped: they come too fast"
            ));
        }
    }
}

fn until_deadline(hub: &Hub) -> Option<Duration> {
    let now = musher_os::clock::now();
    let deadline = hub.supervisor.next_deadline(now)?;
    Some(Duration::from_millis(deadline.since(now.mono).get()))
}

impl Hub {
    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Child(event) => self.on_child(event),
            Wake::Deadline => self.handle(Event::Deadline),
            Wake::Balance(event) => self.on_balance(event),
            Wake::App(run, line) => self.on_app_message(run, &line),
            Wake::Log(event) => self.on_log(event),
            Wake::Keeper(note) => self.on_keeper(note),
            Wake::Signal(signal) => self.on_signal(signal),
            Wake::Call(Incoming::Call { id, call, reply }) => {
                self.is_bloated = true;
                self.on_call(id, *call, reply);
            }
            Wake::Call(Incoming::Gone(ids)) => {
                for id in ids {
                    self.waiting.remove(&id);
                    self.handle(Event::Abandoned(id));
                }
            }
            Wake::Subscribers => self.pump.set_subscribers(self.bus.n_subscribers()),
            Wake::Worker => self.sample(musher_os::clock::now()),
            Wake::Quiet => {
                self.is_bloated = false;
                musher_os::memory::give_back();
            }
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        if signal == settings::SIGUSR2 {
            drop(self.pump.reopen());
            return;
        }
        let now = musher_os::clock::now();
        self.log(&format!("{signal} received, ending every app"), now);
        self.bus
            .publish(payload::PM2_KILL, &payload::kill("by SIGNAL"));
        let views = self.supervisor.views(now);
        if !views.is_empty()
            && let Err(error) = crate::dump::write(&self.paths, &dump::encode(&views))
        {
            journal::error(&format!("could not save the list: {error}"));
        }
        self.handle(Event::Shutdown);
    }

    fn on_balance(&mut self, event: BalanceEvent) {
        match event {
            BalanceEvent::Said { run, message } => self.handle(Event::Message { run, message }),
            // Sorted out on the way here.
            BalanceEvent::Raw { .. } => {}
            BalanceEvent::Park { name, fd } => self.park(&name, fd.as_fd()),
            BalanceEvent::Channel { run, fd } => self.park_of(run, hub::IPC, fd.as_fd()),
            BalanceEvent::AllParked { round, n_failed } => self.parked_some(round, n_failed),
            BalanceEvent::Unpark { name } => {
                if let Some(keeper) = &self.keeper {
                    // A keeper that is gone holds nothing any more.
                    let _ = keeper.drop_fd(&name);
                }
            }
            BalanceEvent::Hung { run, is_hung } => self.on_hung(run, is_hung),
            BalanceEvent::Note(text) => self.log(&text, musher_os::clock::now()),
            BalanceEvent::Collected { run, collected } => self.collected(run, collected),
            BalanceEvent::Ticket { name, data } => self.store.save_ticket(name, data.to_string()),
        }
    }

    fn on_hung(&self, run: Incarnation, is_hung: bool) {
        let now = musher_os::clock::now();
        let owner = self.supervisor.owner(run);
        let Some(view) = owner.and_then(|id| self.supervisor.view(id, now)) else {
            return;
        };
        let what = match is_hung {
            true => "does not respond: its connections go to the other workers",
            false => "responds again",
        };
        self.log(
            &format!("App [{}:{}] {what}", view.spec.name, view.pm_id),
            now,
        );
    }

    /// An app said something that is not Node's own.
    fn on_app_message(&mut self, run: Incarnation, line: &[u8]) {
        // Lone surrogates are valid in JavaScript and not here: such a message
        // reaches nobody, as it is not for supervision either.
        let Ok(message) = serde_json::from_slice(line) else {
            return;
        };
        let said = payload::classify(&message);
        if let Some(message) = said.tell {
            self.handle(Event::Message { run, message });
        }
        let Some(publication) = said.publish.filter(|_| self.bus.n_subscribers() > 0) else {
            return;
        };
        let now = musher_os::clock::now();
        if let Some(view) = self
            .supervisor
            .owner(run)
            .and_then(|id| self.supervisor.view(id, now))
        {
            let origin = payload::Origin::of(&view);
            let (name, event) = publication.event(&origin, now.wall);
            self.bus.publish(name, &event);
        }
    }

    fn on_log(&mut self, event: LogEvent) {
        match event {
            LogEvent::Text {
                pm_id,
                stream,
                text,
                at_ms,
                ..
            } => {
                let now = musher_os::clock::now();
                let Some(view) = self.supervisor.view(pm_id, now) else {
                    return;
                };
                let origin = payload::Origin::of(&view);
                let text = String::from_utf8_lossy(&text);
                let name = match stream {
                    Stream::Out => "log:out",
                    Stream::Err => "log:err",
                };
                self.bus
                    .publish(name, &payload::log(&origin, Wall(at_ms), &text));
            }
            LogEvent::Lost {
                pm_id,
                bytes,
                reason,
            } => {
                let reason = match reason {
                    LossReason::Subscriber => "a subscriber did not keep up".to_owned(),
                    LossReason::File(reason) => reason,
                };
                journal::error(&format!(
                    "{bytes} bytes of output of process {pm_id} lost: {reason}"
                ));
            }
            LogEvent::Drained { run } => self.drained(run),
        }
    }
}
