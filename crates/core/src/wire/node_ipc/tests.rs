//! Framing under any chunking, and the bytes of every message.

use super::*;
use crate::cluster::message::SocketName;
use proptest::prelude::*;

fn lines_of(lines: &mut Lines, chunks: &[&[u8]]) -> Vec<Bytes> {
    let mut got = Vec::new();
    for chunk in chunks {
        lines.push(chunk);
        while let Some(line) = lines.next_line() {
            got.push(line);
        }
    }
    got
}

proptest! {
    #[test]
    fn chunking_never_changes_the_lines(
        wanted in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        cuts in prop::collection::vec(1..40usize, 1..80),
    ) {
        let limit = 40;
        let clean = |line: &Vec<u8>| line.iter().map(|b| if *b == b'\n' { b' ' } else { *b }).collect::<Vec<u8>>();
        let wanted: Vec<Vec<u8>> = wanted.iter().map(clean).collect();
        let mut stream = Vec::new();
        for line in &wanted {
            stream.extend_from_slice(line);
            stream.push(b'\n');
        }
        let mut chunks: Vec<&[u8]> = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(head);
            rest = tail;
        }
        let mut lines = Lines::with_limit(limit);
        let got = lines_of(&mut lines, &chunks);
        let kept: Vec<&Vec<u8>> = wanted.iter().filter(|l| !l.is_empty() && l.len() <= limit).collect();
        prop_assert_eq!(got.iter().map(|l| l.to_vec()).collect::<Vec<_>>(), kept.into_iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(lines.n_dropped(), wanted.iter().filter(|l| l.len() > limit).count() as u64);
    }

    #[test]
    fn no_bytes_at_all_upset_the_reader(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let _: Line = read(&line);
        let mut internal = br#"{"cmd":"NODE_CLUSTER","act":"#.to_vec();
        internal.extend_from_slice(&line);
        let read_back = read(&internal);
        let is_internal = matches!(read_back, Line::Internal { .. });
        prop_assert!(is_internal);
    }
}

#[test]
fn an_endless_line_does_not_fill_the_memory() {
    let mut lines = Lines::with_limit(1000);
    for _ in 0..100 {
        lines.push(&[b'x'; 900]);
        assert_eq!(lines.next_line(), None);
        assert!(lines.buffer.len() <= 1000);
    }
    lines.push(b"\n\"next\"\n");
    assert_eq!(lines.next_line().as_deref(), Some(&b"\"next\""[..]));
    assert_eq!(lines.n_dropped(), 1);
}

fn message(line: &str) -> FromWorker {
    match read(line.as_bytes()) {
        Line::Internal { message, .. } => message,
        other @ (Line::Ready | Line::User) => panic!("{line}: {other:?}"),
    }
}

#[test]
fn what_the_app_says_stays_the_apps() {
    for line in [
        r#""hello""#,
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":"other"}"#,
        r#"{"s":"\ud800"}"#,
        "42",
        "null",
    ] {
        assert_eq!(read(line.as_bytes()), Line::User, "{line}");
    }
    assert_eq!(read(br#""ready""#), Line::Ready);
}

#[test]
fn nodes_own_messages_are_understood() {
    let listen = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3000,"addressType":4,"backlog":0,"seq":1}"#;
    let FromWorker::Query(query) = message(listen) else {
        panic!("not a query");
    };
    assert_eq!(query.seq, 1);
    assert_eq!(query.options.backlog, DEFAULT_BACKLOG);
    assert_eq!(query.endpoint.unwrap().key().0, "null:3000:4:undefined");
    let udp = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":2,"data":null,"address":"::1","port":0,"addressType":"udp6","fd":-1,"flags":5,"seq":7}"#;
    let FromWorker::Query(query) = message(udp) else {
        panic!("not a query");
    };
    assert!(query.options.v6_only && query.options.reuse_addr);
    assert_eq!(query.endpoint.unwrap().key().0, "::1:0:udp6:undefined:2");
    let fd = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":null,"addressType":null,"fd":3,"seq":1}"#;
    let FromWorker::Query(query) = message(fd) else {
        panic!("not a query");
    };
    assert_eq!(query.endpoint, None);
    assert_eq!(
        message(r#"{"cmd":"NODE_CLUSTER","ack":5,"accepted":false,"seq":3}"#),
        FromWorker::Verdict {
            ack: 5,
            accepted: false
        }
    );
    assert_eq!(
        message(r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":4}"#),
        FromWorker::Leaving { seq: 4 }
    );
    assert_eq!(
        message(r#"{"cmd":"NODE_DEBUG_ENABLED"}"#),
        FromWorker::Other
    );
}

#[test]
fn bun_marks_its_internal_messages() {
    let line = b"\x02{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}";
    assert_eq!(
        read(line),
        Line::Internal {
            message: FromWorker::Online,
            bun: true
        }
    );
    assert_eq!(write(&ToWorker::HandleAck, true)[0], BUN_MARK);
}

#[test]
fn every_message_is_written_as_node_expects_it() {
    let key = || Key("null:3000:4:undefined".into());
    let data = json!({"ticketKeys": "00"});
    let name = SocketName {
        address: "::".into(),
        v6: true,
        port: 3000,
    };
    let table = [
        (
            ToWorker::RoundRobin {
                ack: 1,
                seq: 0,
                key: key(),
                data: Value::Null,
                name: Some(name),
            },
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"null:3000:4:undefined","ack":1,"data":null,"sockname":{"address":"::","family":"IPv6","port":3000},"seq":0}"#,
        ),
        (
            ToWorker::Shared {
                ack: 1,
                seq: 0,
                key: key(),
                kind: Kind::Tcp4,
                data,
            },
            r#"{"cmd":"NODE_HANDLE","type":"net.Native","socketType":1,"nativeKind":"tcp","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"null:3000:4:undefined","ack":1,"data":{"ticketKeys":"00"},"seq":0}}"#,
        ),
        (
            ToWorker::Refusal {
                ack: 1,
                seq: 2,
                errno: 98,
                key: key(),
            },
            r#"{"cmd":"NODE_CLUSTER","errno":-98,"key":"null:3000:4:undefined","ack":1,"data":null,"seq":2}"#,
        ),
        (
            ToWorker::Connection {
                seq: 1,
                key: key(),
                kind: Kind::Pipe,
            },
            r#"{"cmd":"NODE_HANDLE","type":"net.Native","socketType":0,"nativeKind":"pipe","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"null:3000:4:undefined","seq":1}}"#,
        ),
        (
            ToWorker::MayLeave { ack: 4, seq: 9 },
            r#"{"cmd":"NODE_CLUSTER","ack":4,"seq":9}"#,
        ),
        (ToWorker::HandleAck, r#"{"cmd":"NODE_HANDLE_ACK"}"#),
        (ToWorker::HandleNack, r#"{"cmd":"NODE_HANDLE_NACK"}"#),
        (
            ToWorker::SocketsClosed(json!("k")),
            r#"{"cmd":"NODE_SOCKET_ALL_CLOSED","key":"k"}"#,
        ),
        (
            ToWorker::SocketCount(json!("k")),
            r#"{"cmd":"NODE_SOCKET_COUNT","key":"k","count":0}"#,
        ),
    ];
    for (message, line) in table {
        assert_eq!(
            String::from_utf8(write(&message, false)).unwrap(),
            format!("{line}\n")
        );
    }
}

#[test]
fn a_line_that_would_kill_the_worker_is_not_written() {
    assert_eq!(user_line(b""), None);
    assert_eq!(user_line(b" \n"), None);
    assert_eq!(user_line(b"{\n}"), None);
    assert_eq!(user_line(b"\"a\"\n").as_deref(), Some(&b"\"a\"\n"[..]));
}
