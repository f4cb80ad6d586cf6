//! One child's IPC channel: bytes and descriptors in, bounded queue out.

use super::thread::Shared;
use bytes::Bytes;
use musher_core::time::{Millis, Mono};
use musher_core::wire::node_ipc::{Lines, user_line};
use musher_os::fd;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that may wait for a child that does not read. Over it, messages to
/// the app are dropped and counted; control messages never are.
pub(crate) const QUEUE_LIMIT: usize = 16 << 20;

/// How much is read at once, bytes.
const CHUNK: usize = 64 << 10;

/// Chunks read from one child before the others have their turn.
const CHUNKS_PER_TURN: usize = 16;

/// Descriptors kept of a child until the messages they belong to are read;
/// further ones are closed, or a child could use up all of the daemon's. Node
/// sends one at a time.
const MAX_RECEIVED: usize = 64;

/// Patience when the kernel has too many descriptors under way (ETOOMANYREFS,
/// unix(7)): the channel is writable all the while, so waiting for that would
/// spin.
const STALL: Millis = Millis(10);

/// What a turn of reading ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    Later,
    Ended,
}

/// What the thread has to wait for before it writes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writable {
    Done,
    Blocked,
    At(Mono),
}

#[derive(Debug)]
struct Outgoing {
    line: Vec<u8>,
    n_sent: usize,
    /// Travels with the first byte.
    fd: Option<Shared>,
}

/// One child's channel.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) fd: OwnedFd,
    pub(crate) bun: bool,
    /// Waiting for EPOLLOUT.
    pub(crate) wants_out: bool,
    /// When to try again after ETOOMANYREFS.
    pub(crate) stalled_until: Option<Mono>,
    /// The first line may be the rest of one a former daemon had begun to read.
    resyncing: bool,
    lines: Lines,
    received: VecDeque<OwnedFd>,
    queue: VecDeque<Outgoing>,
    n_queued_bytes: usize,
    n_dropped: u64,
    n_read: u64,
}

impl Link {
    pub(crate) fn new(fd: OwnedFd) -> Link {
        Link {
            fd,
            bun: false,
            wants_out: false,
            stalled_until: None,
            resyncing: false,
            lines: Lines::default(),
            received: VecDeque::new(),
            queue: VecDeque::new(),
            n_queued_bytes: 0,
            n_dropped: 0,
            n_read: 0,
        }
    }

    /// A channel a former daemon has read from.
    pub(crate) fn restored(fd: OwnedFd) -> Link {
        Link {
            resyncing: true,
            ..Link::new(fd)
        }
    }

    /// Reads what is there, up to a turn's worth.
    pub(crate) fn read(&mut self) -> Readable {
        let mut buffer = [0_u8; CHUNK];
        for _ in 0..CHUNKS_PER_TURN {
            match fd::recv_with_fds(self.fd.as_fd(), &mut buffer, &mut self.received) {
                Ok(0) => return Readable::Ended,
                Ok(len) => {
                    self.n_read += len as u64;
                    self.lines.push(&buffer[..len]);
                    self.received.truncate(MAX_RECEIVED);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Readable::Later,
                Err(_) => return Readable::Ended,
            }
        }
        Readable::Later
    }

    /// Returns whether everything it was given is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns how many bytes were read in all.
    pub(crate) fn n_read(&self) -> u64 {
        self.n_read
    }

    /// Returns the next line read.
    pub(crate) fn next_line(&mut self) -> Option<Bytes> {
        let line = self.lines.next_line()?;
        if std::mem::take(&mut self.resyncing) && !is_json(&line) {
            self.n_dropped += 1;
            return self.lines.next_line();
        }
        Some(line)
    }

    /// Returns the oldest descriptor received and not taken.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }

    /// Queues a message of the protocol.
    pub(crate) fn push(&mut self, line: Vec<u8>, fd: Option<Shared>) {
        self.n_queued_bytes += line.len();
        self.queue.push_back(Outgoing {
            line,
            n_sent: 0,
            fd,
        });
    }

    /// Queues a message to the app, unless too much waits already or it would
    /// kill the app's parser.
    pub(crate) fn push_user(&mut self, json: &[u8]) {
        match user_line(json) {
            Some(line) if self.n_queued_bytes + line.len() <= QUEUE_LIMIT => self.push(line, None),
            Some(_) | None => self.n_dropped += 1,
        }
    }

    /// Writes as much as the child takes.
    pub(crate) fn flush(&mut self, now: Mono) -> Writable {
        while let Some(next) = self.queue.front_mut() {
            let fd = next.fd.as_ref().filter(|_| next.n_sent == 0);
            let rest = &next.line[next.n_sent..];
            match fd::send_with_fd(self.fd.as_fd(), rest, fd.map(|fd| fd.as_fd())) {
                Ok(len) => {
                    next.n_sent += len;
                    self.n_queued_bytes -= len;
                    if next.n_sent == next.line.len() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Writable::Blocked;
                }
                Err(error) if is_passing(&error) => return Writable::At(now + STALL),
                // The child is gone; the end of the stream is about to be read.
                Err(_) => {
                    self.queue.clear();
                    self.n_queued_bytes = 0;
                }
            }
        }
        Writable::Done
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM)
    )
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use musher_os::fd::{Blocking, socketpair};

    #[test]
    fn a_child_that_does_not_read_loses_messages_but_no_control() {
        let (ours, theirs) = socketpair(Blocking::NeverWaits).unwrap();
        let mut link = Link::new(ours);
        let message = format!("\"{}\"", "x".repeat(1 << 20));
        for _ in 0..40 {
            link.push_user(message.as_bytes());
        }
        assert!(link.n_queued_bytes <= QUEUE_LIMIT);
        assert_eq!(link.n_dropped, 25);
        link.push(b"{}\n".to_vec(), None);
        assert_eq!(link.flush(Mono(0)), Writable::Blocked);
        let mut reader = Link::new(theirs);
        let mut last = Bytes::new();
        while link.flush(Mono(0)) != Writable::Done || last != b"{}"[..] {
            reader.read();
            while let Some(line) = reader.next_line() {
                last = line;
            }
        }
        assert_eq!(link.n_queued_bytes, 0);
    }

    #[test]
    fn a_child_cannot_fill_the_daemon_with_descriptors() {
        let (ours, theirs) = socketpair(Blocking::NeverWaits).unwrap();
        let mut link = Link::new(ours);
        for _ in 0..2 * MAX_RECEIVED {
            fd::send_with_fd(theirs.as_fd(), b"{}\n", Some(theirs.as_fd())).unwrap();
            link.read();
        }
        let kept = std::iter::from_fn(|| link.take_fd()).count();
        assert_eq!(kept, MAX_RECEIVED);
    }

    #[test]
    fn the_rest_of_a_line_is_passed_over_after_a_takeover() {
        let (ours, theirs) = socketpair(Blocking::NeverWaits).unwrap();
        let mut link = Link::restored(ours);
        fd::send_with_fd(theirs.as_fd(), b"rest\"}\n\"next\"\n", None).unwrap();
        link.read();
        assert_eq!(link.next_line().as_deref(), Some(&b"\"next\""[..]));
        assert_eq!(link.n_dropped, 1);
    }
}
