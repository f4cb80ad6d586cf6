//! A load client that forgives nothing, for the suites and the bench.
//!
//! Closed loop: each connection sends its next request when the last one is
//! answered. A request that was sent and not answered in full is a failure of a
//! named kind, whoever lost the race; nothing is ever retried to hide it. What
//! is no failure is counted beside: connections that ended while nothing was
//! under way.

mod http;
mod lines;
mod options;
mod tally;
mod websocket;
mod wire;

use options::{Kind, Options};
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tally::Tally;
use wire::Fault;

/// After a failure a client waits before it tries again: a server that is gone
/// for a second is not worth a million refused connections.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);
/// What each client thread needs; hundreds of them are started.
const STACK_BYTES: usize = 256 * 1024;

/// One client: its connection, if it holds one, and how it asks.
pub(crate) trait Client {
    /// Sends one request and waits for the whole answer.
    ///
    /// # Errors
    /// The kind of failure; the connection is dropped by then.
    fn ask(&mut self, tally: &Mutex<Tally>) -> Result<(), Fault>;
}

/// What all client threads share.
struct Run {
    options: Options,
    /// Set when no further request is to be sent.
    is_over: AtomicBool,
    n_left: AtomicU64,
    end_at: Instant,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("musher-load: {mistake}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let is_controlled = options.is_controlled;
    let run = Arc::new(Run {
        is_over: AtomicBool::new(false),
        n_left: AtomicU64::new(options.max_requests),
        end_at: Instant::now() + options.at_most,
        options,
    });
    let tallies: Vec<Arc<Mutex<Tally>>> = (0..run.options.connections)
        .map(|_| Arc::default())
        .collect();
    if is_controlled {
        obey(&run, &tallies);
    }
    let began = Instant::now();
    let clients: Vec<_> = tallies
        .iter()
        .zip(0..)
        .filter_map(|(tally, number)| {
            let (run, tally) = (Arc::clone(&run), Arc::clone(tally));
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn(move || run.live(number, &tally)).ok()
        })
        .collect();
    for client in clients {
        // A client that panicked has not counted what it lost: say so.
        if client.join().is_err() {
            return ExitCode::FAILURE;
        }
    }
    print(&tallies, began);
    ExitCode::SUCCESS
}

/// Follows stdin: a line asks for the counts so far, its end ends the load.
fn obey(run: &Arc<Run>, tallies: &[Arc<Mutex<Tally>>]) {
    let (run, tallies, began) = (Arc::clone(run), tallies.to_vec(), Instant::now());
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            print(&tallies, began);
        }
        run.is_over.store(true, Ordering::Relaxed);
    });
}

fn print(tallies: &[Arc<Mutex<Tally>>], began: Instant) {
    let mut sum = Tally::default();
    for tally in tallies {
        sum.add(&tally.lock().expect("no client panics while it counts"));
    }
    let mut out = std::io::stdout().lock();
    // A reader that is gone wants no counts.
    let _ = writeln!(out, "{}", sum.to_json(began.elapsed()));
    let _ = out.flush();
}

impl Run {
    fn live(&self, number: u64, tally: &Mutex<Tally>) {
        let mut client: Box<dyn Client> = match self.options.kind {
            Kind::KeepAlive => Box::new(http::HttpClient::keep_alive(&self.options)),
            Kind::Fresh => Box::new(http::HttpClient::fresh(&self.options)),
            Kind::WebSocket => Box::new(websocket::WebSocketClient::new(&self.options, number)),
            Kind::Lines => Box::new(lines::LineClient::new(&self.options)),
        };
        let mut random = self
            .options
            .seed
            .wrapping_add(number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            | 1;
        while self.may_ask() {
            let began = Instant::now();
            let result = client.ask(tally);
            let mut sums = tally.lock().expect("no client panics while it counts");
            sums.n_requests += 1;
            match result {
                Ok(()) => sums.answered(began.elapsed()),
                Err(fault) => sums.failed(&fault, number),
            }
            let has_failed = sums.has_just_failed;
            drop(sums);
            let pause = if has_failed {
                PAUSE_AFTER_FAILURE
            } else {
                self.pause(&mut random)
            };
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }

    fn may_ask(&self) -> bool {
        if self.is_over.load(Ordering::Relaxed) || Instant::now() >= self.end_at {
            return false;
        }
        let take = |left: u64| left.checked_sub(1);
        self.n_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Returns a pause between the bounds of `--pause`, from a sequence of its own.
    fn pause(&self, random: &mut u64) -> Duration {
        // xorshift64, Marsaglia 2003.
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let (from, to) = self.options.pause_us;
        Duration::from_micros(from + *random % (to - from + 1))
    }
}
