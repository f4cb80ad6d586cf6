//! Drains of real Node workers by the agent, under load of kept connections.

use super::house::{ALL, House};
use musher_core::app::{Balance, Upgraded};
use musher_core::supervisor::action::Channel;
use musher_core::supervisor::event::AppMessage;
use musher_core::time::Millis;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const LIMIT: Millis = Millis(20_000);

/// A client that keeps its connection.
struct Kept {
    stream: BufReader<TcpStream>,
    is_last: bool,
}

impl Kept {
    fn connect(port: u16) -> io::Result<Kept> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Kept {
            stream: BufReader::new(stream),
            is_last: false,
        })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    fn ask(&mut self) -> io::Result<String> {
        self.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        self.answer()
    }

    /// Reads one answer; returns its body.
    fn answer(&mut self) -> io::Result<String> {
        let mut len = None;
        let mut chunked = false;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            self.is_last |= line == "connection: close";
            chunked |= line == "transfer-encoding: chunked";
            if let Some(value) = line.strip_prefix("content-length: ") {
                len = value.parse::<usize>().ok();
            }
        }
        assert!(!chunked, "the apps of these tests know the length");
        let mut body = vec![0; len.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        String::from_utf8(body).map_err(io::Error::other)
    }
}

/// Clients that ask on one connection each as fast as they are answered.
struct Load {
    stop: Arc<AtomicBool>,
    n_ok: Arc<AtomicUsize>,
    n_reconnects: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16, n_clients: usize) -> Load {
        let load = Load {
            stop: Arc::default(),
            n_ok: Arc::default(),
            n_reconnects: Arc::default(),
            clients: Vec::new(),
        };
        let (stop, n_ok, again) = (&load.stop, &load.n_ok, &load.n_reconnects);
        let clients = (0..n_clients)
            .map(|_| {
                let (stop, n_ok, again) = (stop.clone(), n_ok.clone(), again.clone());
                std::thread::spawn(move || client(port, &stop, &n_ok, &again))
            })
            .collect();
        Load { clients, ..load }
    }

    fn wait(&self, house: &mut House, more: usize) {
        let goal = self.n_ok.load(Ordering::Relaxed) + more;
        house.until("more answers", |_| {
            self.n_ok.load(Ordering::Relaxed) >= goal
        });
    }

    /// Returns the failures, and how often a client had to connect again.
    fn finish(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let failures = clients.flat_map(|client| client.join().unwrap()).collect();
        (failures, self.n_reconnects.load(Ordering::Relaxed))
    }
}

fn client(
    port: u16,
    stop: &AtomicBool,
    n_ok: &AtomicUsize,
    n_reconnects: &AtomicUsize,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept = Kept::connect(port).unwrap();
    while !stop.load(Ordering::Relaxed) && failures.len() < 5 {
        match kept.ask() {
            Ok(_) => drop(n_ok.fetch_add(1, Ordering::Relaxed)),
            Err(error) => failures.push(error.to_string()),
        }
        if kept.is_last || !failures.is_empty() {
            n_reconnects.fetch_add(1, Ordering::Relaxed);
            kept = Kept::connect(port).unwrap();
        }
    }
    failures
}

fn house(balance: Balance, case: &'static str) -> House {
    let mut house = House::new(balance, case);
    house.agent = true;
    house
}

#[test]
fn the_agent_says_that_it_is_there_in_fork_and_cluster() {
    for channel in [Channel::Fork, Channel::Worker] {
        let mut house = house(Balance::Even, "talk");
        house.channel = channel;
        let run = house.start(0);
        house.wait_said(run, &AppMessage::AgentUp);
        house.wait_raw(run, "talking");
        house.balancer().send(run, br#"{"bye":1}"#.to_vec());
        house.wait_exit(run);
    }
}

#[test]
fn replacing_every_worker_under_load_keeps_every_connection() {
    const CLIENTS: usize = 16;
    for balance in ALL {
        for case in ["http", "slow"] {
            let mut house = house(balance, case);
            let runs = house.start_many(2);
            for run in &runs {
                house.wait_listening(*run);
            }
            let load = Load::start(house.port, CLIENTS);
            load.wait(&mut house, 100);
            let mut n_moved = 0;
            for (slot, old) in runs.into_iter().enumerate() {
                let successor = house.start(u32::try_from(slot).unwrap());
                house.wait_listening(successor);
                house.balancer().drain(old, LIMIT, Upgraded::Wait);
                let drained = house.wait_drained(old);
                assert_eq!(drained.n_left, 0, "{balance:?} {case}: {drained:?}");
                n_moved += drained.n_moved;
                house.kill(old);
                load.wait(&mut house, 100);
            }
            let (failures, n_reconnects) = load.finish();
            assert!(failures.is_empty(), "{balance:?} {case}: {failures:?}");
            assert_eq!(n_reconnects, 0, "{balance:?} {case}");
            assert!(n_moved as usize >= CLIENTS, "{balance:?} {case}: {n_moved}");
        }
    }
}

#[test]
fn without_an_heir_the_last_answer_says_so_and_nothing_fails() {
    for channel in [Channel::Worker, Channel::Fork] {
        let mut house = house(Balance::Even, "slow");
        house.channel = channel;
        let run = house.start(0);
        house.wait_raw(run, "listening");
        let mut clients: Vec<Kept> = (0..4).map(|_| Kept::connect(house.port).unwrap()).collect();
        for client in &mut clients {
            client.ask().unwrap();
        }
        clients[0]
            .write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        house.balancer().drain(run, LIMIT, Upgraded::Wait);
        house.until("the port is closed", |house| {
            let refused = TcpStream::connect(("127.0.0.1", house.port)).is_err();
            refused || channel == Channel::Worker
        });
        clients[0].answer().unwrap();
        for client in &mut clients[1..] {
            client.ask().unwrap();
            // In a worker the word may still be on its way at the first one.
            if !client.is_last {
                client.ask().unwrap();
            }
            assert!(client.is_last, "{channel:?}");
        }
        if !clients[0].is_last {
            clients[0].ask().unwrap();
        }
        let drained = house.wait_drained(run);
        assert_eq!((drained.n_moved, drained.n_left), (0, 0), "{drained:?}");
        // A probe of the port may have been accepted at the last moment.
        assert!(drained.n_finished >= 4, "{drained:?}");
        house.kill(run);
    }
}

#[test]
fn requests_under_way_are_answered_where_they_are_and_the_rest_moves() {
    for balance in ALL {
        let mut house = house(balance, "uploads");
        let old = house.start(0);
        house.wait_listening(old);
        let old_pid = house.pid_of(old).to_string();
        let mut body = Kept::connect(house.port).unwrap();
        body.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234")
            .unwrap();
        let mut chunked = Kept::connect(house.port).unwrap();
        chunked
            .write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
            .unwrap();
        let mut expecting = Kept::connect(house.port).unwrap();
        expecting
            .write(
                "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            )
            .unwrap();
        expecting.answer().unwrap();
        let mut pipelined = Kept::connect(house.port).unwrap();
        let mut half = Kept::connect(house.port).unwrap();
        half.ask().unwrap();
        half.write("GET / HT").unwrap();
        let mut silent = Kept::connect(house.port).unwrap();
        // Its answer comes after everything above was read.
        let mut last = Kept::connect(house.port).unwrap();
        last.ask().unwrap();
        last.ask().unwrap();
        let successor = house.start(0);
        house.wait_listening(successor);
        pipelined
            .write(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3))
            .unwrap();
        house.balancer().drain(old, LIMIT, Upgraded::Wait);
        for _ in 0..3 {
            pipelined.answer().unwrap();
        }
        // Idle ones are gone to the other worker.
        house.until("moved", |_| {
            last.ask().unwrap().split(' ').next() != Some(&old_pid)
        });
        assert_ne!(silent.ask().unwrap().split(' ').next(), Some(&*old_pid));
        body.write("56789").unwrap();
        assert_eq!(body.answer().unwrap(), format!("{old_pid} 10"));
        chunked.write("2\r\nfg\r\n0\r\n\r\n").unwrap();
        assert_eq!(chunked.answer().unwrap(), format!("{old_pid} 7"));
        expecting.write("abc").unwrap();
        assert_eq!(expecting.answer().unwrap(), format!("{old_pid} 3"));
        half.write("TP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(half.answer().unwrap(), format!("{old_pid} 0"));
        let drained = house.wait_drained(old);
        assert_eq!(drained.n_left, 0, "{balance:?} {drained:?}");
        for client in [
            &mut body,
            &mut chunked,
            &mut expecting,
            &mut half,
            &mut pipelined,
        ] {
            assert_ne!(client.ask().unwrap().split(' ').next(), Some(&*old_pid));
        }
    }
}

#[test]
fn an_app_that_closes_its_server_after_the_drain_notices_nothing() {
    for balance in ALL {
        let mut house = house(balance, "uploads");
        let run = house.start(0);
        let listening = house.wait_raw(run, "listening");
        let mut client = Kept::connect(house.port).unwrap();
        client.ask().unwrap();
        house.wait_listening(run);
        house.balancer().drain(run, LIMIT, Upgraded::Wait);
        // Without an heir it is left to the server's own patience.
        house.wait_drained(run);
        house.balancer().send(run, b"\"end\"".to_vec());
        let before = house.wait_raw(run, "before");
        assert_eq!(before["listening"], true, "{balance:?}");
        assert_eq!(before["address"], listening["address"], "{balance:?}");
        assert_eq!(
            house.wait_raw(run, "ended")["error"],
            serde_json::Value::Null
        );
    }
}

#[test]
fn servers_of_every_kind_of_address_are_drained() {
    for balance in ALL {
        let mut house = house(balance, "many");
        let old = house.start(0);
        let ports = house.wait_raw(old, "listening")["ports"].clone();
        let port = |at: usize| u16::try_from(ports[at].as_u64().unwrap()).unwrap();
        let successor = house.start(0);
        house.wait_raw(successor, "listening");
        house.until("every key", |house| house.n_keys(successor) == 3);
        let mut clients: Vec<Kept> = Vec::new();
        for at in [0, 1, 2] {
            // Both workers may get it: more are asked until the old one did.
            for _ in 0..8 {
                let mut client = Kept::connect(port(at)).unwrap();
                client.ask().unwrap();
                clients.push(client);
            }
        }
        house.balancer().drain(old, LIMIT, Upgraded::Wait);
        let old_pid = house.pid_of(old).to_string();
        for client in &mut clients {
            let body = client.ask().unwrap();
            // The worker's own port is nobody else's.
            if body == old_pid && !client.is_last {
                client.ask().unwrap();
            }
        }
        let drained = house.wait_drained(old);
        assert_eq!(drained.n_left, 0, "{balance:?} {drained:?}");
        assert!(
            drained.n_moved > 0 && drained.n_finished > 0,
            "{balance:?} {drained:?}"
        );
        for client in clients.iter_mut().filter(|client| !client.is_last) {
            assert_eq!(client.ask().unwrap(), house.pid_of(successor).to_string());
        }
    }
}

#[test]
fn upgraded_connections_wait_or_are_closed_with_1012() {
    for balance in ALL {
        for websockets in [Upgraded::Wait, Upgraded::Close { over: Millis(200) }] {
            let mut house = house(balance, "upgraded");
            let run = house.start(0);
            house.wait_listening(run);
            let mut clients: Vec<TcpStream> = (0..3).map(|_| upgrade(house.port)).collect();
            let limit = match websockets {
                Upgraded::Wait => Millis(1_500),
                Upgraded::Close { .. } => LIMIT,
            };
            house.balancer().drain(run, limit, websockets);
            for client in &mut clients {
                let mut answer = [0; 4];
                if websockets == Upgraded::Wait {
                    client.write_all(b"echo").unwrap();
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(&answer, b"echo");
                } else {
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, [0x88, 0x02, 0x03, 0xf4]);
                    client.shutdown(std::net::Shutdown::Write).unwrap();
                    assert_eq!(client.read(&mut answer).unwrap(), 0);
                }
            }
            let drained = house.wait_drained(run);
            let wanted = if websockets == Upgraded::Wait {
                (0, 3)
            } else {
                (3, 0)
            };
            assert_eq!((drained.n_closed, drained.n_left), wanted, "{balance:?}");
        }
    }
}

fn upgrade(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

#[test]
fn connections_of_a_plain_server_are_left_until_they_end() {
    for balance in ALL {
        let mut house = house(balance, "echo");
        let run = house.start(0);
        house.wait_listening(run);
        let mut client = TcpStream::connect(("127.0.0.1", house.port)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut answer = [0; 4];
        for n in 0..20 {
            client.write_all(b"echo").unwrap();
            client.read_exact(&mut answer).unwrap();
            if n == 5 {
                house.balancer().drain(run, LIMIT, Upgraded::Wait);
            }
        }
        drop(client);
        let drained = house.wait_drained(run);
        assert_eq!((drained.n_finished, drained.n_left), (1, 0), "{balance:?}");
    }
}

#[test]
fn tls_and_http2_finish_and_say_goodbye() {
    for channel in [Channel::Worker, Channel::Fork] {
        let mut house = house(Balance::Even, "secure");
        house.channel = channel;
        let run = house.start(0);
        house.wait_raw(run, "listening");
        house.balancer().send(run, b"1".to_vec());
        house.wait_raw(run, "asked");
        house.balancer().drain(run, LIMIT, Upgraded::Wait);
        assert_eq!(house.wait_raw(run, "late answer")["text"], "two");
        house.balancer().send(run, b"2".to_vec());
        assert_eq!(house.wait_raw(run, "secure answer")["connection"], "close");
        let drained = house.wait_drained(run);
        assert_eq!((drained.n_moved, drained.n_left), (0, 0), "{drained:?}");
    }
}

#[test]
fn an_app_that_meddles_with_nodes_internals_goes_on() {
    let mut house = house(Balance::Even, "meddler");
    let run = house.start(0);
    house.wait_listening(run);
    let mut client = Kept::connect(house.port).unwrap();
    client.ask().unwrap();
    house.balancer().drain(run, Millis(500), Upgraded::Wait);
    client.ask().unwrap();
    house.kill(run);
}

#[test]
fn a_drain_goes_on_under_a_later_daemon() {
    for balance in ALL {
        let mut house = house(balance, "slow");
        let old = house.start(0);
        house.wait_listening(old);
        let successor = house.start(1);
        house.wait_listening(successor);
        let load = Load::start(house.port, 8);
        load.wait(&mut house, 40);
        house.balancer().drain(old, LIMIT, Upgraded::Wait);
        house.replace_daemon();
        let drained = house.wait_drained(old);
        assert_eq!(drained.n_left, 0, "{balance:?} {drained:?}");
        load.wait(&mut house, 40);
        let (failures, _) = load.finish();
        // What the former daemon held in its hands died with it.
        assert!(failures.len() <= 8, "{balance:?}: {failures:?}");
    }
}
