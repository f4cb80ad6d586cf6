//! Clients that stay with their worker.

use super::serve;
use super::world::{PORTS, SLOTS, World};
use crate::app::{Balance, Sticky};
use crate::cluster::sticky::{HEAD_LIMIT, LOOK_LIMIT, LOOKING_LIMIT, SESSION_PATIENCE};
use crate::id::Incarnation;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(super) fn modes() -> Vec<Option<Sticky>> {
    let cookie = Sticky::Cookie("app".into());
    vec![None, Some(Sticky::Ip), Some(Sticky::Sid), Some(cookie)]
}

fn sticky(sticky: Sticky) -> (World, Vec<Incarnation>) {
    let mut world = World::new();
    world.sticky = Some(sticky);
    let serving = |slot| serve(&mut world, slot, Balance::RoundRobin);
    let runs = (0..SLOTS).map(serving).collect();
    (world, runs)
}

/// A client with this address and head connects; returns who serves it.
fn client(world: &mut World, address: &str, head: &str) -> Option<Incarnation> {
    world.next_client = (address.parse().unwrap(), head.to_owned());
    world.connect(PORTS[0], 0);
    world.accept(0);
    world.look(0, usize::MAX);
    world.deliver_all();
    world.server()
}

fn with_sid(id: &str) -> String {
    format!("GET /socket.io/?EIO=4&transport=polling&sid={id} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn with_cookie(value: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: x\r\ncOOkie: a=b; app={value}; app2=x\r\n\r\n")
}

#[test]
fn an_address_stays_with_its_worker_and_all_are_spread() {
    let (mut world, runs) = sticky(Sticky::Ip);
    let mut counts: BTreeMap<Incarnation, usize> = BTreeMap::new();
    for last in 0..200 {
        let address = format!("10.0.{}.{last}", last / 7);
        let first = client(&mut world, &address, "").unwrap();
        assert_eq!(client(&mut world, &address, "x"), Some(first));
        assert_eq!(
            client(&mut world, &format!("::ffff:{address}"), ""),
            Some(first)
        );
        *counts.entry(first).or_default() += 1;
    }
    let least = runs.iter().map(|run| counts[run]).min().unwrap();
    assert!(least > 200 / 3 / 2, "{counts:?}");
    let one = client(&mut world, "2001:db8:1:2:3::4", "");
    assert_eq!(
        client(&mut world, "2001:db8:1:2:ffff::9", ""),
        one,
        "one customer"
    );
}

#[test]
fn a_reload_keeps_every_client_and_a_further_slot_takes_only_its_share() {
    let (mut world, runs) = sticky(Sticky::Ip);
    let address = |n: u32| IpAddr::from(n.wrapping_mul(2_654_435_761).to_be_bytes()).to_string();
    let slots_of = |world: &mut World, slots: &BTreeMap<Incarnation, u32>| -> Vec<u32> {
        (0..100)
            .map(|n| slots[&client(world, &address(n), "").unwrap()])
            .collect()
    };
    let mut slots: BTreeMap<Incarnation, u32> = runs.iter().copied().zip(0..).collect();
    let before = slots_of(&mut world, &slots);
    for (old, slot) in slots.clone() {
        slots.insert(serve(&mut world, slot, Balance::RoundRobin), slot);
        world.detach(old);
        assert_eq!(slots_of(&mut world, &slots), before);
    }
    slots.insert(serve(&mut world, SLOTS, Balance::RoundRobin), SLOTS);
    let after = slots_of(&mut world, &slots);
    let moved: BTreeSet<u32> = (0..100)
        .filter(|n| before[*n] != after[*n])
        .map(|n| after[n])
        .collect();
    assert_eq!(
        moved,
        BTreeSet::from([SLOTS]),
        "nobody moves between the others"
    );
}

#[test]
fn a_session_stays_with_the_worker_that_made_it() {
    let (mut world, runs) = sticky(Sticky::Sid);
    for n in 0..12 {
        let id = format!("session-{n}");
        let made = client(&mut world, "10.0.0.1", &with_sid("")).unwrap();
        assert_eq!(made, runs[n % runs.len()], "who has none takes turns");
        world.session(made, &id, true);
        for _ in 0..3 {
            assert_eq!(client(&mut world, "10.0.0.1", &with_sid(&id)), Some(made));
        }
        world.session(made, &id, false);
        assert_eq!(
            client(&mut world, "10.0.0.1", &with_sid(&id)),
            None,
            "it is awaited"
        );
        world.session(made, &id, true);
    }
}

#[test]
fn a_request_that_overtakes_the_news_of_its_session_waits_for_it() {
    let (mut world, runs) = sticky(Sticky::Sid);
    assert_eq!(client(&mut world, "10.0.0.1", &with_sid("early")), None);
    world.session(runs[1], "early", true);
    world.deliver_all();
    assert_eq!(world.server(), Some(runs[1]));

    assert_eq!(client(&mut world, "10.0.0.1", &with_sid("unknown")), None);
    world.sleep(SESSION_PATIENCE.get());
    world.deliver_all();
    let somebody = world.server();
    assert!(somebody.is_some());
    client(&mut world, "10.0.0.9", &with_sid("unknown"));
    world.sleep(SESSION_PATIENCE.get());
    world.deliver_all();
    assert_eq!(world.server(), somebody, "at least always the same");
}

#[test]
fn a_cookie_decides_from_the_request_that_has_it() {
    let (mut world, runs) = sticky(Sticky::Cookie("app".into()));
    for n in 0..6 {
        let none = client(
            &mut world,
            "10.0.0.1",
            "GET / HTTP/1.1\r\nCookie: b=c\r\n\r\n",
        );
        assert_eq!(none, Some(runs[n % runs.len()]));
    }
    let mut servers = BTreeSet::new();
    for n in 0..40 {
        let first = client(&mut world, "10.0.0.1", &with_cookie(&n.to_string())).unwrap();
        let later = client(&mut world, "10.9.9.9", &with_cookie(&n.to_string()));
        assert_eq!(later, Some(first));
        servers.insert(first);
    }
    assert_eq!(servers.len(), runs.len());
}

#[test]
fn a_head_in_pieces_is_waited_for_and_only_so_long() {
    let (mut world, runs) = sticky(Sticky::Sid);
    world.session(runs[2], "here", true);
    let head = with_sid("here");
    world.next_client = ("10.0.0.1".parse().unwrap(), head.clone());
    world.connect(PORTS[0], 0);
    world.accept(0);
    for upto in 0..head.len() {
        world.look(0, upto);
        world.deliver_all();
        assert_eq!(world.server(), None, "after {upto} bytes");
    }
    world.look(0, head.len());
    world.deliver_all();
    assert_eq!(world.server(), Some(runs[2]));

    let endless = "GET /".to_owned() + &"x".repeat(HEAD_LIMIT);
    assert!(
        client(&mut world, "10.0.0.1", &endless).is_some(),
        "too long"
    );
    assert!(
        client(&mut world, "10.0.0.1", "\x16\x03\x01").is_some(),
        "TLS"
    );
    assert_eq!(client(&mut world, "10.0.0.1", "GET / HT"), None);
    world.sleep(LOOK_LIMIT.get());
    world.deliver_all();
    assert!(world.server().is_some(), "too slow");
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let (mut world, runs) = sticky(Sticky::Sid);
    for _ in 0..LOOKING_LIMIT + 10 {
        client(&mut world, "10.0.0.1", "");
    }
    world.session(runs[0], "mine", true);
    world.next_client = ("10.0.0.2".parse().unwrap(), with_sid("mine"));
    world.connect(PORTS[0], 0);
    world.accept(0);
    world.look(LOOKING_LIMIT - 1, usize::MAX);
    world.deliver_all();
    assert_eq!(world.server(), Some(runs[0]));
    let n_served = world
        .clients
        .values()
        .filter(|f| matches!(f, super::Fate::Served(_)));
    assert_eq!(n_served.count(), 12);
}

#[test]
fn a_full_owner_keeps_only_its_own_clients_waiting() {
    let (mut world, runs) = sticky(Sticky::Sid);
    world.session(runs[0], "full", true);
    world.session(runs[1], "free", true);
    let give = |world: &mut World, id: &str| {
        world.next_client = ("10.0.0.1".parse().unwrap(), with_sid(id));
        world.connect(PORTS[0], 0);
        world.accept(0);
        world.look(0, usize::MAX);
    };
    for _ in 0..70 {
        give(&mut world, "full");
    }
    assert_eq!(world.inbox_len(runs[0]), 64);
    give(&mut world, "free");
    assert_eq!(world.inbox_len(runs[1]), 1);
}
