//! The server over a real socket, with a loop of the test's own.

use super::*;
use musher_core::supervisor::request::Request;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    _home: tempfile::TempDir,
    path: PathBuf,
    inbox: mpsc::Receiver<Incoming>,
    _server: JoinSet<()>,
}

impl World {
    fn start() -> World {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("rpc.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, inbox) = mpsc::channel(512);
        let describe: Describe = Arc::new(|_| Err("no apps here".to_owned()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, describe, Arc::default(), sender));
        World {
            _home: home,
            path,
            inbox,
            _server: server,
        }
    }

    async fn connect(&self) -> Client {
        Client {
            stream: UnixStream::connect(&self.path).await.unwrap(),
            input: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Incoming {
        within(self.inbox.recv()).await.unwrap()
    }

    async fn next_call(&mut self) -> (RequestId, Call, ReplyTo) {
        let incoming = self.next().await;
        let Incoming::Call { id, call, reply } = incoming else {
            panic!("{incoming:?}");
        };
        (id, *call, reply)
    }
}

struct Client {
    stream: UnixStream,
    input: BytesMut,
}

impl Client {
    async fn call(&mut self, method: &str, arg: Value, id: &str) {
        let body = json!({ "type": "call", "method": method, "args": [arg] });
        self.write(&axon::request_frame(&body, id)).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next reply with its id, or nothing at the end of the stream.
    async fn reply(&mut self) -> Option<(Value, String)> {
        loop {
            let decoded = amp::decode_within(&mut self.input, amp::MAX_REPLY_BYTES).unwrap();
            if let Some(args) = decoded {
                let reply = axon::reply(&args).unwrap();
                return Some((reply.body, String::from_utf8_lossy(&reply.id).into_owned()));
            }
            let n_read = within(self.stream.read_buf(&mut self.input)).await;
            // A peer that closes with unread bytes resets: the end as well.
            if n_read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.expect("the other side answers in time")
}

#[tokio::test]
async fn calls_are_answered_in_the_order_of_their_completion() {
    let mut world = World::start();
    let mut client = world.connect().await;
    client.call("ping", json!({}), "1:0").await;
    client.call("stopProcessId", json!(4), "1:1").await;
    let (_, ping, first) = world.next_call().await;
    let (_, stop, second) = world.next_call().await;
    assert_eq!(ping, Call::Ping);
    assert!(matches!(stop, Call::Request(Request::Stop(id), _) if id.0 == 4));
    second.send(&json!({ "args": [2] }));
    first.send(&json!({ "args": [1] }));
    let expected = |body, id: &str| Some((body, format!("s:{id}")));
    assert_eq!(client.reply().await, expected(json!({"args": [2]}), "1:1"));
    assert_eq!(client.reply().await, expected(json!({"args": [1]}), "1:0"));
}

#[tokio::test]
async fn errors_and_the_method_list_need_no_loop() {
    let world = World::start();
    let mut client = world.connect().await;
    client.call("nope", json!({}), "a").await;
    client.call("prepare", json!({}), "b").await;
    client
        .write(&axon::request_frame(&json!({"type": "methods"}), "c"))
        .await;
    let (body, _) = client.reply().await.unwrap();
    assert_eq!(body["error"], "method \"nope\" does not exist");
    assert_eq!(client.reply().await.unwrap().0["error"], "no apps here");
    assert_eq!(client.reply().await.unwrap().0, methods_body());
}

#[tokio::test]
async fn a_malformed_frame_closes_its_connection_and_no_other() {
    let mut world = World::start();
    let mut good = world.connect().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x12\xff\xff\xff\xff",
        b"\x11\0\0\0\x03j:{",
    ] {
        let mut bad = world.connect().await;
        bad.write(bytes).await;
        assert_eq!(bad.reply().await, None, "{bytes:?}");
    }
    good.call("ping", json!({}), "1").await;
    world.next_call().await.2.send(&Value::Null);
    assert!(good.reply().await.is_some());
}

#[tokio::test]
async fn a_client_that_leaves_is_reported_with_what_it_waited_for() {
    let mut world = World::start();
    let mut client = world.connect().await;
    client.call("stopProcessId", json!(1), "0").await;
    client.call("stopProcessId", json!(2), "1").await;
    client.call("killMe", json!({"pid": 1}), "2").await;
    let (answered, _, reply) = world.next_call().await;
    let (open, _, late) = world.next_call().await;
    let (_, kill, silent) = world.next_call().await;
    assert_eq!(kill, Call::KillMe { pid: Some(1) });
    reply.send(&Value::Null);
    drop(client);
    let gone = world.next().await;
    let Incoming::Gone(ids) = gone else {
        panic!("{gone:?}");
    };
    assert_eq!(ids, [open]);
    assert_ne!(answered, open);
    // An answer that comes too late goes nowhere, quietly.
    late.send(&Value::Null);
    drop(silent);
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_for_an_answer() {
    let mut world = World::start();
    let mut client = world.connect().await;
    for i in 0..=MAX_IN_FLIGHT {
        client.call("ping", json!({}), &i.to_string()).await;
    }
    let mut replies = Vec::new();
    for _ in 0..MAX_IN_FLIGHT {
        replies.push(world.next_call().await.2);
    }
    // The connection lives and reads, but does not hand the last call over.
    let mut other = world.connect().await;
    other.call("getVersion", json!({}), "v").await;
    let (_, call, version) = world.next_call().await;
    assert_eq!(call, Call::GetVersion);
    version.send(&Value::Null);
    assert!(other.reply().await.is_some());
    assert!(world.inbox.try_recv().is_err());
    replies.pop().unwrap().send(&Value::Null);
    assert_eq!(world.next_call().await.1, Call::Ping);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_delays_nobody() {
    let mut world = World::start();
    let mut deaf = world.connect().await;
    let big = json!({ "args": ["x".repeat(8 * 1024 * 1024)] });
    let mut replies = Vec::new();
    for i in 0..6 {
        deaf.call("ping", json!({}), &i.to_string()).await;
        replies.push(world.next_call().await.2);
    }
    for reply in replies {
        reply.send(&big);
    }
    let mut other = world.connect().await;
    other.call("ping", json!({}), "1").await;
    world.next_call().await.2.send(&Value::Null);
    assert!(other.reply().await.is_some());
    let mut n_replies = 0;
    while deaf.reply().await.is_some() {
        n_replies += 1;
    }
    assert!(n_replies < 6, "{n_replies} of 48 MiB were kept for it");
}

#[tokio::test]
async fn one_answer_may_be_larger_than_the_queue() {
    let mut world = World::start();
    let mut client = world.connect().await;
    client.call("getMonitorData", json!({}), "1").await;
    let big = json!({ "args": ["x".repeat(MAX_UNREAD_BYTES + 1)] });
    world.next_call().await.2.send(&big);
    assert_eq!(client.reply().await.unwrap().0, big);
}
