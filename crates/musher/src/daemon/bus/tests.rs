//! The bus over a real socket.

use super::*;
use bytes::BytesMut;
use musher_core::wire::amp;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    _home: tempfile::TempDir,
    path: PathBuf,
    bus: Bus,
    _server: JoinSet<()>,
}

impl World {
    fn start() -> World {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pub.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let bus = Bus::default();
        let mut server = JoinSet::new();
        let serving = bus.clone();
        server.spawn(async move { serving.serve(listener).await });
        World {
            _home: home,
            path,
            bus,
            _server: server,
        }
    }

    /// Connects and waits until the bus knows.
    async fn subscribe(&self) -> Client {
        let n_before = self.bus.n_subscribers();
        let stream = UnixStream::connect(&self.path).await.unwrap();
        self.wait_for(n_before + 1).await;
        Client {
            stream,
            input: BytesMut::new(),
        }
    }

    async fn wait_for(&self, n_subscribers: usize) {
        within(async {
            while self.bus.n_subscribers() != n_subscribers {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

struct Client {
    stream: UnixStream,
    input: BytesMut,
}

impl Client {
    async fn event(&mut self) -> (String, Value) {
        loop {
            if let Some(args) = amp::decode(&mut self.input).unwrap() {
                return axon::event(&args).unwrap();
            }
            let n_read = within(self.stream.read_buf(&mut self.input)).await.unwrap();
            assert_ne!(n_read, 0, "the bus closed the connection");
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.expect("the other side answers in time")
}

#[tokio::test]
async fn every_reader_gets_every_event_in_order() {
    let world = World::start();
    let mut readers = [world.subscribe().await, world.subscribe().await];
    for i in 0..100 {
        world.bus.publish("log:out", &json!({ "data": i }));
    }
    for reader in &mut readers {
        for i in 0..100 {
            let expected = ("log:out".to_owned(), json!({ "data": i }));
            assert_eq!(reader.event().await, expected);
        }
    }
}

#[tokio::test]
async fn a_reader_that_leaves_or_talks_is_no_trouble() {
    let world = World::start();
    assert_eq!(world.bus.n_subscribers(), 0);
    world.bus.publish("nobody", &json!("hears it"));
    let gone = world.subscribe().await;
    let mut talker = world.subscribe().await;
    talker.stream.write_all(&[b'x'; 5000]).await.unwrap();
    drop(gone);
    world.wait_for(1).await;
    world.bus.publish("a", &json!(1));
    assert_eq!(talker.event().await, ("a".to_owned(), json!(1)));
}

#[tokio::test]
async fn a_slow_reader_loses_events_learns_how_many_and_goes_on() {
    let world = World::start();
    let mut slow = world.subscribe().await;
    let mut quick = world.subscribe().await;
    let text = "x".repeat(64 * 1024);
    let n_events = 200;
    for i in 0..n_events {
        world
            .bus
            .publish("log:out", &json!({ "i": i, "text": text }));
        let (_, payload) = quick.event().await;
        assert_eq!(payload["i"], i, "the quick reader loses nothing");
    }
    world.bus.publish("end", &json!({}));
    let mut next = 0;
    let mut n_gaps = 0;
    loop {
        let (name, payload) = slow.event().await;
        match name.as_str() {
            "log:out" => assert_eq!(payload["i"], next, "in order, gaps accounted for"),
            bus::GAP => {
                n_gaps += 1;
                next += payload["dropped"].as_u64().unwrap();
                if next > n_events {
                    break;
                }
                continue;
            }
            _ => break,
        }
        next += 1;
    }
    assert!(next >= n_events, "{next} events accounted for");
    assert!(n_gaps >= 1, "12 MiB do not fit into the queue");
    // Caught up: it hears everything again.
    world.bus.publish("again", &json!(1));
    assert_eq!(slow.event().await.0, "again");
}

#[tokio::test]
async fn an_event_that_never_fits_is_told_at_once() {
    let world = World::start();
    let mut reader = world.subscribe().await;
    let giant = json!("x".repeat(MAX_QUEUED_BYTES));
    world.bus.publish("giant", &giant);
    let expected = (bus::GAP.to_owned(), json!({ "dropped": 1 }));
    assert_eq!(reader.event().await, expected);
}
