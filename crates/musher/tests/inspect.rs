//! `wire::inspect` against the real `util.inspect` of the Node on this machine.

use musher_core::wire::inspect::inspect;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// Values per run; one Node process answers all of them.
const N_VALUES: usize = 600;

const PROGRAM: &str = "
const {inspect} = require('util');
const values = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const texts = values.map(value => inspect(value, {depth: null, colors: false}));
process.stdout.write(JSON.stringify(texts));
";

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{0,12}",
        2 => "[ -~]{0,40}",
        1 => "[a-z\n'\"`$\\{\\\\\t]{0,30}",
        1 => "[a-z \n]{60,160}",
        1 => "[é日本😀\u{80}\u{7}a]{0,20}",
        1 => Just("['\"`${".to_owned()),
    ]
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => "[a-z_]{1,10}",
        1 => "[0-9]{1,3}",
        1 => "[ -~]{0,8}",
        1 => Just("4294967295".to_owned()),
        1 => Just("4294967294".to_owned()),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1000i64..1000).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("json has no infinities", |number| number.is_finite())
            .prop_map(Value::from),
        (-100.0..100.0f64).prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    let small = (0u32..100000).prop_map(Value::from);
    let numbers = prop::collection::vec(small, 0..130).prop_map(Value::from);
    let words = prop::collection::vec(texts().prop_map(Value::from), 0..110).prop_map(Value::from);
    let leaf = prop_oneof![20 => leaf, 1 => numbers, 1 => words];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..9).prop_map(Value::from),
            prop::collection::vec((keys(), inner), 0..9)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn ask_node(values: &[Value]) -> Vec<String> {
    let mut node = Command::new("node")
        .args(["-e", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is on the PATH");
    let mut stdin = node.stdin.take().expect("stdin is piped");
    let input = serde_json::to_vec(values).expect("values serialize");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = node.wait_with_output().expect("node ends");
    writer
        .join()
        .expect("the writer does not panic")
        .expect("node reads its input");
    assert!(output.status.success(), "node failed: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("node answers json")
}

/// Node reads what was written: compares values after one trip through text,
/// so that both sides print the same doubles.
fn check(values: &[Value]) {
    for (value, expected) in values.iter().zip(ask_node(values)) {
        let ours = inspect(value);
        let n_same = ours
            .chars()
            .zip(expected.chars())
            .take_while(|(a, b)| a == b)
            .count();
        let around = |text: &str| -> String {
            text.chars()
                .skip(n_same.saturating_sub(200))
                .take(400)
                .collect()
        };
        assert!(
            ours == expected,
            "differs at character {n_same}:\n{}\n--- node:\n{}",
            around(&ours),
            around(&expected)
        );
    }
}

#[test]
fn random_values_look_as_node_prints_them() {
    // Fixed seed by default so that a failure can be repeated; MUSHER_SEED explores.
    let seed: u64 = std::env::var("MUSHER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(7);
    println!("MUSHER_SEED={seed}");
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = values();
    let values: Vec<Value> = (0..N_VALUES)
        .map(|_| {
            strategy
                .new_tree(&mut runner)
                .expect("the strategy gives values")
                .current()
        })
        .collect();
    check(&values);
}

#[test]
fn limits_and_odd_keys_look_as_node_prints_them() {
    let long = "x".repeat(10_007);
    let pair_at_the_cut = format!("{}😀tail", "x".repeat(9_999));
    check(&[
        json!(long),
        json!({ "k": long.clone() + "\nb" }),
        json!(pair_at_the_cut),
        json!((0..100).collect::<Vec<_>>()),
        json!((0..102).map(|i| format!("value {i}")).collect::<Vec<_>>()),
        json!(vec![json!({}); 9]),
        json!([[[[[]]]], [[[[1]]]]]),
        json!({ "a": { "b": { "c": { "d": {} } } }, "e": [[[[1, 2]]]] }),
        json!({ "$a": 1, "a$": 2, "": 3, "é": 4, "a-b": 5, "_1": 6, "1a": 7 }),
        json!(["日本", "語", "a", "b", "😀", "c", "d", "e"]),
        json!("a\u{1}\u{1f}\u{7f}\u{9f}\u{2028}\u{b}"),
        json!([-0.0, 1e21, 1e-7, 5e-324, 1.7976931348623157e308, 0.1, 100.0]),
    ]);
}
