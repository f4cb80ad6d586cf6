//! Sockets for programs of every runtime, and whose an address is.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use musher_os::activation::{self, Owner};
use rustix::fs::{OFlags, fcntl_getfl};

fn waits(socket: &OwnedFd) -> bool {
    !fcntl_getfl(socket).unwrap().contains(OFlags::NONBLOCK)
}

fn me() -> Owner {
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    Owner {
        pid: std::process::id(),
        program: comm.trim_end().to_owned(),
    }
}

#[test]
fn a_socket_waits_in_accept_and_its_address_is_taken_with_a_name() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(activation::tcp_owner(port), None);
    let socket = activation::tcp(Some("127.0.0.1"), port).unwrap();
    assert!(waits(&socket));
    let again = activation::tcp(Some("127.0.0.1"), port).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EADDRINUSE));
    assert_eq!(activation::tcp_owner(port), Some(me()));
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut accepted, _) = TcpListener::from(socket).accept().unwrap();
    drop(client);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
}

#[test]
fn every_address_is_of_both_families() {
    let port = TcpListener::bind("[::]:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _socket = activation::tcp(None, port).unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    TcpStream::connect(("::1", port)).unwrap();
    assert_eq!(activation::tcp_owner(port), Some(me()));
}

#[test]
fn a_left_over_socket_file_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    drop(UnixListener::bind(&path).unwrap());
    let socket = activation::unix(&path).unwrap();
    assert!(waits(&socket));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o666, 0o666);
    UnixStream::connect(&path).unwrap();
    let again = activation::unix(&path).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EADDRINUSE));
    assert_eq!(activation::unix_owner(&path), Some(me()));
    let file = dir.path().join("notes");
    std::fs::write(&file, "kept").unwrap();
    assert!(activation::unix(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}
