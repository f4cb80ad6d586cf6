//! Programs that choose a socket, with real connections.
#![allow(clippy::unwrap_used)]

use musher_os::bpf::{Turns, attach_random};
use musher_os::listen::{self, Stack};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

fn group(n: usize) -> (Vec<OwnedFd>, u16) {
    let group = listen::tcp_group(Some("127.0.0.1"), 0, Stack::Dual, 128, n).unwrap();
    let port = listen::local_address(&group[0]).unwrap().unwrap().port;
    (group, port)
}

/// Connects `n` times and returns who got how many.
fn spread(group: &[OwnedFd], port: u16, n: usize) -> Vec<usize> {
    let _clients: Vec<_> = (0..n)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let count = |socket: &OwnedFd| std::iter::from_fn(|| listen::accept(socket).unwrap()).count();
    group.iter().map(count).collect()
}

/// Returns a program, or says that none is permitted here.
fn permitted() -> Option<Turns> {
    match Turns::load() {
        Ok(turns) => Some(turns),
        Err(error) => {
            eprintln!("skipped: this process may load no eBPF program: {error}");
            None
        }
    }
}

#[test]
fn the_live_ones_take_turns_and_the_others_get_nothing() {
    let Some(turns) = permitted() else { return };
    let (group, port) = group(4);
    turns.attach(&group[0]).unwrap();
    turns.set_live(&[0, 1, 2, 3]).unwrap();
    assert_eq!(spread(&group, port, 40), [10, 10, 10, 10]);
    turns.set_live(&[3, 1]).unwrap();
    assert_eq!(spread(&group, port, 40), [0, 20, 0, 20]);
    turns.set_live(&[]).unwrap();
    let by_hash = spread(&group, port, 40);
    assert_eq!(by_hash.iter().sum::<usize>(), 40);
    assert!(by_hash[0] + by_hash[2] > 0, "{by_hash:?}");
}

#[test]
fn a_second_program_takes_over_from_one_whose_process_is_gone() {
    let Some(turns) = permitted() else { return };
    let (group, port) = group(3);
    turns.attach(&group[0]).unwrap();
    turns.set_live(&[2]).unwrap();
    drop(turns);
    assert_eq!(spread(&group, port, 9), [0, 0, 9], "it lives on");
    let later = permitted().unwrap();
    later.set_live(&[0, 1, 2]).unwrap();
    later.attach(&group[2]).unwrap();
    assert_eq!(spread(&group, port, 9), [3, 3, 3]);
}

#[test]
fn a_random_choice_keeps_to_the_live_ones() {
    let (group, port) = group(4);
    attach_random(&group[0], &[1, 3]).unwrap();
    let counts = spread(&group, port, 60);
    assert_eq!((counts[0], counts[2]), (0, 0));
    assert!(counts[1] > 0 && counts[3] > 0, "{counts:?}");
    assert!(attach_random(&group[0], &[]).is_err());
}

#[test]
fn a_socket_that_is_alone_has_no_program() {
    let (alone, _) = group(1);
    // Its port is not shared until a second socket joins.
    let socket = listen::tcp(Some("127.0.0.1"), 0, Stack::Dual, 8).unwrap();
    assert!(attach_random(&socket, &[0]).is_err());
    drop(alone);
}
