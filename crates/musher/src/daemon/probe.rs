//! Asks apps whether they are well: one question, one answer, in time.
//!
//! The supervisor says what to ask and what follows from the answer; here is
//! only the asking. Each question is a task of the loop that waits and never
//! blocks. A cluster worker shares its port with others, so it is asked over a
//! connection that is handed to it and to nobody else; every other app is
//! connected to. Names are not looked up: a probe asks a numeric address.

mod exec;
mod http;
mod question;

use super::balance::{Injector, Probed};
use super::scout::Scout;
use musher_core::app::probe::{Check, HttpCheck, ProbeKind};
use musher_core::cluster::probing::Refusal;
use musher_core::id::Incarnation;
use musher_core::supervisor::{Event, SpawnPlan};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};

/// Questions under way at the same time. Further ones wait, and their time
/// begins when they are asked: an answer that is late is better than one that
/// is wrong because the machine is busy.
const MAX_IN_FLIGHT: usize = 256;

/// Strangers that may connect to the port of a private pair before it is given
/// up.
const MAX_STRANGERS: usize = 16;

/// One question.
pub(crate) struct Question {
    /// Who is asked.
    pub(crate) run: Incarnation,
    /// Which probe.
    pub(crate) kind: ProbeKind,
    /// What; no port of it is 0, unless a worker is asked for its only one.
    pub(crate) check: Check,
    /// How long the answer may take.
    pub(crate) timeout: Duration,
    /// How it is reached.
    pub(crate) way: Way,
}

/// How an app is reached.
pub(crate) enum Way {
    /// By its address.
    Address,
    /// A connection is handed to it.
    Worker(Injector),
    /// By a command, which is started by this plan.
    Command(Box<SpawnPlan>),
}

/// All questions under way. Dropping it, or forgetting a run, ends them without
/// an answer.
pub(crate) struct Prober {
    events: UnboundedSender<Event>,
    /// By run: whoever holds the other end goes on.
    asked: HashMap<Incarnation, Vec<oneshot::Sender<()>>>,
    room: Rc<Semaphore>,
    scout: Scout,
}

impl Prober {
    /// Answers go to `events`: one for each question. `scout` finds what is
    /// left of commands.
    pub(crate) fn new(events: UnboundedSender<Event>, scout: Scout) -> Prober {
        Prober {
            events,
            asked: HashMap::new(),
            room: Rc::new(Semaphore::new(MAX_IN_FLIGHT)),
            scout,
        }
    }

    /// Asks; [`Event::Probed`] follows once, unless the run is forgotten before.
    pub(crate) fn ask(&mut self, question: Question) {
        let (keep, forgotten) = oneshot::channel();
        let asked = self.asked.entry(question.run).or_default();
        asked.retain(|question| !question.is_closed());
        asked.push(keep);
        let answer = Answer {
            run: question.run,
            kind: question.kind,
            events: self.events.clone(),
        };
        let (room, scout) = (Rc::clone(&self.room), self.scout.clone());
        tokio::task::spawn_local(async move {
            let mut forgotten = forgotten;
            // The semaphore is never closed.
            let permit = tokio::select! {
                biased;
                _ = &mut forgotten => return,
                permit = room.acquire() => permit,
            };
            question.ask(&scout, answer, forgotten).await;
            drop(permit);
        });
    }

    /// Answers at once: the question cannot even be asked.
    pub(crate) fn fail(&self, run: Incarnation, kind: ProbeKind, reason: String) {
        let events = self.events.clone();
        Answer { run, kind, events }.give(Err(reason));
    }

    /// The run is over: nothing about it is answered any more.
    pub(crate) fn forget(&mut self, run: Incarnation) {
        self.asked.remove(&run);
    }
}

/// Where the answer goes.
struct Answer {
    run: Incarnation,
    kind: ProbeKind,
    events: UnboundedSender<Event>,
}

impl Answer {
    fn give(self, outcome: Result<(), String>) {
        // A closed inbox means that the daemon ends.
        let _ = self.events.send(Event::Probed {
            run: self.run,
            kind: self.kind,
            outcome,
        });
    }
}

impl Question {
    async fn ask(self, scout: &Scout, answer: Answer, mut forgotten: oneshot::Receiver<()>) {
        if let Way::Command(plan) = &self.way {
            return exec::ask(plan, self.timeout, scout, answer, forgotten).await;
        }
        let asking = tokio::time::timeout(self.timeout, self.connect_and_ask());
        let outcome = tokio::select! {
            biased;
            _ = &mut forgotten => return,
            outcome = asking => outcome,
        };
        let about = About(&self.check);
        match outcome {
            Ok(Ok(rest)) => {
                answer.give(Ok(()));
                if let Some(stream) = rest {
                    http::hear_out(stream, forgotten).await;
                }
            }
            Ok(Err(reason)) => answer.give(Err(format!("{about} {reason}"))),
            Err(_) => {
                let limit = self.timeout.as_millis();
                answer.give(Err(format!("{about} was not answered within {limit} ms")));
            }
        }
    }

    /// Returns the connection while the app may still be speaking.
    async fn connect_and_ask(&self) -> Result<Option<TcpStream>, String> {
        match &self.check {
            Check::Tcp { host, port } => self.connect(host, *port).await.map(|_| None),
            Check::Http(check) => {
                let stream = self.connect(&check.host, check.port).await?;
                http::ask(stream, check).await.map(Some)
            }
            Check::Exec { .. } => Err("has no command".to_owned()),
        }
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        match &self.way {
            Way::Worker(injector) if is_loopback(host) => {
                match self.hand_over(injector, port).await? {
                    Some(stream) => Ok(stream),
                    // It binds by itself: whoever listens there is asked.
                    None => by_address(host, port).await,
                }
            }
            Way::Worker(_) | Way::Address | Way::Command(_) => by_address(host, port).await,
        }
    }

    /// Returns our end of a connection that the worker took; `None` if the port
    /// is none of musher's.
    async fn hand_over(&self, injector: &Injector, port: u16) -> Result<Option<TcpStream>, String> {
        let (ours, theirs) = private_pair().await.map_err(|error| says(&error))?;
        let theirs = theirs.into_std().map_err(|error| says(&error))?;
        let probed = injector.inject(self.run, port, theirs.into()).await;
        let at = match port {
            0 => "any port".to_owned(),
            port => format!("port {port}"),
        };
        match probed {
            Ok(Probed::Taken) => Ok(Some(ours)),
            Ok(Probed::Refused(Refusal::Unknown)) => Ok(None),
            Ok(Probed::Closed) => Err("failed: the process closed the connection".to_owned()),
            Ok(Probed::Refused(Refusal::NotListening)) => {
                Err(format!("failed: the process does not listen on {at} yet"))
            }
            Ok(Probed::Refused(Refusal::Ambiguous)) => Err(
                "failed: the process listens on several ports; say which one with `port`"
                    .to_owned(),
            ),
            Ok(Probed::Refused(Refusal::Stuck)) => {
                Err("failed: the process has not taken the last connections".to_owned())
            }
            Ok(Probed::Refused(Refusal::Gone)) | Err(_) => {
                Err("failed: the process has ended".to_owned())
            }
        }
    }
}

/// What was asked, for people.
struct About<'a>(&'a Check);

impl std::fmt::Display for About<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Check::Http(HttpCheck {
                host, port, path, ..
            }) => match port {
                0 => write!(f, "GET {path}"),
                port => write!(f, "GET http://{}:{port}{path}", bracketed(host)),
            },
            Check::Tcp { host, port } => {
                write!(f, "a connection to {}:{port}", bracketed(host))
            }
            Check::Exec { command } => f.write_str(&command.join(" ")),
        }
    }
}

fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// Returns the addresses of a host, in the order to try; none for a name, which
/// the configuration refuses.
fn addresses(host: &str) -> Vec<IpAddr> {
    match host {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => host.parse().into_iter().collect(),
    }
}

fn is_loopback(host: &str) -> bool {
    let addresses = addresses(host);
    !addresses.is_empty() && addresses.iter().all(|address| address.is_loopback())
}

async fn by_address(host: &str, port: u16) -> Result<TcpStream, String> {
    let mut last = format!("failed: {host:?} is no numeric address");
    for address in addresses(host) {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = says(&error),
        }
    }
    Err(last)
}

/// Returns both ends of a TCP connection over loopback that nobody else has
/// seen: ours and the worker's.
async fn private_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let me = ours.local_addr()?;
    for _ in 0..MAX_STRANGERS {
        let (theirs, peer) = listener.accept().await?;
        if peer == me {
            return Ok((ours, theirs));
        }
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// Returns what is said of a failed call: `failed: connection refused`.
fn says(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("failed: {}", musher_os::spawn::reason(errno)),
        None => format!("failed: {error}"),
    }
}

#[cfg(test)]
mod tests;
