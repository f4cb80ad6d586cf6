//! `pub.sock`: every event to every reader, and no reader can hold it up.
//!
//! An event is encoded once and shared. Each reader has a bounded queue; one
//! that is too slow loses events, is told how many once it has caught up, and
//! delays nobody. Publishing never waits and may be done from any thread.
//! Readers send nothing: what they send is thrown away.

#[cfg(test)]
mod tests;

use super::rpc::is_allowed;
use bytes::{Buf, Bytes};
use musher_core::wire::{axon, bus};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Readers at the same time; one more is closed as soon as it is accepted.
const MAX_READERS: usize = 1024;

/// Bytes queued for one reader; events beyond are dropped and counted.
const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;

/// A reader that lost events gets further ones once its queue is down to this,
/// so that a gap is one gap and not every second event.
const RESUME_BYTES: usize = MAX_QUEUED_BYTES / 2;

/// What a reader sends is read and forgotten in pieces of this size.
const IGNORED_BYTES: usize = 1024;

/// How long accepting rests when the system has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The bus. Clones publish to the same readers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bus {
    readers: Arc<Mutex<Vec<Arc<Reader>>>>,
    /// Rings when a reader came or left.
    changed: Arc<Notify>,
}

/// One connected reader, as the publisher sees it.
#[derive(Debug, Default)]
struct Reader {
    queue: Mutex<Queue>,
    /// Rings when the queue is no longer empty.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    n_bytes: usize,
    n_dropped: u64,
}

impl Bus {
    /// Returns how many readers there are; without any, events need not be made.
    pub(crate) fn n_subscribers(&self) -> usize {
        lock(&self.readers).len()
    }

    /// Waits until a reader comes or leaves; one that did since the last wait
    /// counts.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sends an event to every reader that keeps up. Never waits.
    pub(crate) fn publish(&self, event: &str, payload: &Value) {
        if self.n_subscribers() == 0 {
            return;
        }
        let frame = Bytes::from(axon::event_frame(event, payload));
        for reader in lock(&self.readers).iter() {
            reader.push(&frame);
        }
    }

    /// Serves `listener` for ever. Peers of another user than the daemon's and
    /// root are turned away. Dropping the future closes every connection.
    pub(crate) async fn serve(&self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    if connections.len() < MAX_READERS && is_allowed(&stream) {
                        let subscription = Subscription::new(self);
                        connections.spawn(async move { subscription.feed(stream).await });
                    }
                }
                // accept(2): a dead peer or no descriptors; neither ends the service.
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            }
        }
    }
}

impl Reader {
    fn push(&self, frame: &Bytes) {
        let mut queue = lock(&self.queue);
        if queue.n_dropped > 0 && queue.n_bytes <= RESUME_BYTES {
            queue.put_gap();
        }
        if queue.n_dropped > 0 || queue.n_bytes + frame.len() > MAX_QUEUED_BYTES {
            queue.n_dropped += 1;
        } else {
            queue.put(frame.clone());
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// The next frame to write; after the last one, the notice of what was lost.
    fn next(&self) -> Option<Bytes> {
        let mut queue = lock(&self.queue);
        if queue.frames.is_empty() && queue.n_dropped > 0 {
            queue.put_gap();
        }
        let frame = queue.frames.pop_front()?;
        queue.n_bytes -= frame.len();
        Some(frame)
    }
}

impl Queue {
    fn put(&mut self, frame: Bytes) {
        self.n_bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn put_gap(&mut self) {
        let gap = axon::event_frame(bus::GAP, &bus::gap(self.n_dropped));
        self.n_dropped = 0;
        self.put(gap.into());
    }
}

/// A reader's place on the bus, given up when dropped.
struct Subscription {
    bus: Bus,
    reader: Arc<Reader>,
}

impl Subscription {
    fn new(bus: &Bus) -> Subscription {
        let reader = Arc::new(Reader::default());
        lock(&bus.readers).push(reader.clone());
        bus.changed.notify_one();
        Subscription {
            bus: bus.clone(),
            reader,
        }
    }

    /// Writes until the reader leaves.
    async fn feed(&self, mut stream: UnixStream) -> io::Result<()> {
        let (mut from_reader, mut to_reader) = stream.split();
        let mut frame = Bytes::new();
        let mut ignored = [0; IGNORED_BYTES];
        loop {
            if frame.is_empty() {
                frame = self.reader.next().unwrap_or_default();
            }
            tokio::select! {
                n_read = from_reader.read(&mut ignored) => {
                    if n_read? == 0 {
                        return Ok(());
                    }
                }
                result = to_reader.write_buf(&mut frame), if frame.has_remaining() => {
                    result?;
                }
                () = self.reader.wake.notified(), if frame.is_empty() => {}
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.bus.readers).retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        self.bus.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds a lock; the data is whole anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
