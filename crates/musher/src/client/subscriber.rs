//! A listener on `pub.sock`: the daemon's events as they happen.

use super::{Filled, RpcError, fill, open};
use crate::paths::Paths;
use bytes::BytesMut;
use musher_core::wire::{amp, axon};
use serde_json::Value;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A connection to the bus.
#[derive(Debug)]
pub(crate) struct Subscriber {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Subscriber {
    /// Connects to the bus; `None` when nobody listens.
    ///
    /// # Errors
    /// The socket is there but may not be used.
    pub(crate) fn connect(paths: &Paths) -> io::Result<Option<Subscriber>> {
        Ok(open(&paths.pub_sock)?.map(|stream| Subscriber {
            stream,
            buffer: BytesMut::new(),
        }))
    }

    /// Waits at most `limit` for the next event, by name and payload; `None`
    /// when none came.
    ///
    /// # Errors
    /// [`RpcError::Closed`] when the daemon is gone.
    pub(crate) fn next(&mut self, limit: Duration) -> Result<Option<(String, Value)>, RpcError> {
        let deadline = Instant::now() + limit;
        loop {
            let frame = amp::decode_within(&mut self.buffer, amp::MAX_REPLY_BYTES)
                .map_err(|error| RpcError::Unreadable(error.to_string()))?;
            if let Some(args) = frame {
                let event = axon::event(&args);
                return event
                    .map(Some)
                    .map_err(|error| RpcError::Unreadable(error.to_string()));
            }
            match fill(&mut self.stream, &mut self.buffer, deadline)? {
                Filled::Bytes => (),
                Filled::TimedOut => return Ok(None),
                Filled::Closed => {
                    return Err(RpcError::Closed {
                        method: "the event stream".to_owned(),
                    });
                }
            }
        }
    }
}
