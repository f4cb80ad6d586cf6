//! One question in HTTP/1.1 over a connection that is there.
//!
//! Only the status counts; redirects are not followed and the body is not
//! read, but for a while after the answer, so that an app which is still
//! writing it gets no error for having been asked.

use super::{bracketed, says};
use musher_core::app::probe::HttpCheck;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Longest head of an answer, bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Most header fields of an answer.
const MAX_FIELDS: usize = 128;
/// How much of a body is heard out, bytes, and for how long.
const MAX_BODY: u64 = 64 * 1024;
const BODY_WAIT: Duration = Duration::from_secs(1);
/// Interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 8;

/// Asks; a status from 200 to 399 is well. Returns the connection for
/// [`hear_out`].
///
/// # Errors
/// What was wrong: the end of a sentence about the question.
pub(super) async fn ask(mut stream: TcpStream, check: &HttpCheck) -> Result<TcpStream, String> {
    let request = request(check);
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| says(&error))?;
    let mut head = Vec::new();
    let mut n_interim = 0;
    loop {
        match parse(&head)? {
            Some((code, _)) if (200..400).contains(&code) => return Ok(stream),
            // 101 is an answer: the connection is no longer HTTP.
            Some((code, length)) if (100..200).contains(&code) && code != 101 => {
                head.drain(..length);
                n_interim += 1;
                if n_interim > MAX_INTERIM {
                    return Err("was answered with interim statuses only".to_owned());
                }
                continue;
            }
            Some((code, _)) => return Err(format!("answered {code}")),
            None if head.len() >= MAX_HEAD => {
                return Err(format!("answered with a head of over {MAX_HEAD} bytes"));
            }
            None => {}
        }
        let room = MAX_HEAD - head.len();
        let n_read = (&mut stream)
            .take(room as u64)
            .read_buf(&mut head)
            .await
            .map_err(|error| says(&error))?;
        if n_read == 0 {
            return Err(match head.is_empty() {
                true => "failed: the connection was closed without an answer".to_owned(),
                false => "failed: the connection was closed within the answer".to_owned(),
            });
        }
    }
}

/// Reads on for a little, so that the app can end its answer.
pub(super) async fn hear_out(stream: TcpStream, forgotten: oneshot::Receiver<()>) {
    let mut body = stream.take(MAX_BODY);
    let mut nowhere = tokio::io::sink();
    let hearing = tokio::io::copy(&mut body, &mut nowhere);
    tokio::select! {
        _ = forgotten => {}
        _ = tokio::time::timeout(BODY_WAIT, hearing) => {}
    }
}

fn request(check: &HttpCheck) -> String {
    let HttpCheck {
        host,
        port,
        path,
        headers,
    } = check;
    let is_set = |name: &str| {
        headers
            .iter()
            .any(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    let authority = match port {
        0 | 80 => bracketed(host),
        port => format!("{}:{port}", bracketed(host)),
    };
    let agent = concat!("musher/", env!("CARGO_PKG_VERSION"), " probe");
    for (name, value) in [
        ("Host", authority.as_str()),
        ("User-Agent", agent),
        ("Accept", "*/*"),
    ] {
        if !is_set(name) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("Connection: close\r\n\r\n");
    text
}

/// Returns status and length of a head; `None` while it is not complete.
fn parse(head: &[u8]) -> Result<Option<(u16, usize)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(length)) => Ok(response.code.map(|code| (code, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(format!("was not answered in HTTP: {error}")),
    }
}
