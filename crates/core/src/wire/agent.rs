//! The agent's words on Node's IPC channel: `{"cmd":"NODE_MUSHER","act":…}`.
//!
//! The script in the app's process is not trusted more than the app: whatever
//! does not have the shape of a word is of no interest, numbers are taken into
//! bounds, and a text is never longer than [`MAX_VERSION`]. Its figures become
//! PM2's metrics here, with PM2's names, units and number formats; the shape of
//! each was seen in the answers of PM2 7.

use crate::app::Upgraded;
use crate::cluster::message::{Collected, FromWorker, Place, ToWorker};
use crate::supervisor::event::Drained;
use serde_json::{Map, Value, json};

/// The `cmd` of every word.
pub const CMD: &str = "NODE_MUSHER";

/// Longest version text taken, bytes.
pub const MAX_VERSION: usize = 64;

/// Longest place of a connection taken, bytes: a Unix path and two numbers.
pub const MAX_PLACE: usize = 512;

const MIB: f64 = 1024.0 * 1024.0;

/// Returns what a word of the agent means. `with_handle` says whether it came
/// as the inner message of a `NODE_HANDLE`.
pub fn read(word: &Value, with_handle: bool) -> Option<FromWorker> {
    let act = word["act"].as_str()?;
    if with_handle {
        let place = word["key"].as_str().filter(|p| p.len() <= MAX_PLACE)?;
        return (act == "handover").then(|| FromWorker::HandOver(Place(place.to_owned())));
    }
    Some(match act {
        "up" => FromWorker::AgentUp {
            node_version: version(&word["node"])?,
        },
        "stats" => FromWorker::Metrics(metrics(word["figures"].as_object()?)),
        "drained" => FromWorker::Drained(Drained {
            n_moved: count(&word["moved"]),
            n_finished: count(&word["finished"]),
            n_closed: count(&word["closed"]),
            n_left: count(&word["left"]),
        }),
        "gc" => FromWorker::Collected(Collected {
            id: word["id"].as_u64()?,
            heap: pair(&word["heap"])?,
            rss: pair(&word["rss"])?,
        }),
        _ => return None,
    })
}

/// Returns a word to the agent, or `None` for what is said to Node.
pub fn write(message: &ToWorker) -> Option<Value> {
    match message {
        ToWorker::Drain {
            limit,
            websockets,
            places,
        } => {
            let places: Vec<&str> = places.iter().map(|place| place.0.as_str()).collect();
            let mut word = json!({
                "cmd": CMD, "act": "drain", "limit": limit.get(), "places": places,
            });
            match websockets {
                Upgraded::Wait => word["websockets"] = json!("wait"),
                Upgraded::Close { over } => {
                    word["websockets"] = json!("close");
                    word["over"] = json!(over.get());
                }
            }
            Some(word)
        }
        ToWorker::Collect { id } => Some(json!({"cmd": CMD, "act": "gc", "id": id})),
        ToWorker::Refusal { .. }
        | ToWorker::Shared { .. }
        | ToWorker::RoundRobin { .. }
        | ToWorker::Connection { .. }
        | ToWorker::MayLeave { .. }
        | ToWorker::HandleAck
        | ToWorker::HandleNack
        | ToWorker::SocketsClosed(_)
        | ToWorker::SocketCount(_) => None,
    }
}

/// Digits, dots and what follows in a pre-release; nothing that a terminal or
/// a variable could take for something else.
fn version(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let fits = !text.is_empty() && text.len() <= MAX_VERSION && text.chars().all(is_plain);
    fits.then(|| text.to_owned())
}

fn count(value: &Value) -> u32 {
    let number = value.as_u64().unwrap_or(0);
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn pair(value: &Value) -> Option<(u64, u64)> {
    Some((value[0].as_u64()?, value[1].as_u64()?))
}

/// Returns PM2's metrics of the agent's figures, in PM2's order. A kind of
/// figure that this Node does not have is left out.
fn metrics(figures: &Map<String, Value>) -> Map<String, Value> {
    let numbers = |kind: &str| {
        let values = figures.get(kind)?.as_array()?;
        let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
        Some(values)
    };
    let mut all = Map::new();
    let mut put = |name: &str, unit: Option<&str>, kind: &str, value: Value| {
        let mut metric = Map::new();
        metric.insert("historic".into(), json!(true));
        if let Some(unit) = unit {
            metric.insert("unit".into(), json!(unit));
        }
        metric.insert("type".into(), json!(kind));
        metric.insert("value".into(), value);
        all.insert(name.to_owned(), Value::Object(metric));
    };
    let fixed = |value: f64| json!(format!("{value:.2}"));
    if let Some([used, total]) = numbers("heap").as_deref() {
        let usage = if *total > 0.0 {
            used / total * 100.0
        } else {
            0.0
        };
        put(
            "Heap Size",
            Some("MiB"),
            "internal/v8/heap/total",
            fixed(total / MIB),
        );
        put(
            "Heap Usage",
            Some("%"),
            "internal/v8/heap/usage",
            short(usage),
        );
        put(
            "Used Heap Size",
            Some("MiB"),
            "internal/v8/heap/used",
            fixed(used / MIB),
        );
    }
    if let Some([share]) = numbers("gc").as_deref() {
        put("GC Time", Some("%"), "internal/v8/gc/time", fixed(*share));
    }
    if let Some([handles, requests]) = numbers("active").as_deref() {
        put(
            "Active requests",
            None,
            "internal/libuv/requests",
            short(*requests),
        );
        put(
            "Active handles",
            None,
            "internal/libuv/handles",
            short(*handles),
        );
    }
    if let Some([median, p95]) = numbers("loop").as_deref() {
        let (name, kind) = ("Event Loop Latency", "internal/libuv/latency/p50");
        put(name, Some("ms"), kind, fixed(*median));
        let (name, kind) = ("Event Loop Latency p95", "internal/libuv/latency/p95");
        put(name, Some("ms"), kind, fixed(*p95));
    }
    if let Some([per_minute, median, p95]) = numbers("http").as_deref() {
        let (name, kind) = ("HTTP Mean Latency", "internal/http/builtin/latency/p50");
        put(name, Some("ms"), kind, short(*median));
        let (name, kind) = ("HTTP P95 Latency", "internal/http/builtin/latency/p95");
        put(name, Some("ms"), kind, short(*p95));
        put(
            "HTTP",
            Some("req/min"),
            "internal/http/builtin/reqs",
            short(*per_minute),
        );
    }
    all
}

/// A number with at most two decimals; a whole one has none.
fn short(value: f64) -> Value {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded.fract() == 0.0 && rounded.abs() < MAX_WHOLE {
        return json!(rounded as i64);
    }
    json!(rounded)
}

/// Whole numbers up to here are exact (2^53).
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;
    use crate::wire::node_ipc::{self, Line};
    use proptest::prelude::*;

    fn said(line: &str) -> FromWorker {
        match node_ipc::read(line.as_bytes()) {
            Line::Internal { message, .. } => message,
            other @ (Line::Ready | Line::User) => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_word_of_the_agent_is_understood() {
        for (line, wanted) in [
            (
                r#"{"cmd":"NODE_MUSHER","act":"up","node":"20.20.2","agent":1}"#,
                FromWorker::AgentUp {
                    node_version: "20.20.2".into(),
                },
            ),
            (
                r#"{"cmd":"NODE_MUSHER","act":"drained","moved":3,"finished":2,"closed":1,"left":0}"#,
                FromWorker::Drained(Drained {
                    n_moved: 3,
                    n_finished: 2,
                    n_closed: 1,
                    n_left: 0,
                }),
            ),
            (
                r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"cmd":"NODE_MUSHER","act":"handover","key":"null:3000:4"}}"#,
                FromWorker::HandOver(Place("null:3000:4".into())),
            ),
            (
                r#"{"cmd":"NODE_MUSHER","act":"gc","id":7,"heap":[5,4],"rss":[9,8]}"#,
                FromWorker::Collected(Collected {
                    id: 7,
                    heap: (5, 4),
                    rss: (9, 8),
                }),
            ),
        ] {
            assert_eq!(said(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_word_that_is_none_changes_nothing() {
        let long = "9".repeat(MAX_VERSION + 1);
        for line in [
            r#"{"cmd":"NODE_MUSHER"}"#,
            r#"{"cmd":"NODE_MUSHER","act":"up"}"#,
            r#"{"cmd":"NODE_MUSHER","act":"up","node":"\u001b[31m"}"#,
            &format!(r#"{{"cmd":"NODE_MUSHER","act":"up","node":"{long}"}}"#),
            r#"{"cmd":"NODE_MUSHER","act":"stats"}"#,
            r#"{"cmd":"NODE_MUSHER","act":"gc","id":-1,"heap":[1,1],"rss":[1,1]}"#,
            r#"{"cmd":"NODE_MUSHER","act":"gc","id":1,"heap":[],"rss":[1,1]}"#,
            // Without a descriptor there is nothing to hand over.
            r#"{"cmd":"NODE_MUSHER","act":"handover","key":"null:3000:4"}"#,
            r#"{"cmd":"NODE_MUSHER","act":"drain"}"#,
        ] {
            assert_eq!(said(line), FromWorker::Other, "{line}");
        }
        // A descriptor always gets its answer, whatever came with it.
        for inner in [
            r#"{"cmd":"NODE_MUSHER","act":"up","node":"1"}"#,
            r#"{"a":1}"#,
            "1",
        ] {
            let line = format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{inner}}}"#);
            assert_eq!(said(&line), FromWorker::Handle, "{line}");
        }
    }

    #[test]
    fn figures_become_the_metrics_that_pm2_has() {
        let line = r#"{"cmd":"NODE_MUSHER","act":"stats","figures":{"heap":[5588910,7319060],"active":[3,0],"loop":[0.24,0.5],"gc":[0.1],"http":[60,6,6.25],"odd":[1],"lag":"x"}}"#;
        let FromWorker::Metrics(metrics) = said(line) else {
            panic!("no metrics");
        };
        let text = serde_json::to_string(&metrics).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"Heap Size":{"historic":true,"unit":"MiB","type":"internal/v8/heap/total","value":"6.98"},"#,
                r#""Heap Usage":{"historic":true,"unit":"%","type":"internal/v8/heap/usage","value":76.36},"#,
                r#""Used Heap Size":{"historic":true,"unit":"MiB","type":"internal/v8/heap/used","value":"5.33"},"#,
                r#""GC Time":{"historic":true,"unit":"%","type":"internal/v8/gc/time","value":"0.10"},"#,
                r#""Active requests":{"historic":true,"type":"internal/libuv/requests","value":0},"#,
                r#""Active handles":{"historic":true,"type":"internal/libuv/handles","value":3},"#,
                r#""Event Loop Latency":{"historic":true,"unit":"ms","type":"internal/libuv/latency/p50","value":"0.24"},"#,
                r#""Event Loop Latency p95":{"historic":true,"unit":"ms","type":"internal/libuv/latency/p95","value":"0.50"},"#,
                r#""HTTP Mean Latency":{"historic":true,"unit":"ms","type":"internal/http/builtin/latency/p50","value":6},"#,
                r#""HTTP P95 Latency":{"historic":true,"unit":"ms","type":"internal/http/builtin/latency/p95","value":6.25},"#,
                r#""HTTP":{"historic":true,"unit":"req/min","type":"internal/http/builtin/reqs","value":60}}"#,
            )
        );
    }

    #[test]
    fn words_to_the_agent_are_one_line_of_json() {
        let drain = ToWorker::Drain {
            limit: Millis(30_000),
            websockets: Upgraded::Close { over: Millis(500) },
            places: vec![Place("null:3000:4".into())],
        };
        assert_eq!(
            String::from_utf8(node_ipc::write(&drain, false)).unwrap(),
            "{\"cmd\":\"NODE_MUSHER\",\"act\":\"drain\",\"limit\":30000,\"places\":[\"null:3000:4\"],\
             \"websockets\":\"close\",\"over\":500}\n"
        );
        assert_eq!(
            node_ipc::write(&ToWorker::Collect { id: 4 }, false),
            b"{\"cmd\":\"NODE_MUSHER\",\"act\":\"gc\",\"id\":4}\n"
        );
    }

    proptest! {
        #[test]
        fn no_figures_upset_the_reader(
            values in prop::collection::vec(any::<f64>(), 0..5),
            kind in "heap|gc|active|loop|http",
        ) {
            let mut figures = Map::new();
            figures.insert(kind, json!(values));
            let word = json!({"cmd": CMD, "act": "stats", "figures": figures});
            let metrics = matches!(read(&word, false), Some(FromWorker::Metrics(_)));
            prop_assert!(metrics);
        }
    }
}
