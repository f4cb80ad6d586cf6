//! The balance thread under real Node: unmodified apps, real sockets.
//!
//! Every case runs in every mode of balancing. The program is `node` of PATH,
//! or what `MUSHER_TEST_NODE` names.

mod drain;
mod house;
mod queues;

use crate::daemon::balance::Probed;
use house::{ALL, House, free_port, get, get_unix};
use musher_core::app::Balance;
use musher_core::cluster::probing::{Refusal, UNTAKEN_LIMIT};
use musher_core::exit::Signal;
use musher_core::supervisor::action::Channel;
use musher_core::supervisor::event::AppMessage;
use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn workers_serve_one_port_and_know_that_they_are_workers() {
    for balance in ALL {
        let mut house = House::new(balance, "http");
        let runs = house.start_many(3);
        for run in &runs {
            let said = house.wait_raw(*run, "listening");
            assert_eq!(said["isWorker"], true, "{balance:?}");
            assert_eq!(said["id"], run.0, "{balance:?}");
            house.wait_said(*run, &AppMessage::Online);
            house.wait_said(*run, &AppMessage::Ready);
            house.wait_listening(*run);
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..60 {
            *counts.entry(get(house.port).unwrap()).or_default() += 1;
        }
        match balance {
            Balance::RoundRobin => {
                let each: Vec<usize> = counts.values().copied().collect();
                assert_eq!(each, [20, 20, 20]);
            }
            Balance::Even => assert_eq!(counts.len(), 3, "{counts:?}"),
            Balance::Shared => assert!(!counts.is_empty()),
        }
    }
}

#[test]
fn every_worker_gets_the_same_random_ports() {
    for balance in ALL {
        let mut house = House::new(balance, "two_random_ports");
        let runs = house.start_many(2);
        let ports: Vec<_> = runs
            .iter()
            .map(|run| house.wait_raw(*run, "listening")["ports"].clone())
            .collect();
        assert_eq!(ports[0], ports[1], "{balance:?}");
        assert_ne!(ports[0][0], ports[0][1], "{balance:?}");
        for run in runs {
            house.wait_listening(run);
            house.wait_listening(run);
        }
        get(u16::try_from(ports[0][1].as_u64().unwrap()).unwrap()).unwrap();
    }
}

#[test]
fn a_unix_socket_is_shared_and_its_file_goes_with_the_app() {
    for balance in ALL {
        let mut house = House::new(balance, "unix");
        let runs = house.start_many(2);
        for run in runs {
            house.wait_raw(run, "listening");
            house.wait_listening(run);
        }
        let path = house.unix_path();
        for _ in 0..4 {
            get_unix(&path).unwrap();
        }
        house.balancer().keep_slots(house.app(), vec![]);
        house.until("the file is gone", |_| !path.exists());
    }
}

#[test]
fn datagrams_reach_a_worker() {
    for balance in ALL {
        let mut house = House::new(balance, "udp");
        for run in house.start_many(2) {
            house.wait_raw(run, "listening");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        for _ in 0..4 {
            socket.send_to(b"who", ("127.0.0.1", house.port)).unwrap();
            let mut answer = [0; 32];
            let len = socket.recv(&mut answer).unwrap();
            assert!(
                std::str::from_utf8(&answer[..len])
                    .unwrap()
                    .parse::<u32>()
                    .is_ok()
            );
        }
    }
}

#[test]
fn tls_workers_share_their_ticket_keys_also_under_a_later_daemon() {
    for balance in ALL {
        let mut house = House::new(balance, "tls");
        let runs = house.start_many(2);
        let keys: Vec<_> = runs
            .iter()
            .map(|run| house.wait_raw(*run, "listening")["keys"].clone())
            .collect();
        assert_eq!(keys[0], keys[1], "{balance:?}");
        for run in runs {
            house.kill(run);
        }
        let run = house.start(0);
        assert_eq!(
            house.wait_raw(run, "listening")["keys"],
            keys[0],
            "{balance:?}"
        );
    }
}

#[test]
fn a_port_in_use_is_an_error_of_the_app() {
    for balance in ALL {
        let mut house = House::new(balance, "twice");
        let run = house.start(0);
        assert_eq!(
            house.wait_raw(run, "second")["code"],
            "EADDRINUSE",
            "{balance:?}"
        );

        let foreign = TcpListener::bind("[::]:0").unwrap();
        let mut house = House::new(balance, "http");
        house.port = foreign.local_addr().unwrap().port();
        let run = house.start(0);
        assert_eq!(
            house.wait_raw(run, "error")["code"],
            "EADDRINUSE",
            "{balance:?}"
        );

        let mut house = House::new(balance, "descriptor");
        let run = house.start(0);
        assert_eq!(house.wait_raw(run, "error")["code"], "EBADF", "{balance:?}");

        let mut house = House::new(balance, "exclusive");
        let run = house.start(0);
        assert_eq!(
            house.wait_raw(run, "exclusive")["code"],
            "none",
            "{balance:?}"
        );
    }
}

#[test]
fn a_server_listens_again_after_it_was_closed() {
    for balance in ALL {
        let mut house = House::new(balance, "close_and_listen");
        for run in house.start_many(2) {
            house.wait_raw(run, "listening");
            house.wait_listening(run);
            house.wait_listening(run);
        }
        get(house.port).unwrap();
    }
}

#[test]
fn a_port_is_freed_when_every_worker_closed_its_server() {
    for balance in ALL {
        let mut house = House::new(balance, "close");
        let runs = house.start_many(2);
        for run in &runs {
            house.wait_listening(*run);
        }
        for run in &runs {
            get(house.port).unwrap();
            house.balancer().send(*run, b"1".to_vec());
            house.wait_raw(*run, "closed");
        }
        let port = house.port;
        house.until("the port is free", |_| {
            TcpListener::bind(("127.0.0.1", port)).is_ok()
        });
    }
}

#[test]
fn messages_pass_both_ways_in_fork_and_cluster() {
    for channel in [Channel::Fork, Channel::Worker] {
        let mut house = House::new(Balance::Even, "talk");
        house.channel = channel;
        let run = house.start(0);
        let said = house.wait_raw(run, "talking");
        assert_eq!(said["isWorker"], channel == Channel::Worker);
        let lines = house.lines_of(run);
        assert_eq!(lines[0], "\"héllo \u{2028} \u{1f600}\"".as_bytes());
        assert_eq!(lines[1], b"42");
        assert!(lines[2].len() > 300_000);
        assert_eq!(lines[3], br#"{"lone":"\ud800"}"#);
        house.balancer().send(run, br#"{"lone":"\ud800"}"#.to_vec());
        house.balancer().send(run, Vec::new());
        house.balancer().send(run, b"{\n}".to_vec());
        house.wait_line(run, br#""message":{"lone":"\ud800"}"#);
        let big = format!("{{\"big\":\"{}\"}}", "y".repeat(2_000_000));
        house.balancer().send(run, big.into_bytes());
        house.wait_line(run, b"yyyyyyyyyy\"}}");
        house.balancer().send(run, br#"{"bye":1}"#.to_vec());
        house.wait_exit(run);
    }
}

#[test]
fn a_worker_that_disconnects_leaves_by_itself() {
    for balance in ALL {
        let mut house = House::new(balance, "leave");
        let run = house.start(0);
        house.wait_listening(run);
        house.balancer().send(run, b"1".to_vec());
        house.wait_said(run, &AppMessage::Disconnecting);
        house.wait_exit(run);
        assert!(
            house.output(run).contains("exit 0 true"),
            "{}",
            house.output(run)
        );
    }
}

#[test]
fn a_full_app_keeps_its_clients_waiting_and_loses_none() {
    let mut house = House::new(Balance::RoundRobin, "few");
    for run in house.start_many(2) {
        house.wait_listening(run);
    }
    let port = house.port;
    let clients: Vec<_> = (0..12)
        .map(|_| std::thread::spawn(move || get(port)))
        .collect();
    for client in clients {
        client.join().unwrap().unwrap();
    }
}

#[test]
fn a_worker_without_descriptors_costs_no_connection() {
    let mut house = House::new(Balance::RoundRobin, "http");
    let runs = house.start_many(2);
    for run in &runs {
        house.wait_listening(*run);
    }
    house.take_descriptors_from(runs[0]);
    let other = house.pid_of(runs[1]).to_string();
    for _ in 0..20 {
        assert_eq!(get(house.port).unwrap(), other);
    }
}

/// Clients that connect, ask and close, until told to stop.
struct Load {
    stop: &'static AtomicBool,
    n_ok: &'static AtomicUsize,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16, n_clients: usize) -> Load {
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let n_ok: &'static AtomicUsize = Box::leak(Box::default());
        let client = move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match get(port) {
                    Ok(_) => drop(n_ok.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        };
        let clients = (0..n_clients).map(|_| std::thread::spawn(client)).collect();
        Load {
            stop,
            n_ok,
            clients,
        }
    }

    fn wait(&self, house: &mut House, more: usize) {
        let goal = self.n_ok.load(Ordering::Relaxed) + more;
        house.until("more answers", |_| {
            self.n_ok.load(Ordering::Relaxed) >= goal
        });
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    }
}

#[test]
fn a_killed_worker_costs_only_what_it_had_accepted() {
    const CLIENTS: usize = 4;
    for balance in ALL {
        let mut house = House::new(balance, "http");
        let runs = house.start_many(3);
        for run in &runs {
            house.wait_listening(*run);
        }
        let load = Load::start(house.port, CLIENTS);
        load.wait(&mut house, 50);
        house.kill(runs[1]);
        load.wait(&mut house, 200);
        let again = house.start(1);
        house.wait_listening(again);
        load.wait(&mut house, 50);
        let failures = load.finish();
        assert!(failures.len() <= CLIENTS, "{balance:?}: {failures:?}");
        assert!(
            !failures.iter().any(|f| f.contains("timed out")),
            "{balance:?}: {failures:?}"
        );
    }
}

#[test]
fn clients_wait_for_the_replacement_when_every_worker_is_dead() {
    for balance in ALL {
        let mut house = House::new(balance, "http");
        for run in house.start_many(2) {
            house.wait_listening(run);
            house.kill(run);
        }
        let port = house.port;
        let client = std::thread::spawn(move || get(port));
        let clients: Vec<_> = (0..6)
            .map(|_| std::thread::spawn(move || get(port)))
            .collect();
        // Slot 1 stays empty: what the kernel put there has to be adopted.
        let run = house.start(0);
        house.wait_listening(run);
        for client in clients.into_iter().chain([client]) {
            client.join().unwrap().unwrap();
        }
    }
}

#[test]
fn replacing_every_worker_under_load_fails_no_request() {
    for balance in ALL {
        let mut house = House::new(balance, "http");
        let runs = house.start_many(2);
        for run in &runs {
            house.wait_listening(*run);
        }
        let load = Load::start(house.port, 4);
        for (slot, old) in runs.into_iter().enumerate() {
            let successor = house.start(u32::try_from(slot).unwrap());
            house.wait_listening(successor);
            house.balancer().detach(old);
            house.balancer().send(old, b"1".to_vec());
            house.wait_exit(old);
            load.wait(&mut house, 30);
        }
        let failures = load.finish();
        assert!(failures.is_empty(), "{balance:?}: {failures:?}");
    }
}

#[test]
fn a_slot_without_process_is_served_by_the_others_until_it_has_one() {
    let mut house = House::new(Balance::Even, "http");
    let mut runs = house.start_many(3);
    for run in &runs {
        house.wait_listening(*run);
    }
    let load = Load::start(house.port, 4);
    for _ in 0..2 {
        for n_left in [2, 1] {
            let leaving = runs.pop().unwrap();
            house.balancer().detach(leaving);
            house.balancer().send(leaving, b"1".to_vec());
            house.wait_exit(leaving);
            let live = (0..n_left).collect();
            house.balancer().keep_slots(house.app(), live);
            load.wait(&mut house, 30);
        }
        for slot in [1, 2] {
            let run = house.start(slot);
            load.wait(&mut house, 30);
            house.wait_listening(run);
            runs.push(run);
        }
    }
    let failures = load.finish();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(house.n_unparked(), 0, "no socket is ever closed");
    for run in runs {
        house.kill(run);
    }
    house.balancer().keep_slots(house.app(), vec![]);
    house.until("every socket is closed", |house| house.n_unparked() == 3);
    assert!(get(house.port).is_err());
}

#[test]
fn a_later_daemon_takes_sockets_and_workers_over() {
    for balance in ALL {
        let mut house = House::new(balance, "http");
        let runs = house.start_many(2);
        for run in &runs {
            house.wait_listening(*run);
        }
        let load = Load::start(house.port, 3);
        load.wait(&mut house, 20);
        house.replace_daemon();
        load.wait(&mut house, 100);
        house.kill(runs[0]);
        load.wait(&mut house, 50);
        let run = house.start(0);
        house.wait_listening(run);
        load.wait(&mut house, 50);
        let failures = load.finish();
        // Connections the former daemon had accepted die with it, and those
        // the killed worker had.
        assert!(failures.len() <= 6, "{balance:?}: {failures:?}");
    }
}

#[test]
fn a_probe_is_answered_by_the_worker_it_asks() {
    for balance in ALL {
        let mut house = House::new(balance, "http");
        let runs = house.start_many(3);
        for run in &runs {
            house.wait_listening(*run);
        }
        for port in [house.port, 0, house.port] {
            for run in &runs {
                let pid = house.pid_of(*run).to_string();
                assert_eq!(house.probe(*run, port), Ok(pid), "{balance:?}");
            }
        }
        let unknown = Probed::Refused(Refusal::Unknown);
        assert_eq!(house.probe(runs[0], free_port()), Err(Some(unknown)));
        // A later daemon asks them as well.
        house.replace_daemon();
        let pid = house.pid_of(runs[1]).to_string();
        assert_eq!(house.probe(runs[1], house.port), Ok(pid), "{balance:?}");
        // Nobody else answers for one that is gone.
        let run = runs[2];
        house.kill(run);
        assert_eq!(
            house.probe(run, house.port),
            Err(Some(Probed::Refused(Refusal::Gone)))
        );
    }
}

#[test]
fn a_worker_that_hangs_takes_no_probe_and_answers_when_it_goes_on() {
    for balance in ALL {
        let mut house = House::new(balance, "http");
        let runs = house.start_many(2);
        for run in &runs {
            house.wait_listening(*run);
        }
        let pid = house.pid_of(runs[0]);
        house.signal(runs[0], Signal(19));
        let waiting: Vec<_> = (0..UNTAKEN_LIMIT)
            .map(|_| house.begin_probe(runs[0], house.port))
            .collect();
        // They are refused beyond the limit, so all before were sent.
        let stuck = Probed::Refused(Refusal::Stuck);
        assert_eq!(house.probe(runs[0], house.port), Err(Some(stuck)));
        let other = house.pid_of(runs[1]).to_string();
        assert_eq!(house.probe(runs[1], house.port), Ok(other), "{balance:?}");
        house.signal(runs[0], Signal(18));
        for probe in waiting {
            assert_eq!(probe.end(), Ok(pid.to_string()), "{balance:?}");
        }
        assert_eq!(house.probe(runs[0], house.port), Ok(pid.to_string()));
    }
}

#[test]
fn a_probe_of_a_hung_worker_ends_with_the_worker() {
    let mut house = House::new(Balance::Even, "http");
    let run = house.start_many(1)[0];
    house.wait_listening(run);
    house.signal(run, Signal(19));
    let waiting = house.begin_probe(run, house.port);
    house.kill(run);
    assert_eq!(waiting.end(), Err(None));
}

#[test]
fn a_worker_that_binds_by_itself_has_no_port_of_mushers() {
    let mut house = House::new(Balance::Even, "exclusive");
    let run = house.start(0);
    house.wait_raw(run, "exclusive");
    let refused = |refusal| Err(Some(Probed::Refused(refusal)));
    assert_eq!(house.probe(run, house.port), refused(Refusal::Unknown));
    assert_eq!(house.probe(run, 0), refused(Refusal::NotListening));
}

#[test]
fn a_free_port_is_free() {
    assert!(TcpListener::bind(("127.0.0.1", free_port())).is_ok());
}
