//! Numbered lines over plain TCP; each is answered by a line that begins with
//! the same number.

use crate::Client;
use crate::options::Options;
use crate::tally::Tally;
use crate::wire::{Connection, Fault, Idle};
use std::sync::Mutex;

/// Keeps one connection and numbers what it sends.
pub(crate) struct LineClient {
    options: Options,
    connection: Option<Connection>,
    number: u64,
}

impl LineClient {
    /// Returns a client that is not yet connected.
    pub(crate) fn new(options: &Options) -> LineClient {
        LineClient {
            options: options.clone(),
            connection: None,
            number: 0,
        }
    }
}

impl Client for LineClient {
    fn ask(&mut self, tally: &Mutex<Tally>) -> Result<(), Fault> {
        self.number += 1;
        let kept = match self.connection.take() {
            Some(connection) => match connection.idle() {
                Idle::Quiet => Some(connection),
                Idle::Bytes => return Err(Fault::Protocol("bytes without a request".to_owned())),
                Idle::Ended => {
                    tally
                        .lock()
                        .expect("no client panics while it counts")
                        .n_reconnects += 1;
                    None
                }
            },
            None => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(self.options.address, self.options.timeout)?,
        };
        connection.send(format!("{}\n", self.number).as_bytes())?;
        let line = connection.take_until(b"\n", "before the line")?;
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let mut words = line.splitn(2, ' ');
        if words.next() != Some(&self.number.to_string()) {
            return Err(Fault::Body(format!("{line:?} answers {}", self.number)));
        }
        tally
            .lock()
            .expect("no client panics while it counts")
            .saw(words.next().unwrap_or_default());
        self.connection = Some(connection);
        Ok(())
    }
}
