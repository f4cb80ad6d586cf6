//! `dump.pm2`: the saved list, in PM2's form, both ways.
//!
//! Written so that PM2 can resurrect what musher saved and musher what PM2
//! saved. Modules are left out: they are started by other means. Reading is
//! tolerant: a broken entry is reported and costs only itself. Files are the
//! caller's.

use super::pm2_env;
use crate::view::ProcessView;
use serde_json::{Map, Value};

/// What a resurrected process gets anew or must not get.
const LEFT_OUT: [&str; 3] = ["instances", "pm_id", "prev_restart_delay"];

/// What could be read of a dump.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// Descriptions for `prepare`, in the order of the file. None has
    /// `instances`: each is exactly one process.
    pub entries: Vec<Map<String, Value>>,
    /// What was wrong with the others, one sentence each, counted from 1.
    pub problems: Vec<String>,
}

/// Returns the text of the dump, indented by two spaces as `pm2 save` does,
/// without a trailing newline.
pub fn encode(views: &[ProcessView]) -> String {
    let entries: Vec<Value> = views
        .iter()
        .filter(|view| !view.spec.is_module)
        .map(|view| {
            let mut entry = pm2_env::pm2_env(view);
            for key in LEFT_OUT {
                entry.shift_remove(key);
            }
            Value::Object(entry)
        })
        .collect();
    serde_json::to_string_pretty(&entries).expect("json values always serialize into memory")
}

/// Returns the entries of a dump's value; the caller has parsed the text.
pub fn decode(value: Value) -> Dump {
    let mut dump = Dump::default();
    let Value::Array(values) = value else {
        dump.problems
            .push("the dump is not a list of processes".to_owned());
        return dump;
    };
    for (i, value) in values.into_iter().enumerate() {
        match entry(value) {
            Ok(entry) => dump.entries.push(entry),
            Err(problem) => dump.problems.push(format!("entry {} {problem}", i + 1)),
        }
    }
    dump
}

fn entry(value: Value) -> Result<Map<String, Value>, &'static str> {
    let Value::Object(mut entry) = value else {
        return Err("is not an object");
    };
    let has_text = |key: &str| {
        let text = entry.get(key).and_then(Value::as_str);
        text.is_some_and(|text| !text.is_empty())
    };
    if !has_text("name") {
        return Err("has no name");
    }
    if !has_text("pm_exec_path") {
        return Err("has no pm_exec_path");
    }
    if entry.get("env").is_some_and(|env| !env.is_object()) {
        return Err("has an env that is not an object");
    }
    for key in LEFT_OUT {
        entry.shift_remove(key);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pm2_env::tests::{spec, view};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_dump_reads_back_without_ids_instances_and_modules() {
        let mut module = spec();
        module.is_module = true;
        let module = ProcessView {
            spec: Arc::new(module),
            ..view()
        };
        let text = encode(&[view(), module]);
        assert!(text.starts_with("[\n  {\n    \"name\": \"api\","), "{text}");
        let dump = decode(serde_json::from_str(&text).unwrap());
        assert_eq!(dump.problems, Vec::<String>::new());
        assert_eq!(dump.entries.len(), 1);
        let entry = &dump.entries[0];
        for key in LEFT_OUT {
            assert!(!entry.contains_key(key), "{key}");
        }
        assert_eq!(entry["env"]["PORT"], 3000);
        assert_eq!(entry["restart_time"], 2);
    }

    #[test]
    fn bad_entries_are_told_and_good_ones_used() {
        let good = json!({"name": "a", "pm_exec_path": "/a", "instances": 4});
        let dump = decode(json!([
            1, {"name": "b"}, good, {"pm_exec_path": "/c"},
            {"name": "d", "pm_exec_path": "/d", "env": []},
        ]));
        assert_eq!(dump.entries.len(), 1);
        assert_eq!(
            dump.problems,
            [
                "entry 1 is not an object",
                "entry 2 has no pm_exec_path",
                "entry 4 has no name",
                "entry 5 has an env that is not an object",
            ]
        );
        assert_eq!(decode(json!({})).problems.len(), 1);
    }
}
