//! The thread itself: waits for channels, sockets and commands, and takes in
//! what they bring.

use super::channel::{Link, Readable};
use super::measure::Gauge;
use super::names::{self, ListenerName};
use super::socket::{Listener, name_of, now, path_of};
use super::spread::Chooser;
use super::{Answer, BalanceEvent, Child, Command, Probe, Probed};
use musher_core::cluster::message::{FromWorker, SocketOptions};
use musher_core::cluster::{ClusterAction, ConnectionId, Primary, SocketId};
use musher_core::id::Incarnation;
use musher_core::supervisor::event::AppMessage;
use musher_core::time::{Millis, Mono};
use musher_core::wire::node_ipc::{self, Line};
use musher_os::fd::{self, Blocking};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use tokio::sync::oneshot;

/// A descriptor that waits in send queues while others hold it too.
pub(crate) type Shared = Arc<OwnedFd>;

/// How many readiness events are taken at once.
const EVENTS_PER_WAIT: usize = 256;

/// Longest wait for workers that have not taken their connections yet.
const LEAVE_LIMIT: Millis = Millis(200);

/// Tokens of epoll: the kind above, the id below.
const KIND_SHIFT: u32 = 60;
const WAKE: u64 = 0;
pub(super) const CHANNEL: u64 = 1;
pub(super) const LISTENER: u64 = 2;
pub(super) const QUEUES: u64 = 3;
pub(super) const CONNECTION: u64 = 4;

/// Everything the thread owns.
pub(super) struct Thread {
    pub(super) epoll: OwnedFd,
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    pub(super) on_event: Box<dyn FnMut(BalanceEvent) + Send>,
    pub(super) primary: Primary,
    pub(super) links: HashMap<Incarnation, Link>,
    pub(super) listeners: HashMap<SocketId, Listener>,
    pub(super) connections: HashMap<ConnectionId, Shared>,
    /// Those that are registered with epoll until it is known whose they are.
    pub(super) looking: HashSet<ConnectionId>,
    /// Who is told what became of a probe's connection.
    pub(super) probes: HashMap<ConnectionId, oneshot::Sender<Probed>>,
    pub(super) last_connection: u64,
    /// No further connection is accepted, and the thread ends as soon as those
    /// accepted are handed over, or then.
    pub(super) leave_by: Option<Mono>,
    /// Sockets not watched after a failed accept, and until when.
    pub(super) paused: VecDeque<(Mono, SocketId)>,
    pub(super) actions: VecDeque<ClusterAction>,
    pub(super) gauge: Gauge,
    /// The kernel said once that no program may be loaded.
    pub(super) is_ebpf_refused: bool,
    /// One end of a connection that nobody uses.
    pub(super) nobody: Shared,
}

impl Thread {
    pub(super) fn new(
        first_seq: u64,
        inbox: Receiver<Command>,
        wake: Arc<OwnedFd>,
        on_event: Box<dyn FnMut(BalanceEvent) + Send>,
    ) -> io::Result<Thread> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, token(WAKE, 0), EventFlags::IN)?;
        let gauge = Gauge::new()?;
        gauge.register(&epoll)?;
        let (nobody, _) = fd::socketpair(Blocking::NeverWaits)?;
        Ok(Thread {
            epoll,
            inbox,
            wake,
            on_event,
            primary: Primary::new(first_seq),
            links: HashMap::new(),
            listeners: HashMap::new(),
            connections: HashMap::new(),
            looking: HashSet::new(),
            probes: HashMap::new(),
            last_connection: 0,
            leave_by: None,
            paused: VecDeque::new(),
            actions: VecDeque::new(),
            gauge,
            is_ebpf_refused: false,
            nobody: Arc::new(nobody),
        })
    }

    /// Works until the handle is dropped.
    pub(super) fn run(&mut self) {
        let mut ready = Vec::with_capacity(EVENTS_PER_WAIT);
        loop {
            ready.clear();
            let timeout = self.timeout();
            let spare = rustix::buffer::spare_capacity(&mut ready);
            // The only expected failure is EINTR, after which nothing is ready.
            let _ = epoll::wait(&self.epoll, spare, timeout.as_ref());
            for event in &ready {
                let data = event.data.u64();
                let id = data & ((1 << KIND_SHIFT) - 1);
                match data >> KIND_SHIFT {
                    CHANNEL => self.on_channel(Incarnation(id), event.flags),
                    LISTENER => self.accept(SocketId(id)),
                    QUEUES => self.gauge.wake(),
                    CONNECTION => self.on_connection(ConnectionId(id)),
                    _ => {
                        let mut count = [0_u8; 8];
                        let _ = rustix::io::read(&self.wake, &mut count);
                    }
                }
            }
            if !self.take_commands() {
                return;
            }
            self.on_time();
            if self.has_left() {
                return;
            }
        }
    }

    /// Returns whether the next daemon can go on: connections that were accepted
    /// are workers', and what was sent is in their channels.
    fn has_left(&self) -> bool {
        self.leave_by.is_some_and(|by| {
            let is_idle = self.links.values().all(Link::is_idle);
            now() >= by || (is_idle && self.connections.is_empty())
        })
    }

    fn timeout(&self) -> Option<Timespec> {
        let stalled = self.links.values().filter_map(|link| link.stalled_until);
        let paused = self.paused.iter().map(|(at, _)| *at);
        let next = stalled
            .chain(paused)
            .chain(self.gauge.next())
            .chain(self.primary.next_deadline())
            .chain(self.leave_by)
            .min()?;
        let millis = next.since(now()).get();
        Timespec::try_from(std::time::Duration::from_millis(millis)).ok()
    }

    fn on_time(&mut self) {
        let time = now();
        if self.primary.next_deadline().is_some_and(|at| at <= time) {
            self.decide(|primary, out| primary.on_time(time, out));
        }
        self.read_queues(time);
        while let Some((at, socket)) = self.paused.front().copied()
            && at <= time
        {
            self.paused.pop_front();
            self.set_interest(socket, EventFlags::IN);
        }
        let due = |link: &Link| link.stalled_until.is_some_and(|at| at <= time);
        let stalled: Vec<Incarnation> = self
            .links
            .iter()
            .filter(|(_, link)| due(link))
            .map(|(run, _)| *run)
            .collect();
        for run in stalled {
            self.flush(run);
        }
    }

    /// Returns false when the handle is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::End) => return false,
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = now();
        match command {
            Command::Add(child) => {
                let Child {
                    run,
                    app,
                    slot,
                    balance,
                    sticky,
                    channel,
                    fd,
                } = child;
                self.primary.add(run, app, slot, balance, channel);
                self.primary.set_sticky(run, sticky);
                self.attach(run, Link::new(fd));
            }
            Command::Send { run, json } => {
                if let Some(link) = self.links.get_mut(&run) {
                    link.push_user(&json);
                    self.flush(run);
                }
            }
            Command::Detach(run) => self.decide(|primary, out| primary.detach(run, now, out)),
            Command::Drain {
                run,
                limit,
                websockets,
            } => self.decide(|primary, out| primary.drain(run, limit, websockets, now, out)),
            Command::Collect { run, id } => {
                self.decide(|primary, out| primary.collect(run, id, out));
            }
            Command::Forget(run) => self.forget(run),
            Command::Overview(Answer(answer)) => answer(self.overview()),
            Command::Suspend { run, suspended } => {
                self.decide(|primary, out| primary.suspend(run, suspended, now, out));
            }
            Command::KeepSlots { app, live } => {
                self.decide(|primary, out| primary.keep_slots(&app, &live, out));
            }
            Command::RestoreListener { name, fd } => self.restore_listener(name, fd),
            Command::RestoreWorker { child, keys } => self.restore_worker(child, keys),
            Command::ParkAll { round } => self.park_all(round),
            Command::Leave => {
                self.leave_by = Some(now + LEAVE_LIMIT);
                self.paused.clear();
                for socket in self.listeners.keys() {
                    self.set_interest(*socket, EventFlags::empty());
                }
            }
            Command::Probe(probe) => self.probe(probe),
            Command::End => {}
            Command::RestoreTicket { name, data } => {
                if let Some((app, key)) = names::parse_ticket(&name) {
                    self.primary.restore_ticket(app, key, data);
                }
            }
        }
    }

    fn probe(&mut self, probe: Probe) {
        let Probe {
            run,
            port,
            fd,
            answer,
        } = probe;
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        self.connections.insert(connection, Arc::new(fd));
        let mut result = Ok(());
        self.probes.insert(connection, answer);
        self.decide(|primary, out| result = primary.probe(run, port, connection, out));
        if let Err(refusal) = result {
            self.connections.remove(&connection);
            self.answer_probe(connection, Probed::Refused(refusal));
        }
    }

    pub(super) fn answer_probe(&mut self, connection: ConnectionId, probed: Probed) {
        if let Some(answer) = self.probes.remove(&connection) {
            // Nobody waits any more: its time was up.
            let _ = answer.send(probed);
        }
    }

    fn attach(&mut self, run: Incarnation, link: Link) {
        let flags = EventFlags::IN | EventFlags::RDHUP;
        // Failing needs ENOMEM or the limit of watches; the child then reads
        // as one that says nothing.
        let _ = epoll::add(&self.epoll, &link.fd, token(CHANNEL, run.0), flags);
        self.links.insert(run, link);
    }

    fn restore_listener(&mut self, name: String, fd: OwnedFd) {
        let Some(parsed) = ListenerName::parse(&name) else {
            return;
        };
        let ListenerName {
            app,
            slot,
            backlog,
            order,
            endpoint,
        } = parsed;
        let path = path_of(&endpoint);
        let options = SocketOptions {
            backlog,
            ..SocketOptions::default()
        };
        let bound = name_of(&fd);
        let socket = self
            .primary
            .restore_socket(app, slot, order, endpoint, options, bound);
        let listener = Listener {
            fd: Arc::new(fd),
            name: Some(name),
            path,
            watched: false,
            chooser: Chooser::Unknown,
        };
        self.listeners.insert(socket, listener);
    }

    fn restore_worker(&mut self, child: Child, keys: Vec<String>) {
        let Child {
            run,
            app,
            slot,
            balance,
            sticky,
            channel,
            fd,
        } = child;
        let keys: Vec<_> = keys
            .into_iter()
            .map(musher_core::cluster::message::Key)
            .collect();
        self.attach(run, Link::restored(fd));
        self.decide(|primary, out| {
            primary.restore_worker(run, app, slot, balance, channel, &keys, now(), out);
            primary.set_sticky(run, sticky);
        });
    }

    fn forget(&mut self, run: Incarnation) {
        // The child is dead: what it wrote before is finite.
        while let Some(link) = self.links.get_mut(&run) {
            let before = link.n_read();
            let end = link.read();
            let progress = self
                .links
                .get(&run)
                .is_some_and(|link| link.n_read() > before);
            self.read_lines(run);
            if end == Readable::Ended || !progress {
                break;
            }
        }
        self.close_link(run);
    }

    fn on_channel(&mut self, run: Incarnation, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(run);
        }
        let readable = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let Some(link) = self
            .links
            .get_mut(&run)
            .filter(|_| flags.intersects(readable))
        else {
            return;
        };
        let end = link.read();
        self.read_lines(run);
        if end == Readable::Ended {
            self.close_link(run);
        }
    }

    fn read_lines(&mut self, run: Incarnation) {
        while let Some(link) = self.links.get_mut(&run)
            && let Some(line) = link.next_line()
        {
            match node_ipc::read(&line) {
                Line::User => {
                    self.hear(run, &line);
                    (self.on_event)(BalanceEvent::Raw { run, line });
                }
                Line::Ready => {
                    (self.on_event)(BalanceEvent::Said {
                        run,
                        message: AppMessage::Ready,
                    });
                }
                Line::Internal { message, bun } => {
                    link.bun |= bun;
                    self.on_internal(run, message);
                }
            }
        }
    }

    fn on_internal(&mut self, run: Incarnation, message: FromWorker) {
        let carries = matches!(message, FromWorker::Handle | FromWorker::HandOver(_));
        let link = self.links.get_mut(&run).filter(|_| carries);
        let fd = link.and_then(Link::take_fd);
        match (message, fd) {
            (FromWorker::HandOver(place), Some(fd)) => {
                let connection = self.take_connection(fd);
                self.decide(|p, out| p.handed_over(run, connection, &place, now(), out));
            }
            // User-level sockets have no use here; the copy is closed.
            (message, fd) => {
                let arrived = fd.is_some();
                self.decide(|p, out| p.on_message(run, message, arrived, now(), out));
            }
        }
    }

    fn close_link(&mut self, run: Incarnation) {
        let Some(link) = self.links.remove(&run) else {
            return;
        };
        // A duplicate kept elsewhere would keep the registration alive
        // (epoll(7), Q6).
        let _ = epoll::delete(&self.epoll, &link.fd);
        drop(link);
        self.decide(|primary, out| primary.gone(run, now(), out));
    }
}

pub(super) fn token(kind: u64, id: u64) -> EventData {
    EventData::new_u64(kind << KIND_SHIFT | id)
}
