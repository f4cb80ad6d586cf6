//! What the command line asks for; every number has a default and a bound.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: musher-load HOST:PORT [options]
  --kind keep-alive|fresh|websocket|lines   how it asks (keep-alive)
  --path PATH          of HTTP and WebSocket (/)
  --expect TEXT        what the body of every good answer begins with
  --connections N      clients at the same time, at most 1024 (8)
  --pause MS[-MS]      between an answer and the next request (0)
  --timeout MS         for one answer (10000)
  --seconds N          at most so long (10)
  --requests N         at most so many
  --seed N             of the pauses (1)
  --control            a line on stdin prints the counts, its end ends the load";

const MAX_CONNECTIONS: usize = 1024;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// HTTP/1.1, many requests on a connection.
    KeepAlive,
    /// HTTP/1.1, one request on a connection.
    Fresh,
    /// One WebSocket, numbered messages that are echoed.
    WebSocket,
    /// Numbered lines over TCP that are echoed.
    Lines,
}

/// One run of the program.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) expect: String,
    pub(crate) connections: usize,
    pub(crate) pause_us: (u64, u64),
    pub(crate) timeout: Duration,
    pub(crate) at_most: Duration,
    pub(crate) max_requests: u64,
    pub(crate) seed: u64,
    pub(crate) is_controlled: bool,
}

impl Options {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// A sentence about the first word that is not understood.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let target = words.next().ok_or("no HOST:PORT")?;
        let address = target
            .to_socket_addrs()
            .map_err(|error| format!("{target}: {error}"))?;
        let address = address
            .into_iter()
            .next()
            .ok_or_else(|| format!("{target}: no address"))?;
        let mut options = Options {
            address,
            kind: Kind::KeepAlive,
            path: "/".to_owned(),
            expect: String::new(),
            connections: 8,
            pause_us: (0, 0),
            timeout: Duration::from_secs(10),
            at_most: Duration::from_secs(10),
            max_requests: u64::MAX,
            seed: 1,
            is_controlled: false,
        };
        while let Some(word) = words.next() {
            if word == "--control" {
                options.is_controlled = true;
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{word} needs a value"))?;
            options.set(&word, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, word: &str, value: String) -> Result<(), String> {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{word} {value}: not a number"))
        };
        match word {
            "--kind" => self.kind = kind(&value)?,
            "--path" => self.path = value,
            "--expect" => self.expect = value,
            "--connections" => {
                let n = usize::try_from(number()?).unwrap_or(usize::MAX);
                self.connections = n.clamp(1, MAX_CONNECTIONS);
            }
            "--pause" => {
                self.pause_us =
                    pause(&value).ok_or_else(|| format!("--pause {value}: not MS or MS-MS"))?
            }
            "--timeout" => self.timeout = Duration::from_millis(number()?.max(1)),
            "--seconds" => self.at_most = Duration::from_secs(number()?),
            "--requests" => self.max_requests = number()?,
            "--seed" => self.seed = number()?,
            _ => return Err(format!("{word} is no option")),
        }
        Ok(())
    }
}

fn kind(word: &str) -> Result<Kind, String> {
    match word {
        "keep-alive" => Ok(Kind::KeepAlive),
        "fresh" => Ok(Kind::Fresh),
        "websocket" => Ok(Kind::WebSocket),
        "lines" => Ok(Kind::Lines),
        _ => Err(format!(
            "--kind {word} is none of keep-alive, fresh, websocket, lines"
        )),
    }
}

/// Returns the bounds in µs of `3` or `0-10`, in ms.
fn pause(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let ms = |text: &str| text.parse::<u64>().ok()?.checked_mul(1000);
    let (from, to) = (ms(from)?, ms(to)?);
    (from <= to && to < u64::MAX).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn words_become_options_and_mistakes_are_named() {
        let options =
            parsed("127.0.0.1:80 --kind fresh --pause 2-5 --connections 5000 --control").unwrap();
        assert_eq!(options.kind, Kind::Fresh);
        assert_eq!(options.pause_us, (2000, 5000));
        assert_eq!(options.connections, MAX_CONNECTIONS);
        assert!(options.is_controlled);
        for (text, said) in [
            ("", "no HOST:PORT"),
            ("127.0.0.1:80 --kind slow", "slow is none of"),
            ("127.0.0.1:80 --pause 5-2", "5-2"),
            ("127.0.0.1:80 --seconds", "needs a value"),
            ("127.0.0.1:80 --fast 1", "no option"),
            ("127.0.0.1:80 --seed x", "not a number"),
        ] {
            assert!(parsed(text).unwrap_err().contains(said), "{text}");
        }
    }
}
