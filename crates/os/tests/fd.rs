//! Descriptors through sockets, locks, the ready pipe and signals.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use common::until;
use musher_core::exit::{ExitStatus, Signal};
use musher_os::daemonize::{self, Readiness};
use musher_os::fd::{self, Blocking, Received};
use musher_os::lock::LockFile;
use musher_os::{reap, signals};

#[test]
fn a_descriptor_arrives_with_its_bytes_and_works() {
    let (a, b) = fd::socketpair(Blocking::NeverWaits).unwrap();
    let (read, write) = fd::pipe().unwrap();
    assert_eq!(
        fd::send_with_fd(a.as_fd(), b"with\n", Some(write.as_fd())).unwrap(),
        5
    );
    assert_eq!(fd::send_with_fd(a.as_fd(), b"without\n", None).unwrap(), 8);
    drop(write);
    let (mut buffer, mut fds) = ([0_u8; 64], VecDeque::new());
    // The kernel ends a read at a message with descriptors, on either side.
    let mut text = Vec::new();
    while text.len() < 13 {
        let len = fd::recv_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap();
        text.extend_from_slice(&buffer[..len]);
    }
    assert_eq!(text, b"with\nwithout\n");
    assert_eq!(fds.len(), 1);
    let received = fds.pop_front().unwrap();
    let flags = rustix::io::fcntl_getfd(&received).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    std::fs::File::from(received).write_all(b"through").unwrap();
    let mut through = String::new();
    std::fs::File::from(read)
        .read_to_string(&mut through)
        .unwrap();
    assert_eq!(through, "through");
}

#[test]
fn an_empty_socket_would_block_a_closed_one_ends_and_a_full_one_refuses() {
    let (a, b) = fd::socketpair(Blocking::Waits).unwrap();
    let (mut buffer, mut fds) = ([0_u8; 64], VecDeque::new());
    let error = fd::recv_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let full = loop {
        if let Err(error) = fd::send_with_fd(a.as_fd(), &[0; 4096], None) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    fd::set_send_timeout(&a, Duration::from_millis(20)).unwrap();
    let late = fd::send_with_fd_waiting(a.as_fd(), &[0; 4096], None).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::WouldBlock);
    drop(a);
    while fd::recv_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap() > 0 {}
    let error = fd::send_with_fd(b.as_fd(), b"x", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn messages_keep_their_boundaries() {
    let (a, b) = fd::seqpacket_pair(Blocking::NeverWaits).unwrap();
    fd::send_with_fd(a.as_fd(), b"one", None).unwrap();
    fd::send_with_fd(a.as_fd(), b"two", None).unwrap();
    let (mut buffer, mut fds) = ([0_u8; 64], VecDeque::new());
    let received = fd::receive(b.as_fd(), &mut buffer, &mut fds).unwrap();
    assert_eq!(
        received,
        Received {
            len: 3,
            fds_lost: false
        }
    );
}

#[test]
fn a_pipe_grows_to_the_wished_size() {
    let (_read, write) = fd::pipe().unwrap();
    assert_eq!(fd::set_pipe_size(&write, 200_000).unwrap(), 256 * 1024);
}

#[test]
fn a_lock_has_one_holder_and_waits_no_longer_than_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = LockFile::try_lock(&path).unwrap().unwrap();
    assert!(LockFile::try_lock(&path).unwrap().is_none());
    let begun = Instant::now();
    assert!(
        LockFile::lock_within(&path, Duration::from_millis(50))
            .unwrap()
            .is_none()
    );
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let waiter = {
        let path = path.clone();
        std::thread::spawn(move || LockFile::lock_within(&path, common::DEADLINE).unwrap())
    };
    drop(held);
    assert!(waiter.join().unwrap().is_some());
}

fn detached(script: &str, log: &std::path::Path) -> OwnedFd {
    let argv = ["/bin/sh", "-c", script];
    daemonize::start(&argv, log, std::path::Path::new("/")).unwrap()
}

#[test]
fn a_detached_process_says_ready_and_its_output_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::write(&log, "before\n").unwrap();
    let ready = detached("pwd; echo err >&2; cat; printf R >&3", &log);
    assert_eq!(
        daemonize::wait_ready(&ready, common::DEADLINE).unwrap(),
        Readiness::Ready(b'R')
    );
    assert_eq!(
        daemonize::wait_ready(&ready, common::DEADLINE).unwrap(),
        Readiness::Closed
    );
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "before\n/\nerr\n");
}

#[test]
fn a_detached_process_that_ends_or_dawdles_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let ready = detached("exit 3", &log);
    assert_eq!(
        daemonize::wait_ready(&ready, common::DEADLINE).unwrap(),
        Readiness::Closed
    );
    // It goes on when the pipe named on its command line is opened.
    let gate = dir.path().join("gate");
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
    let ready = detached(&script, &log);
    let limit = Duration::from_millis(30);
    assert_eq!(
        daemonize::wait_ready(&ready, limit).unwrap(),
        Readiness::TimedOut
    );
    std::fs::write(&gate, "").unwrap();
    assert_eq!(
        daemonize::wait_ready(&ready, common::DEADLINE).unwrap(),
        Readiness::Closed
    );
}

#[test]
fn a_detached_process_that_cannot_start_is_an_error_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let error = daemonize::start(&["/no/such/exe"], &log, dir.path()).unwrap_err();
    let text = "cannot execute /no/such/exe: no such file or directory (ENOENT)";
    assert_eq!(error.to_string(), text);
    let no_log = dir.path().join("none/log");
    let error = daemonize::start(&["/bin/true"], &no_log, dir.path()).unwrap_err();
    assert_eq!(error.errno, libc::ENOENT);
    let none: [&str; 0] = [];
    assert_eq!(
        daemonize::start(&none, &log, dir.path()).unwrap_err().errno,
        libc::EINVAL
    );
}

/// Runs in its own process: a subreaper takes everybody's orphans, and the
/// signal mask is a thread's.
#[test]
fn a_subreaper_gets_the_orphans_and_reads_signals() {
    const INSIDE: &str = "MUSHER_TEST_INSIDE_REAPER";
    if std::env::var_os(INSIDE).is_none() {
        let exe = std::env::current_exe().unwrap();
        let status = std::process::Command::new(exe)
            .args(["--exact", "a_subreaper_gets_the_orphans_and_reads_signals"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    signals::become_subreaper().unwrap();
    let reader = signals::block_and_read(&[Signal::TERM]).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    // In this thread, so that the thread that blocks the signal receives it.
    // SAFETY: raise(3) of a blocked signal only marks it pending.
    assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    until("signal", || {
        reader
            .next()
            .unwrap()
            .filter(|signal| *signal == Signal::TERM)
    });
    let child = common::start(&["sh", "-c", "(exit 9) & echo $!"]);
    let orphan: u32 = common::read_all(child.stdout).trim().parse().unwrap();
    let mut reaped = Vec::new();
    until("both", || {
        reaped.extend(reap::reap_any());
        (reaped.len() == 2).then_some(())
    });
    assert!(
        reaped.contains(&(child.spawned.pid, ExitStatus::Code(0))),
        "{reaped:?}"
    );
    assert!(
        reaped.contains(&(orphan, ExitStatus::Code(9))),
        "{reaped:?}"
    );
    assert_eq!(reap::reap_any(), None);
}
