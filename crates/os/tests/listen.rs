//! Sockets on the loopback, as a Node primary would make them.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::until;
use musher_os::control::{self, ControlError};
use musher_os::listen::{
    self, Family, LocalAddress, PathAccess, Reuse, Stack, accept, local_address, queue_length, tcp,
    tcp_group, tcp_join, udp, udp_group, udp_join,
};

fn place(socket: &OwnedFd) -> LocalAddress {
    local_address(socket).unwrap().unwrap()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn no_address_means_both_families() {
    let listener = tcp(None, 0, Stack::Dual, 0).unwrap();
    let place = place(&listener);
    if place.family == "IPv6" {
        assert_eq!(place.address, "::");
        TcpStream::connect(("::1", place.port)).unwrap();
    } else {
        assert_eq!(place.address, "0.0.0.0");
    }
    TcpStream::connect(("127.0.0.1", place.port)).unwrap();
    until("connection", || accept(&listener).unwrap());
}

#[test]
fn addresses_are_numeric_and_errors_are_the_kernels() {
    let listener = tcp(Some("127.0.0.1"), 0, Stack::Dual, 5).unwrap();
    let LocalAddress {
        address,
        family,
        port,
    } = place(&listener);
    assert_eq!((address.as_str(), family), ("127.0.0.1", "IPv4"));
    assert_eq!(
        errno(tcp(Some("127.0.0.1"), port, Stack::Dual, 5)),
        libc::EADDRINUSE
    );
    assert_eq!(
        errno(tcp(Some("192.0.2.1"), 0, Stack::Dual, 5)),
        libc::EADDRNOTAVAIL
    );
    assert_eq!(
        errno(tcp(Some("localhost"), 0, Stack::Dual, 5)),
        libc::EINVAL
    );
    assert_eq!(
        errno(tcp(Some("fe80::1%nosuchif0"), 0, Stack::Dual, 5)),
        libc::ENODEV
    );
    // A scope by name resolves; the address itself is nobody's.
    assert_eq!(
        errno(tcp(Some("fe80::1%lo"), 0, Stack::Dual, 5)),
        libc::EADDRNOTAVAIL
    );
}

#[test]
fn v6only_leaves_the_other_family_free() {
    let Ok(six) = tcp(Some("::"), 0, Stack::V6Only, 5) else {
        // A kernel without IPv6 has no second family to leave free.
        assert!(TcpListener::bind("[::1]:0").is_err());
        return;
    };
    let port = place(&six).port;
    let _four = tcp(Some("0.0.0.0"), port, Stack::Dual, 5).unwrap();
    let dual = tcp(Some("::"), 0, Stack::Dual, 5).unwrap();
    assert_eq!(
        errno(tcp(Some("0.0.0.0"), place(&dual).port, Stack::Dual, 5)),
        libc::EADDRINUSE
    );
}

#[test]
fn a_listener_never_waits_and_counts_its_queue() {
    let listener = tcp(Some("127.0.0.1"), 0, Stack::Dual, 0).unwrap();
    assert!(accept(&listener).unwrap().is_none());
    assert_eq!(queue_length(&listener).unwrap(), 0);
    let port = place(&listener).port;
    let mut clients: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    until("queue", || {
        (queue_length(&listener).unwrap() == 3).then_some(())
    });
    let mut connection = TcpStream::from(accept(&listener).unwrap().unwrap());
    assert_eq!(queue_length(&listener).unwrap(), 2);
    let error = connection.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    clients[0].write_all(b"x").unwrap();
}

#[test]
fn a_group_shares_one_port_and_each_socket_gets_its_part() {
    let group = tcp_group(Some("127.0.0.1"), 0, Stack::Dual, 0, 3).unwrap();
    assert_eq!(group.len(), 3);
    let port = place(&group[0]).port;
    let joined = tcp_join(&group[0], 0).unwrap();
    assert!(
        group
            .iter()
            .chain([&joined])
            .all(|socket| place(socket).port == port)
    );
    let clients: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let lengths: Vec<u32> = group
        .iter()
        .chain([&joined])
        .map(|socket| queue_length(socket).unwrap())
        .collect();
    // 200 by hash over 4: an empty one has probability 4 × 0.75^200.
    assert!(lengths.iter().all(|length| *length > 0), "{lengths:?}");
    assert_eq!(lengths.iter().sum::<u32>(), 200);
    drop(clients);
}

#[test]
fn a_stranger_who_shares_his_port_is_still_in_the_way() {
    let stranger = tcp_group(Some("127.0.0.1"), 0, Stack::Dual, 0, 2).unwrap();
    let port = place(&stranger[0]).port;
    let result = tcp_group(Some("127.0.0.1"), port, Stack::Dual, 0, 2);
    assert_eq!(errno(result), libc::EADDRINUSE);
    let alone = tcp(Some("127.0.0.1"), 0, Stack::Dual, 0).unwrap();
    assert_eq!(errno(tcp_join(&alone, 0)), libc::EADDRINUSE);
}

#[test]
fn udp_binds_alone_in_groups_and_with_reuse() {
    let socket = udp(None, Family::V4, 0, Stack::Dual, Reuse::Refused).unwrap();
    assert_eq!(place(&socket).address, "0.0.0.0");
    let local = Some("127.0.0.1");
    let group = udp_group(local, Family::V4, 0, Stack::Dual, 2).unwrap();
    let port = place(&group[0]).port;
    let joined = udp_join(&group[1]).unwrap();
    assert_eq!(place(&joined).port, port);
    let stranger = udp(local, Family::V4, port, Stack::Dual, Reuse::Refused);
    assert_eq!(errno(stranger), libc::EADDRINUSE);
    let shared = udp(local, Family::V4, 0, Stack::Dual, Reuse::Allowed).unwrap();
    udp(
        local,
        Family::V4,
        place(&shared).port,
        Stack::Dual,
        Reuse::Allowed,
    )
    .unwrap();
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(b"x", ("127.0.0.1", port))
        .unwrap();
    until("datagram", || {
        let mut sockets = group.iter().chain([&joined]);
        sockets
            .any(|socket| rustix::io::read(socket, &mut [0; 4]).is_ok())
            .then_some(())
    });
}

#[test]
fn a_path_socket_takes_any_length_and_widens_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    for path in [dir.path().join("short.sock"), long.join("long.sock")] {
        let access = PathAccess {
            readable_all: true,
            writable_all: true,
        };
        let listener = listen::unix(&path, access, 0).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o666, 0o666);
        control::connect(&path).unwrap();
        assert!(accept(&listener).unwrap().is_some());
        assert_eq!(local_address(&listener).unwrap(), None);
        assert_eq!(errno(listen::unix(&path, access, 0)), libc::EADDRINUSE);
    }
    let missing = dir.path().join("none/x.sock");
    assert_eq!(
        errno(listen::unix(&missing, PathAccess::default(), 0)),
        libc::EACCES
    );
}

#[test]
fn an_abstract_name_needs_no_file() {
    let name = format!("\0musher-test-{}", std::process::id());
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let listener = listen::unix(path, PathAccess::default(), 0).unwrap();
    control::connect(path).unwrap();
    assert!(accept(&listener).unwrap().is_some());
}

#[test]
fn a_control_socket_is_private_and_knows_its_peer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("home/rpc.sock");
    let listener = control::bind_control(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let _client = UnixStream::connect(&path).unwrap();
    let connection = accept(&listener).unwrap().unwrap();
    let peer = control::peer(connection.as_fd()).unwrap();
    assert_eq!(peer.pid, std::process::id());
    assert_eq!(peer.uid, musher_os::user::effective_uid());
}

#[test]
fn a_control_socket_replaces_only_what_nobody_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpc.sock");
    let first = control::bind_control(&path).unwrap();
    assert!(matches!(
        control::bind_control(&path),
        Err(ControlError::InUse(_))
    ));
    drop(first);
    assert_eq!(errno(control::connect(&path)), libc::ECONNREFUSED);
    let second = control::bind_control(&path).unwrap();
    control::connect(&path).unwrap();
    drop(second);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        control::bind_control(&path),
        Err(ControlError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left aside: {names:?}");
}

#[test]
fn a_socket_of_another_type_has_an_owner_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpc.sock");
    let served = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    assert!(matches!(
        control::bind_control(&path),
        Err(ControlError::InUse(_))
    ));
    drop(served);
    control::bind_control(&path).unwrap();
}

#[test]
fn a_directory_for_everybody_is_not_taken_for_a_home() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("tmp");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(
        control::bind_control(&shared.join("rpc.sock")),
        Err(ControlError::SharedDirectory(_))
    ));
    let mode = std::fs::metadata(&shared).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}
