//! The judge is judged: servers that lose answers in every way, and what the
//! load client says of each.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok 1";

/// Serves connections one after the other, each by a call with its number, and
/// returns what the client counted on that server.
fn counted(words: &[&str], serve: impl Fn(usize, TcpStream) + Send + 'static) -> Value {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            serve(n, stream);
        }
    });
    counts(&address, words)
}

fn counts(address: &str, words: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_musher-load"))
        .args([address, "--connections", "1", "--timeout", "300"])
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Reads one request, up to its empty line.
fn request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

fn answering(text: &'static str) -> impl Fn(usize, TcpStream) + Send {
    move |_, mut stream| while request(&mut stream) && stream.write_all(text.as_bytes()).is_ok() {}
}

#[test]
fn good_answers_of_every_shape_are_no_failures() {
    for text in [
        OK,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\r\n 1\r\n0\r\n\r\n",
        "HTTP/1.1 204 No\r\nContent-Length: 3\r\nX: y\r\n\r\nok ",
    ] {
        let counts = counted(&["--requests", "5", "--expect", "ok"], answering(text));
        assert_eq!(
            (&counts["ok"], &counts["failed"]),
            (&5.into(), &0.into()),
            "{text}: {counts}"
        );
    }
}

#[test]
fn every_lost_answer_is_a_failure_of_its_kind() {
    for (text, kind) in [
        ("", "closed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok 1", "closed"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok",
            "closed",
        ),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", "body"),
        ("hello\r\n\r\n", "protocol"),
    ] {
        let once = move |_: usize, mut stream: TcpStream| {
            request(&mut stream);
            let _ = stream.write_all(text.as_bytes());
        };
        let counts = counted(&["--requests", "3", "--expect", "ok"], once);
        assert_eq!(counts["failures"][kind], 3, "{text:?}: {counts}");
        assert_eq!(counts["failed"], 3, "{text:?}: {counts}");
    }
}

#[test]
fn nobody_who_listens_is_refused_and_nobody_who_answers_is_a_timeout() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    assert_eq!(
        counts(&address, &["--requests", "2"])["failures"]["refused"],
        2
    );
    let mute = |_: usize, mut stream: TcpStream| {
        request(&mut stream);
        request(&mut stream);
    };
    assert_eq!(
        counted(&["--requests", "1"], mute)["failures"]["timeout"],
        1
    );
}

/// With bytes unread in its socket a server that closes resets (RFC 1122, 4.2.2.13).
#[test]
fn a_connection_that_is_reset_is_told_from_one_that_is_closed() {
    let rude = |_: usize, stream: TcpStream| {
        let mut byte = [0];
        let _ = (&stream).read(&mut byte);
    };
    let counts = counted(&["--requests", "1"], rude);
    assert_eq!(counts["failures"]["reset"], 1, "{counts}");
}

#[test]
fn a_connection_that_ends_while_it_is_idle_is_a_reconnect() {
    let polite = |_: usize, mut stream: TcpStream| {
        request(&mut stream);
        let _ = stream.write_all(OK.as_bytes());
    };
    let counts = counted(&["--requests", "4", "--pause", "60"], polite);
    assert_eq!(
        (&counts["ok"], &counts["reconnects"]),
        (&4.into(), &3.into()),
        "{counts}"
    );
    let said = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nok 1";
    let leaving = move |_: usize, mut stream: TcpStream| {
        request(&mut stream);
        let _ = stream.write_all(said.as_bytes());
    };
    let counts = counted(&["--requests", "4"], leaving);
    assert_eq!(
        (&counts["ok"], &counts["failed"]),
        (&4.into(), &0.into()),
        "{counts}"
    );
}

const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Reads one masked frame with a mask of zeros; returns opcode and payload.
fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 6];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload).ok()?;
    Some((head[0] & 15, payload))
}

fn send(stream: &mut TcpStream, opcode: u8, payload: &[u8]) {
    let mut bytes = vec![0x80 | opcode, u8::try_from(payload.len()).unwrap()];
    bytes.extend_from_slice(payload);
    let _ = stream.write_all(&bytes);
}

#[test]
fn a_close_frame_excuses_a_message_and_an_end_without_one_does_not() {
    let words = ["--kind", "websocket", "--requests", "3"];
    // The first connection leaves by the book in front of an echo.
    let leaving = |n: usize, mut stream: TcpStream| {
        request(&mut stream);
        let _ = stream.write_all(UPGRADED);
        while let Some((opcode, payload)) = frame(&mut stream) {
            match (opcode, n) {
                (8, _) => return,
                (_, 0) => send(&mut stream, 8, &1001_u16.to_be_bytes()),
                _ => send(&mut stream, opcode, &payload),
            }
        }
    };
    let counts = counted(&words, leaving);
    assert_eq!(
        (&counts["ok"], &counts["failed"]),
        (&3.into(), &0.into()),
        "{counts}"
    );
    assert_eq!(counts["resent"], 1);
    let rude = |_: usize, mut stream: TcpStream| {
        request(&mut stream);
        let _ = stream.write_all(UPGRADED);
        frame(&mut stream);
    };
    assert_eq!(counted(&words, rude)["failures"]["closed"], 3);
}
