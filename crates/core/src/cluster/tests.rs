//! The primary against a fake kernel and fake workers, in every order.

mod queues;
mod sticky;
mod world;

use super::*;
use crate::supervisor::action::Channel;
use message::{Kind, Query, SocketOptions};
use probing::Refusal;
use proptest::prelude::*;
use std::collections::BTreeMap;
use world::{Fate, PORTS, SLOTS, World, app};

/// One thing that may happen; numbers pick among what exists.
#[derive(Clone, Debug)]
enum Step {
    Start { slot: u32, balance: Balance },
    Listen { worker: usize, port: i32 },
    Deliver { worker: usize, arrives: bool },
    Connect { port: i32, socket: usize },
    Accept { socket: usize },
    WorkerAccept { worker: usize },
    Refusing { worker: usize, refusing: bool },
    Close { worker: usize, port: i32 },
    Detach { worker: usize },
    Drain { worker: usize },
    HandOver { worker: usize },
    Leave { worker: usize },
    Kill { worker: usize },
    KeepSlots { live: Vec<u32> },
    Probe { worker: usize, port: i32 },
    Sleep { millis: u64 },
    Bind,
    Measure,
    Suspend { worker: usize, suspended: bool },
    Look { client: usize, upto: usize },
}

fn balances() -> impl Strategy<Value = Balance> {
    prop::sample::select(vec![Balance::Even, Balance::Shared, Balance::RoundRobin])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (worker, socket) = (0..6usize, 0..6usize);
    let port = prop::sample::select(PORTS.to_vec());
    let step = prop_oneof![
        3 => (0..SLOTS, balances()).prop_map(|(slot, balance)| Step::Start { slot, balance }),
        6 => (worker.clone(), port.clone()).prop_map(|(worker, port)| Step::Listen { worker, port }),
        14 => (worker.clone(), prop::bool::weighted(0.93))
            .prop_map(|(worker, arrives)| Step::Deliver { worker, arrives }),
        10 => (port.clone(), socket.clone()).prop_map(|(port, socket)| Step::Connect { port, socket }),
        10 => socket.prop_map(|socket| Step::Accept { socket }),
        5 => worker.clone().prop_map(|worker| Step::WorkerAccept { worker }),
        2 => (worker.clone(), any::<bool>())
            .prop_map(|(worker, refusing)| Step::Refusing { worker, refusing }),
        1 => (worker.clone(), port.clone()).prop_map(|(worker, port)| Step::Close { worker, port }),
        4 => (worker.clone(), port.clone()).prop_map(|(worker, port)| Step::Probe { worker, port }),
        1 => worker.clone().prop_map(|worker| Step::Detach { worker }),
        1 => worker.clone().prop_map(|worker| Step::Drain { worker }),
        3 => worker.clone().prop_map(|worker| Step::HandOver { worker }),
        1 => worker.clone().prop_map(|worker| Step::Leave { worker }),
        2 => worker.clone().prop_map(|worker| Step::Kill { worker }),
        6 => Just(Step::Measure),
        6 => (0..6usize, 0..80usize).prop_map(|(client, upto)| Step::Look { client, upto }),
        1 => (worker, any::<bool>())
            .prop_map(|(worker, suspended)| Step::Suspend { worker, suspended }),
        1 => prop::sample::subsequence((0..SLOTS).collect::<Vec<_>>(), 0..=SLOTS as usize)
            .prop_map(|live| Step::KeepSlots { live }),
        4 => Just(Step::Bind),
        4 => (0..80u64).prop_map(|millis| Step::Sleep { millis }),
    ];
    prop::collection::vec(step, 0..120)
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Start { slot, balance } => drop(world.start(slot, balance)),
        Step::Listen { worker, port } => world.with(worker, |w, run| w.listen(run, port)),
        Step::Deliver { worker, arrives } => world.with(worker, |w, run| w.deliver(run, arrives)),
        Step::Connect { port, socket } => world.connect(port, socket),
        Step::Accept { socket } => world.accept(socket),
        Step::WorkerAccept { worker } => world.with(worker, World::worker_accept),
        Step::Refusing { worker, refusing } => {
            world.with(worker, |w, run| w.set_refusing(run, refusing));
        }
        Step::Close { worker, port } => world.with(worker, |w, run| w.close(run, port)),
        Step::Detach { worker } => world.with(worker, World::detach),
        Step::Drain { worker } => world.with(worker, World::drain),
        Step::HandOver { worker } => world.with(worker, World::hand_over),
        Step::Leave { worker } => world.with(worker, World::leave),
        Step::Kill { worker } => world.with(worker, World::kill),
        Step::KeepSlots { live } => world.keep_slots(&live),
        Step::Probe { worker, port } => world.with(worker, |w, run| {
            let port = u16::try_from(port).unwrap_or(0);
            let _ = w.probe(run, port);
        }),
        Step::Sleep { millis } => world.sleep(millis),
        Step::Bind => world.bind_all(),
        Step::Measure => world.measure(),
        Step::Look { client, upto } => world.look(client, upto),
        Step::Suspend { worker, suspended } => {
            world.with(worker, |w, run| w.suspend(run, suspended));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_connection_is_lost_and_every_query_is_answered_once(
        steps in steps(),
        joins_fail in any::<bool>(),
        binds_wait in any::<bool>(),
        balance in balances(),
        sticky in prop::sample::select(sticky::modes()),
    ) {
        let mut world = World::new();
        world.joins_fail = joins_fail;
        world.binds_wait = binds_wait;
        world.sticky = sticky;
        for step in steps {
            take(&mut world, step);
        }
        world.settle(balance);
        prop_assert_eq!(world.n_held(), 0, "musher keeps copies of served connections");
        prop_assert!(world.probes.is_empty(), "musher keeps connections of probes");
        for (client, fate) in &world.clients {
            prop_assert!(
                matches!(fate, Fate::Served(_) | Fate::Refused),
                "client {client} is left {fate:?}"
            );
        }
        for ((run, seq), n) in &world.answers {
            let gone = !world.is_staying(*run);
            prop_assert!(*n == 1 || (gone && *n == 0), "query {seq} of {run} has {n} answers");
        }
    }

}

/// What scaling, crashes and restarts are made of: nobody closes a server.
fn scaling_steps() -> impl Strategy<Value = Vec<Step>> {
    let (worker, socket) = (0..6usize, 0..6usize);
    let port = prop::sample::select(PORTS.to_vec());
    let slots = prop::sample::subsequence((0..SLOTS).collect::<Vec<_>>(), 1..=SLOTS as usize);
    let step = prop_oneof![
        3 => (0..SLOTS, balances()).prop_map(|(slot, balance)| Step::Start { slot, balance }),
        6 => (worker.clone(), port.clone()).prop_map(|(worker, port)| Step::Listen { worker, port }),
        14 => worker.clone().prop_map(|worker| Step::Deliver { worker, arrives: true }),
        10 => (port, socket.clone()).prop_map(|(port, socket)| Step::Connect { port, socket }),
        10 => socket.prop_map(|socket| Step::Accept { socket }),
        5 => worker.clone().prop_map(|worker| Step::WorkerAccept { worker }),
        3 => worker.prop_map(|worker| Step::Kill { worker }),
        6 => Just(Step::Measure),
        3 => slots.prop_map(|live| Step::KeepSlots { live }),
        4 => Just(Step::Bind),
        4 => (0..80u64).prop_map(|millis| Step::Sleep { millis }),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn scaling_closes_no_socket_and_loses_no_connection(
        steps in scaling_steps(),
        joins_fail in any::<bool>(),
        binds_wait in any::<bool>(),
        balance in balances(),
    ) {
        let mut world = World::new();
        world.joins_fail = joins_fail;
        world.binds_wait = binds_wait;
        for step in steps {
            take(&mut world, step);
        }
        world.settle(balance);
        for (client, fate) in &world.clients {
            prop_assert!(matches!(fate, Fate::Served(_)), "client {client} is left {fate:?}");
        }
    }
}

/// Starts a worker that listens.
fn serve(world: &mut World, slot: u32, balance: Balance) -> Incarnation {
    let run = world.start(slot, balance);
    world.listen(run, PORTS[0]);
    world.deliver(run, true);
    run
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_round_robin_app_is_served_evenly(n_workers in 1..6u32, n_clients in 0..200usize) {
        let mut world = World::new();
        for slot in 0..n_workers {
            let run = world.start(slot, Balance::RoundRobin);
            world.listen(run, PORTS[0]);
            world.deliver(run, true);
        }
        for _ in 0..n_clients {
            world.connect(PORTS[0], 0);
            world.accept(0);
        }
        world.settle_as_is();
        let mut counts: BTreeMap<Incarnation, usize> = BTreeMap::new();
        for fate in world.clients.values() {
            if let Fate::Served(run) = fate {
                *counts.entry(*run).or_default() += 1;
            }
        }
        prop_assert_eq!(counts.values().sum::<usize>(), n_clients);
        let most = counts.values().max().copied().unwrap_or(0);
        let least = counts.values().min().copied().unwrap_or(0);
        prop_assert!(most - least <= 1 && counts.len() == n_clients.min(n_workers as usize));
    }
}

#[test]
fn a_busy_worker_is_passed_over_unless_all_are_busy() {
    let mut world = World::new();
    let runs: Vec<_> = (0..2)
        .map(|slot| world.start(slot, Balance::RoundRobin))
        .collect();
    for run in &runs {
        world.listen(*run, PORTS[0]);
        world.deliver(*run, true);
    }
    let give = |world: &mut World| {
        world.connect(PORTS[0], 0);
        world.accept(0);
    };
    give(&mut world);
    world.sleep(4);
    for _ in 0..3 {
        give(&mut world);
    }
    assert_eq!(world.inbox_len(runs[0]), 1, "it has not answered for 4 ms");
    assert_eq!(world.inbox_len(runs[1]), 3);
    world.sleep(4);
    give(&mut world);
    give(&mut world);
    assert_eq!(
        (world.inbox_len(runs[0]), world.inbox_len(runs[1])),
        (2, 4),
        "both are busy"
    );
}

#[test]
fn a_worker_never_has_more_unanswered_connections_than_its_window() {
    for (balance, window) in [(Balance::RoundRobin, 64), (Balance::Even, 1)] {
        let mut world = World::new();
        let lost = world.start(0, balance);
        world.listen(lost, PORTS[0]);
        world.deliver(lost, true);
        let run = world.start(1, balance);
        world.listen(run, PORTS[0]);
        world.deliver(run, true);
        world.kill(lost);
        for _ in 0..100 {
            world.connect(PORTS[0], 0);
            world.accept(0);
        }
        assert_eq!(world.inbox_len(run), window, "{balance:?}");
        world.settle(balance);
    }
}

#[test]
fn a_connection_everyone_refused_is_offered_again() {
    let mut world = World::new();
    let run = world.start(0, Balance::RoundRobin);
    world.listen(run, PORTS[0]);
    world.deliver(run, true);
    world.set_refusing(run, true);
    world.connect(PORTS[0], 0);
    world.accept(0);
    for _ in 0..3 {
        world.deliver(run, true);
        assert_eq!(world.inbox_len(run), 0, "it waits, it does not spin");
        world.sleep(balancer::RETRY_AFTER.get());
        assert_eq!(world.inbox_len(run), 1);
    }
    world.set_refusing(run, false);
    world.deliver(run, true);
    assert!(
        world
            .clients
            .values()
            .all(|fate| *fate == Fate::Served(run))
    );
}

#[test]
fn a_slot_without_process_keeps_its_socket_for_the_next_one() {
    let mut world = World::new();
    let runs: Vec<_> = (0..2)
        .map(|slot| serve(&mut world, slot, Balance::Even))
        .collect();
    world.detach(runs[1]);
    world.close(runs[1], PORTS[0]);
    world.kill(runs[1]);
    world.keep_slots(&[0]);
    world.sleep(10_000);
    assert_eq!(world.n_sockets(), 2);
    world.connect(PORTS[0], 1);
    world.connect(PORTS[0], 1);
    world.accept(1);
    assert_eq!(world.inbox_len(runs[0]), 1, "musher serves the queue");
    let again = serve(&mut world, 1, Balance::Even);
    assert_eq!(world.n_sockets(), 2, "the slot has its socket back");
    world.worker_accept(again);
    world.deliver(runs[0], true);
    let served: Vec<Fate> = world.clients.values().copied().collect();
    assert_eq!(served, [Fate::Served(runs[0]), Fate::Served(again)]);
}

#[test]
fn a_port_is_closed_once_every_slot_that_is_left_closed_it_on_purpose() {
    let mut world = World::new();
    let runs: Vec<_> = (0..3)
        .map(|slot| serve(&mut world, slot, Balance::Even))
        .collect();
    world.close(runs[0], PORTS[0]);
    world.kill(runs[2]);
    world.keep_slots(&[]);
    assert_eq!(world.n_sockets(), 3, "slot 1 listens");
    world.close(runs[1], PORTS[0]);
    assert_eq!(world.n_sockets(), 0);
}

#[test]
fn a_slot_that_never_listened_inherits_the_port_of_one_that_left() {
    let mut world = World::new();
    let leaving = serve(&mut world, 0, Balance::Even);
    let slow = world.start(1, Balance::Even);
    world.connect(PORTS[0], 0);
    world.kill(leaving);
    world.keep_slots(&[]);
    world.listen(slow, PORTS[0]);
    world.deliver(slow, true);
    world.settle_as_is();
    assert!(world.clients.values().all(|f| *f == Fate::Served(slow)));
}

#[test]
fn a_probe_reaches_the_worker_it_asks_and_takes_nobodys_turn() {
    for balance in [Balance::Even, Balance::Shared, Balance::RoundRobin] {
        let mut world = World::new();
        let port = u16::try_from(PORTS[0]).unwrap();
        let runs = [0, 1].map(|slot| serve(&mut world, slot, balance));
        for run in [runs[1], runs[0], runs[1]] {
            world.probe(run, port).unwrap();
            world.settle_as_is();
            assert_eq!(world.probed.pop(), Some((run, true)), "{balance:?}");
            assert!(world.probes.is_empty());
        }
        world.set_refusing(runs[0], true);
        world.probe(runs[0], 0).unwrap();
        world.deliver(runs[0], true);
        assert_eq!(world.probed.pop(), Some((runs[0], false)), "{balance:?}");
        assert!(world.probes.is_empty(), "nobody else is offered it");
        // A descriptor that did not arrive is as good as refused.
        world.probe(runs[1], port).unwrap();
        world.deliver(runs[1], false);
        assert_eq!(world.probed.pop(), Some((runs[1], false)), "{balance:?}");
    }
}

#[test]
fn a_probe_is_refused_with_what_is_missing() {
    let mut world = World::new();
    let port = u16::try_from(PORTS[0]).unwrap();
    let up = serve(&mut world, 0, Balance::Even);
    let starting = world.start(1, Balance::Even);
    assert_eq!(world.probe(starting, port), Err(Refusal::NotListening));
    assert_eq!(world.probe(starting, 0), Err(Refusal::NotListening));
    assert_eq!(world.probe(up, port + 1), Err(Refusal::Unknown));
    assert_eq!(world.probe(Incarnation(99), port), Err(Refusal::Gone));
    for _ in 0..probing::UNTAKEN_LIMIT {
        world.probe(up, port).unwrap();
    }
    assert_eq!(world.probe(up, port), Err(Refusal::Stuck), "it hangs");
    world.kill(up);
    assert!(world.probes.is_empty(), "they went with it");
    assert_eq!(world.probed, []);
}

#[test]
fn a_handle_is_answered_at_once_and_a_forked_child_is_no_worker() {
    let mut primary = Primary::new(0);
    let run = Incarnation(1);
    primary.add(run, app(), 0, Balance::Even, Channel::Fork);
    let mut out = Vec::new();
    let query = Query {
        seq: 1,
        endpoint: Some(Endpoint {
            address: None,
            port: 80,
            kind: Kind::Tcp4,
            index: 0,
        }),
        options: SocketOptions::default(),
        data: Value::Null,
    };
    primary.on_message(run, FromWorker::Query(query), false, Mono(0), &mut out);
    assert_eq!(out, []);
    for (arrived, message) in [(true, ToWorker::HandleAck), (false, ToWorker::HandleNack)] {
        out.clear();
        primary.on_message(run, FromWorker::Handle, arrived, Mono(0), &mut out);
        assert_eq!(
            out,
            [ClusterAction::Send {
                run,
                message,
                carried: Carried::Nothing
            }]
        );
    }
    out.clear();
    primary.on_message(Incarnation(9), FromWorker::Handle, true, Mono(0), &mut out);
    assert_eq!(out, [], "nobody knows this run");
}

#[test]
fn the_first_workers_ticket_keys_go_to_all() {
    let mut world = World::new();
    for slot in 0..2 {
        let run = world.start(slot, Balance::Even);
        world.listen_with(run, PORTS[0], Value::from(slot));
        assert_eq!(world.data_of_answer(run), Some(Value::from(0)));
        world.deliver(run, true);
        world.kill(run);
    }
}

#[test]
fn a_random_port_is_recognised_by_what_it_became() {
    let mut world = World::new();
    let run = world.start(0, Balance::Even);
    world.listen(run, 0);
    world.deliver(run, true);
    assert_eq!(
        world.told(run),
        [AppMessage::Listening {
            key: "null:0:4:undefined:0".into()
        }]
    );
}

#[test]
fn a_server_the_app_closes_is_told_and_one_closed_by_a_stop_is_not() {
    let mut world = World::new();
    let closed = |key: &str| AppMessage::Closed { key: key.into() };
    for (is_stopped, expected) in [(false, Some(closed("null:80:4:undefined"))), (true, None)] {
        let run = world.start(0, Balance::Even);
        world.listen(run, 80);
        world.deliver(run, true);
        if is_stopped {
            world.detach(run);
        }
        world.close(run, 80);
        let told = world.told(run).iter();
        let closings: Vec<_> = told
            .filter(|m| matches!(m, AppMessage::Closed { .. }))
            .collect();
        assert_eq!(closings, expected.iter().collect::<Vec<_>>());
    }
}

#[test]
fn sockets_of_slots_that_left_under_a_former_daemon_go_with_the_last_server() {
    let mut primary = Primary::new(takeover_seq(Mono(1)));
    let endpoint = Endpoint {
        address: None,
        port: 80,
        kind: Kind::Tcp4,
        index: 0,
    };
    let mut out = Vec::new();
    let sockets: Vec<_> = (0..2)
        .map(|slot| {
            let options = SocketOptions::default();
            primary.restore_socket(app(), slot, Some(slot), endpoint.clone(), options, None)
        })
        .collect();
    let (run, keys) = (Incarnation(7), [endpoint.key()]);
    let (even, worker) = (Balance::Even, Channel::Worker);
    primary.restore_worker(run, app(), 1, even, worker, &keys, Mono(0), &mut out);
    primary.keep_slots(&app(), &[1], &mut out);
    let adopted = ClusterAction::Watch {
        socket: sockets[0],
        on: true,
    };
    let spread = |action: &ClusterAction| {
        matches!(
            action,
            ClusterAction::Measure { .. } | ClusterAction::Spread { .. }
        )
    };
    out.retain(|action| !spread(action));
    assert_eq!(out, [adopted], "slot 0 is served, nothing is closed");
    out.clear();
    let closed = FromWorker::Close(endpoint.key());
    primary.on_message(run, closed, false, Mono(1), &mut out);
    let ended = |socket| ClusterAction::EndSocket { socket };
    let is_about_sockets = |a: &ClusterAction| {
        !spread(a) && !matches!(a, ClusterAction::Watch { .. } | ClusterAction::Tell { .. })
    };
    let ends: Vec<_> = out.into_iter().filter(is_about_sockets).collect();
    assert_eq!(ends, [ended(sockets[0]), ended(sockets[1])]);
}

#[test]
fn a_late_answer_to_a_former_daemon_is_no_answer_to_this_one() {
    let busiest_day = 86_400_000 * (SEQS_PER_MS - 1);
    let before = takeover_seq(Mono(5)) + busiest_day;
    assert!(before < takeover_seq(Mono(5 + 86_400_000)));
    let in_69_years = Mono(69 * 365 * 86_400_000);
    assert!(takeover_seq(in_69_years) < 1 << 53, "exact in JavaScript");
}

#[test]
fn what_a_draining_worker_gives_back_is_served_by_another() {
    for balance in [Balance::Even, Balance::Shared, Balance::RoundRobin] {
        let mut world = World::new();
        let old = world.start(0, balance);
        world.listen(old, PORTS[0]);
        for _ in 0..10 {
            world.connect(PORTS[0], 0);
        }
        world.settle_as_is();
        assert!(
            world
                .clients
                .values()
                .all(|fate| *fate == Fate::Served(old))
        );
        let successor = world.start(0, balance);
        world.listen(successor, PORTS[0]);
        world.settle_as_is();
        world.drain(old);
        world.settle_as_is();
        for _ in 0..10 {
            world.hand_over(old);
        }
        world.settle_as_is();
        assert_eq!(world.n_moved, 10, "{balance:?}");
        let served = world.clients.values();
        assert!(
            served
                .into_iter()
                .all(|fate| *fate == Fate::Served(successor))
        );
        assert_eq!(world.n_held(), 0, "{balance:?}");
    }
}

#[test]
fn a_worker_without_heir_is_told_to_give_nothing_back() {
    let mut world = World::new();
    let run = world.start(0, Balance::Even);
    world.listen(run, PORTS[0]);
    world.connect(PORTS[0], 0);
    world.settle_as_is();
    world.drain(run);
    world.settle_as_is();
    world.hand_over(run);
    assert_eq!(world.n_moved, 0);
    assert!(
        world
            .clients
            .values()
            .all(|fate| *fate == Fate::Served(run))
    );
}

#[test]
fn a_forged_hand_over_is_answered_and_closed() {
    let mut primary = Primary::new(0);
    let (run, fork) = (Incarnation(1), Incarnation(2));
    primary.add(run, app(), 0, Balance::Even, Channel::Worker);
    primary.add(fork, app(), 1, Balance::Even, Channel::Fork);
    let place = message::Place("null:1:4".into());
    for (run, connection) in [(run, ConnectionId(1)), (fork, ConnectionId(2))] {
        let mut out = Vec::new();
        primary.handed_over(run, connection, &place, Mono(1), &mut out);
        let (message, carried) = (ToWorker::HandleAck, Carried::Nothing);
        let send = ClusterAction::Send {
            run,
            message,
            carried,
        };
        assert_eq!(out, [send, ClusterAction::CloseConnection { connection }]);
    }
    let mut out = Vec::new();
    let message = FromWorker::HandOver(place);
    primary.on_message(fork, message, false, Mono(1), &mut out);
    let nacked = |action: &ClusterAction| {
        matches!(
            action,
            ClusterAction::Send {
                message: ToWorker::HandleNack,
                ..
            }
        )
    };
    assert!(out.iter().all(nacked), "{out:?}");
}
