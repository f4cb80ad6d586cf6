//! Live lists, stealing, pulses and suspension.

use super::world::{Fate, PORTS, World};
use super::{serve, world};
use crate::app::Balance;
use crate::cluster::queues::{HANG_AFTER, STEAL_AFTER};
use crate::id::Incarnation;
use std::collections::BTreeMap;

fn three_even() -> (World, Vec<Incarnation>) {
    let mut world = World::new();
    let runs = (0..3)
        .map(|slot| serve(&mut world, slot, Balance::Even))
        .collect();
    (world, runs)
}

fn fates(world: &World) -> Vec<Fate> {
    world.clients.values().copied().collect()
}

#[test]
fn the_kernel_is_told_who_is_live_by_order_of_listening() {
    let mut world = World::new();
    let mut runs = BTreeMap::new();
    for slot in [2, 0, 1] {
        runs.insert(slot, serve(&mut world, slot, Balance::Even));
    }
    assert_eq!(world.live(PORTS[0]), Some(&[0, 1, 2][..]));
    world.kill(runs[&0]);
    assert_eq!(world.live(PORTS[0]), Some(&[0, 2][..]), "slot 0 was second");
    world.suspend(runs[&2], true);
    assert_eq!(world.live(PORTS[0]), Some(&[2][..]));
    serve(&mut world, 0, Balance::Even);
    world.suspend(runs[&2], false);
    assert_eq!(world.live(PORTS[0]), Some(&[0, 1, 2][..]));
    world.detach(runs[&1]);
    world.detach(runs[&2]);
    assert_eq!(world.live(PORTS[0]), Some(&[1][..]));
}

#[test]
fn one_socket_alone_is_neither_spread_nor_measured() {
    for balance in [Balance::Shared, Balance::RoundRobin] {
        let mut world = World::new();
        for slot in 0..3 {
            serve(&mut world, slot, balance);
        }
        assert_eq!(world.live(PORTS[0]), None, "{balance:?}");
        assert_eq!(world.n_sockets(), 1);
    }
}

#[test]
fn a_queue_that_waits_is_served_by_who_is_idle_one_at_a_time() {
    let (mut world, runs) = three_even();
    for _ in 0..5 {
        world.connect(PORTS[0], 0);
    }
    world.connect(PORTS[0], 1);
    world.measure();
    world.sleep(STEAL_AFTER.get());
    world.measure();
    assert!(
        fates(&world).iter().all(|fate| *fate == Fate::Queued),
        "not yet"
    );
    world.sleep(1);
    world.measure();
    world.measure();
    let waiting: Vec<usize> = runs.iter().map(|run| world.inbox_len(*run)).collect();
    // The first two are asked for their pulse; only the third has an empty queue.
    assert_eq!(waiting, [1, 1, 1]);
    world.deliver(runs[2], true);
    assert_eq!(fates(&world)[0], Fate::Served(runs[2]));
    world.settle_as_is();
    assert!(
        fates(&world)
            .iter()
            .all(|fate| matches!(fate, Fate::Served(_)))
    );
}

#[test]
fn nobody_takes_from_a_queue_when_everybody_has_one() {
    let (mut world, _) = three_even();
    for socket in 0..3 {
        world.connect(PORTS[0], socket);
    }
    for _ in 0..10 {
        world.measure();
        world.sleep(STEAL_AFTER.get());
    }
    assert!(fates(&world).iter().all(|fate| *fate == Fate::Queued));
}

#[test]
fn a_worker_without_pulse_is_taken_out_until_it_answers() {
    let (mut world, runs) = three_even();
    world.connect(PORTS[0], 0);
    world.measure();
    world.sleep(STEAL_AFTER.get() + 1);
    world.measure();
    world.sleep(HANG_AFTER.get() - 1);
    assert_eq!(world.hung, []);
    world.sleep(1);
    assert_eq!(world.hung, [(runs[0], true)]);
    assert_eq!(world.live(PORTS[0]), Some(&[1, 2][..]));
    // What still reaches its queue is served by the others at once.
    world.connect(PORTS[0], 0);
    world.accept(0);
    for run in &runs[1..] {
        world.deliver(*run, true);
    }
    assert!(
        fates(&world)
            .iter()
            .all(|fate| matches!(fate, Fate::Served(_)))
    );
    world.deliver(runs[0], true);
    assert_eq!(world.hung, [(runs[0], true), (runs[0], false)]);
    assert_eq!(world.live(PORTS[0]), Some(&[0, 1, 2][..]));
}

#[test]
fn a_worker_that_answers_is_not_asked_again_at_once() {
    let (mut world, runs) = three_even();
    for socket in 0..3 {
        world.connect(PORTS[0], socket);
    }
    let mut n_asked = 0;
    let until = HANG_AFTER.get() * 2 / 5;
    for _ in 0..until {
        world.sleep(5);
        world.measure();
        n_asked += world.inbox_len(runs[0]);
        for run in &runs {
            world.deliver(*run, true);
        }
    }
    assert_eq!(n_asked, 2, "once in {HANG_AFTER:?}");
    assert_eq!(world.hung, []);
}

#[test]
fn a_suspended_worker_gets_nothing_and_keeps_what_it_has() {
    for balance in [Balance::Even, Balance::RoundRobin] {
        let mut world = World::new();
        let runs: Vec<_> = (0..2)
            .map(|slot| serve(&mut world, slot, balance))
            .collect();
        world.suspend(runs[0], true);
        for _ in 0..4 {
            world.connect(PORTS[0], 0);
            world.accept(0);
            world.deliver(runs[1], true);
        }
        assert!(
            fates(&world)
                .iter()
                .all(|fate| *fate == Fate::Served(runs[1])),
            "{balance:?}"
        );
        world.suspend(runs[0], false);
        assert!(world.is_staying(runs[0]));
        world.connect(PORTS[0], 0);
        world.settle_as_is();
        assert!(
            fates(&world)
                .iter()
                .all(|fate| matches!(fate, Fate::Served(_)))
        );
    }
}

#[test]
fn changing_the_mode_slot_by_slot_keeps_every_client() {
    let modes = [Balance::Even, Balance::Shared, Balance::RoundRobin];
    for (from, to) in modes.iter().flat_map(|from| modes.map(|to| (*from, to))) {
        let mut world = World::new();
        let runs: Vec<_> = (0..world::SLOTS)
            .map(|slot| serve(&mut world, slot, from))
            .collect();
        for (slot, old) in (0..).zip(runs) {
            for pick in 0..4 {
                world.connect(PORTS[0], pick);
            }
            serve(&mut world, slot, to);
            world.detach(old);
            world.kill(old);
            world.settle_as_is();
        }
        assert!(
            fates(&world)
                .iter()
                .all(|fate| matches!(fate, Fate::Served(_))),
            "{from:?} {to:?}"
        );
    }
}
