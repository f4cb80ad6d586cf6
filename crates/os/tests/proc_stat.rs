//! The stat line with whatever a program may call itself.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

use musher_os::proc_stat::{parse, read};
use proptest::prelude::*;

fn line(comm: &[u8]) -> Vec<u8> {
    let mut line = b"4711 (".to_vec();
    line.extend_from_slice(comm);
    line.extend_from_slice(
        b") S 42 4711 77 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 3 0 123456 1000000 555 \
          18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
    );
    line
}

proptest! {
    #[test]
    fn any_name_parses_to_the_same_numbers(
        comm in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "[ ()\n0-9SZ]{0,64}".prop_map(String::into_bytes),
        ]
    ) {
        let stat = parse(&line(&comm)).unwrap();
        prop_assert_eq!((stat.pid, stat.state, stat.ppid, stat.session), (4711, b'S', 42, 77));
        prop_assert_eq!((stat.utime, stat.stime, stat.n_threads), (11, 22, 3));
        prop_assert_eq!((stat.start_time, stat.rss_pages), (123_456, 555));
    }

    #[test]
    fn garbage_and_cut_lines_never_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0_usize..200,
    ) {
        parse(&garbage);
        let line = line(b"a) (b");
        parse(&line[..cut.min(line.len())]);
    }
}

#[test]
fn ones_own_line_is_read() {
    let stat = read(std::process::id()).unwrap();
    assert_eq!(stat.pid, std::process::id());
    assert!(stat.rss_pages > 0 && !stat.is_dead());
}
