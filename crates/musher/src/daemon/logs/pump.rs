//! The loop of the log thread.
//!
//! Level-triggered epoll over every pipe; a bounded round per source, so that a
//! flood delays the others by one round. Sources that trickle are served at most
//! a thousand times a second: the pipe collects what comes in between, which
//! turns a write per line into a write per millisecond.

use super::outlet::Outlet;
use super::source::{Desk, Served, Tap};
use super::{Command, Pipes, Shared, Sink, Source};
use musher_core::id::Incarnation;
use musher_os::fd;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Key of the waker; sources count from 1.
const WAKER: u64 = 0;

/// Descriptors reported by one wait.
const EVENTS_MAX: usize = 256;

/// Shortest time between two rounds that found little.
const PAUSE: Duration = Duration::from_millis(1);

/// A round of less than this found little: half of a default pipe.
const LITTLE_BYTES: usize = 32 * 1024;

/// Between two offers of what the daemon's queue did not take.
const OFFER_AGAIN: Duration = Duration::from_millis(20);

/// Between two looks at pipes that epoll did not take.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Rounds a pipe is read when the thread ends: more than the largest pipe holds.
const LAST_ROUNDS: usize = 2;

pub(super) struct Pump {
    epoll: OwnedFd,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    desk: Desk,
    taps: HashMap<u64, Tap>,
    runs: HashMap<Incarnation, Run>,
    last_key: u64,
    /// When the first source is due.
    tick_at: Option<Instant>,
    /// Sources the system would not watch.
    unwatched: Vec<u64>,
    /// The outlet still holds the end of a run.
    is_outlet_full: bool,
}

/// The sources of a run.
#[derive(Default)]
struct Run {
    keys: Vec<u64>,
    is_finished: bool,
}

impl Pump {
    pub(super) fn new(
        epoll: OwnedFd,
        inbox: Receiver<Command>,
        shared: Arc<Shared>,
        sink: Sink,
    ) -> Result<Pump, Errno> {
        let data = epoll::EventData::new_u64(WAKER);
        epoll::add(&epoll, &shared.waker, data, epoll::EventFlags::IN)?;
        Ok(Pump {
            epoll,
            inbox,
            desk: Desk::new(Outlet::new(sink, Arc::clone(&shared))),
            shared,
            taps: HashMap::new(),
            runs: HashMap::new(),
            last_key: WAKER,
            tick_at: None,
            unwatched: Vec::new(),
            is_outlet_full: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let timeout = self.timeout(Instant::now());
            // Interrupted or not: whatever is due is looked at anyway.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
            let now = Instant::now();
            let mut n_bytes = 0;
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKER => self.clear_waker(),
                    key => n_bytes += self.serve(key, now),
                }
            }
            for key in self.unwatched.clone() {
                n_bytes += self.serve(key, now);
            }
            if self.obey(now).is_break() {
                return self.stop(now);
            }
            self.tick(now);
            self.is_outlet_full = !self.desk.ways.outlet.flush();
            if (1..LITTLE_BYTES).contains(&n_bytes) {
                std::thread::sleep(PAUSE.saturating_sub(now.elapsed()));
            }
        }
    }

    fn timeout(&self, now: Instant) -> Option<Timespec> {
        let waits = [
            self.tick_at.map(|at| at.saturating_duration_since(now)),
            self.is_outlet_full.then_some(OFFER_AGAIN),
            (!self.unwatched.is_empty()).then_some(LOOK_AGAIN),
        ];
        let shortest = waits.into_iter().flatten().min()?;
        Timespec::try_from(shortest).ok()
    }

    fn clear_waker(&self) {
        let mut count = [0; 8];
        // EAGAIN: another round cleared it.
        let _ = rustix::io::read(&self.shared.waker, &mut count);
    }

    fn obey(&mut self, now: Instant) -> ControlFlow<()> {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Attach(source) => self.attach(*source, now),
                Command::Finish(run) => self.finish(run, now),
                Command::Reopen(done) => {
                    self.desk.ways.files.reopen(now);
                    // Who asked may have gone.
                    let _ = done.try_send(());
                }
                // Who asked may have gone.
                Command::ParkAll(answer) => drop(answer.send(self.pipes())),
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn pipes(&self) -> Pipes {
        let mut pipes = Pipes::default();
        for tap in self.taps.values() {
            match fd::dup(tap.fd()) {
                Ok(fd) => pipes.fds.push((tap.run(), tap.stream(), fd)),
                Err(_) => pipes.n_failed += 1,
            }
        }
        pipes
    }

    fn attach(&mut self, source: Source, now: Instant) {
        self.last_key += 1;
        let key = self.last_key;
        // A blocking pipe would stop every log; the flag is ours alone, the
        // writing end has its own.
        let _ = rustix::io::ioctl_fionbio(&source.fd, true);
        let tap = Tap::new(source, &mut self.desk, now);
        let data = epoll::EventData::new_u64(key);
        if epoll::add(&self.epoll, tap.fd(), data, epoll::EventFlags::IN).is_err() {
            // Closing the pipe would kill the app with SIGPIPE.
            self.unwatched.push(key);
        }
        self.runs.entry(tap.run()).or_default().keys.push(key);
        self.taps.insert(key, tap);
    }

    fn finish(&mut self, run: Incarnation, now: Instant) {
        let entry = self.runs.entry(run).or_default();
        entry.is_finished = true;
        let keys = entry.keys.clone();
        if keys.is_empty() {
            self.runs.remove(&run);
            self.desk.ways.outlet.drained(run);
        }
        for key in keys {
            if let Some(tap) = self.taps.get_mut(&key) {
                tap.begin_end(now);
            }
            self.serve(key, now);
        }
    }

    /// Reads one round of a source; returns how many bytes.
    fn serve(&mut self, key: u64, now: Instant) -> usize {
        let Some(tap) = self.taps.get_mut(&key) else {
            return 0;
        };
        match tap.serve(&mut self.desk, now) {
            Served::Open { n_bytes } => {
                if let Some(due_at) = tap.due_at() {
                    self.tick_at = Some(self.tick_at.map_or(due_at, |at| at.min(due_at)));
                }
                n_bytes
            }
            Served::Ended => {
                self.close(key, now);
                0
            }
        }
    }

    /// Looks at every source once one of them is due.
    fn tick(&mut self, now: Instant) {
        if self.tick_at.is_none_or(|at| now < at) {
            return;
        }
        let mut ended = Vec::new();
        for (key, tap) in &mut self.taps {
            match tap.tick(&mut self.desk, now) {
                Served::Open { .. } => {}
                Served::Ended => ended.push(*key),
            }
        }
        for key in ended {
            self.close(key, now);
        }
        self.tick_at = self.taps.values().filter_map(Tap::due_at).min();
    }

    fn close(&mut self, key: u64, now: Instant) {
        let Some(tap) = self.taps.remove(&key) else {
            return;
        };
        // Fails for an unwatched source only.
        let _ = epoll::delete(&self.epoll, tap.fd());
        self.unwatched.retain(|other| *other != key);
        let run = tap.run();
        tap.close(&mut self.desk, now);
        let Some(entry) = self.runs.get_mut(&run) else {
            return;
        };
        entry.keys.retain(|other| *other != key);
        if entry.is_finished && entry.keys.is_empty() {
            self.runs.remove(&run);
            self.desk.ways.outlet.drained(run);
        }
    }

    /// Writes what the pipes hold.
    fn stop(mut self, now: Instant) {
        let keys: Vec<u64> = self.taps.keys().copied().collect();
        for key in keys {
            if let Some(tap) = self.taps.get_mut(&key) {
                tap.begin_end(now);
            }
            for _ in 0..LAST_ROUNDS {
                self.serve(key, now);
            }
            self.close(key, now);
        }
        self.desk.ways.outlet.flush();
    }
}
