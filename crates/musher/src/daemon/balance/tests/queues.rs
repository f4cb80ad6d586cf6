//! What the queues tell: who is spread over, who hangs, who belongs where.

use super::Load;
use super::house::{ALL, House, get};
use musher_core::app::{Balance, Sticky};
use musher_core::id::Incarnation;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn house(balance: Balance, n_workers: u32) -> (House, Vec<Incarnation>) {
    let mut house = House::new(balance, "http");
    let runs = house.start_many(n_workers);
    for run in &runs {
        house.wait_listening(*run);
    }
    (house, runs)
}

/// Opens connections that stay, asks once over each, and counts who answers.
fn burst(house: &House, n: usize) -> BTreeMap<String, usize> {
    let mut clients: Vec<TcpStream> = (0..n)
        .map(|_| TcpStream::connect(("127.0.0.1", house.port)).unwrap())
        .collect();
    let mut counts = BTreeMap::new();
    for client in &mut clients {
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
    }
    for client in &mut clients {
        *counts.entry(pid_of_answer(client)).or_default() += 1;
    }
    counts
}

/// Reads one answer and returns its body, the worker's pid.
fn pid_of_answer(client: &mut TcpStream) -> String {
    let mut answer = String::new();
    let mut chunk = [0; 1024];
    loop {
        let len = client.read(&mut chunk).unwrap();
        assert!(len > 0, "the server closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&chunk[..len]).unwrap());
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            return body.to_owned();
        }
    }
}

/// Opens connections that stay, one after the other, and returns who answered.
fn in_turn(house: &House, n: usize) -> Vec<String> {
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..n {
        let mut client = TcpStream::connect(("127.0.0.1", house.port)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        servers.push(pid_of_answer(&mut client));
        clients.push(client);
    }
    servers
}

/// True if forty connections go round `n` workers without a slip. By a hash
/// that happens once in 10^10 times.
fn takes_turns(house: &House, n: usize) -> bool {
    let servers = in_turn(house, 40);
    let is_round = |round: &[String]| round.iter().collect::<BTreeSet<_>>().len() == round.len();
    servers.chunks(n).all(is_round)
}

/// True if the kernel lets this process load programs; says so if not.
fn may_choose() -> bool {
    let may = musher_os::bpf::Turns::load().is_ok();
    if !may {
        eprintln!("skipped: this process may load no eBPF program");
    }
    may
}

#[test]
fn workers_take_strict_turns_also_under_a_later_daemon() {
    let (mut house, mut runs) = house(Balance::Even, 4);
    if !may_choose() {
        return;
    }
    // A machine that is busy elsewhere lets queues wait, which others serve.
    house.until("they take turns", |house| takes_turns(house, 4));
    // Not the order of listening any more.
    for slot in [2, 0] {
        house.kill(runs[slot]);
        runs[slot] = house.start(u32::try_from(slot).unwrap());
        house.wait_listening(runs[slot]);
    }
    house.replace_daemon();
    house.until("every slot is live again", |house| takes_turns(house, 4));
    house.kill(runs[1]);
    house.until("the dead one is passed over", |house| takes_turns(house, 3));
}

#[test]
fn a_stopped_worker_keeps_nobody_waiting_whom_it_had_not_accepted() {
    let (mut house, runs) = house(Balance::Even, 2);
    let load = Load::start(house.port, 8);
    load.wait(&mut house, 50);
    house.stop(runs[0]);
    // Some clients may be in the worker that stopped; they wait for it.
    house.until("it is found to hang", |house| {
        house.hung == [(runs[0], true)]
    });
    let port = house.port;
    for _ in 0..20 {
        let asked = Instant::now();
        get(port).unwrap();
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
    }
    house.cont(runs[0]);
    house.until("it is back", |house| {
        house.hung == [(runs[0], true), (runs[0], false)]
    });
    let both = |house: &mut House| burst(house, 20).len() == 2;
    house.until("it serves again", both);
    let failures = load.finish();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn a_suspended_worker_gets_no_connection_until_it_is_resumed() {
    for balance in [Balance::Even, Balance::RoundRobin] {
        let (mut house, runs) = house(balance, 2);
        if balance == Balance::Even && !may_choose() {
            continue;
        }
        house.balancer().suspend(runs[0]);
        let other = house.pid_of(runs[1]).to_string();
        house.until("only the other serves", |house| {
            let counts = burst(house, 10);
            counts.len() == 1 && counts.contains_key(&other)
        });
        house.balancer().resume(runs[0]);
        house.until("both serve", |house| burst(house, 10).len() == 2);
    }
}

#[test]
fn an_app_that_nobody_asks_does_not_wake_the_thread() {
    let (mut house, _) = house(Balance::Even, 4);
    burst(&house, 20);
    let ticks = |house: &mut House| house.n_waits();
    let mut before = ticks(&mut house);
    house.until("it rests", |house| {
        std::thread::sleep(Duration::from_millis(200));
        let later = house.n_waits();
        let rests = later - before <= 2;
        before = later;
        rests
    });
}

#[test]
fn a_client_stays_with_its_worker_by_address_and_by_cookie() {
    let ask = |port: u16, head: &str, pieces: usize| {
        let mut client = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        for piece in head.as_bytes().chunks(head.len().div_ceil(pieces)) {
            client.write_all(piece).unwrap();
            client.flush().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        pid_of_answer(&mut client)
    };
    let plain = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let cookie = |value: usize| {
        format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: app=v{value}\r\nConnection: close\r\n\r\n")
    };
    for sticky in [Sticky::Ip, Sticky::Cookie("app".into())] {
        let mut house = House::new(Balance::RoundRobin, "http");
        house.sticky = Some(sticky.clone());
        for run in house.start_many(3) {
            house.wait_listening(run);
        }
        let by_cookie = sticky != Sticky::Ip;
        for value in 0..6 {
            let head = if by_cookie {
                cookie(value)
            } else {
                plain.to_owned()
            };
            let first = ask(house.port, &head, 1);
            for pieces in [1, 3, 9] {
                assert_eq!(ask(house.port, &head, pieces), first, "{sticky:?}");
            }
        }
        if by_cookie {
            let spread: BTreeMap<_, _> = (0..6).map(|_| (ask(house.port, plain, 1), ())).collect();
            assert_eq!(spread.len(), 3, "without cookie they take turns");
        }
    }
}

#[test]
fn a_hung_worker_of_every_mode_lets_the_others_serve() {
    for balance in ALL {
        let (mut house, runs) = house(balance, 3);
        let load = Load::start(house.port, 3);
        load.wait(&mut house, 30);
        house.stop(runs[2]);
        let before = load.n_ok.load(Ordering::Relaxed);
        let port = house.port;
        let served =
            (0..30).filter(|_| super::house::get_within(port, Duration::from_secs(2)).is_ok());
        // Round robin learns from a connection it hands over that its worker
        // does not answer.
        assert!(served.count() >= 28, "{balance:?}");
        assert!(before > 0);
        house.cont(runs[2]);
        load.wait(&mut house, 10);
        let failures = load.finish();
        assert!(failures.is_empty(), "{balance:?}: {failures:?}");
    }
}
