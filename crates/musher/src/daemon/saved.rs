//! The saved list in place of a lost database.
//!
//! A daemon whose database was damaged knows nothing, or not everything; what the
//! user saved last is the newest that anybody knows. Each entry is a `prepare`, as a client's
//! `resurrect` calls it. What is listed is never touched.

use super::hub::Hub;
use super::{journal, settings};
use crate::dump::{self, DumpError};
use musher_core::app::description;
use musher_core::id::RequestId;
use musher_core::supervisor::Event;
use musher_core::wire::rpc::{Call, parse_call};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

impl Hub {
    /// Starts what was saved and is not listed, if the database was set aside or
    /// not all of its `n_records` could be used; or says why there is nothing.
    pub(super) fn start_lost(&mut self, set_aside: Option<&Path>, n_records: usize) {
        let views = self.supervisor.views(musher_os::clock::now());
        if set_aside.is_none() && views.len() >= n_records {
            return;
        }
        let known: BTreeSet<String> = views.iter().map(|view| view.spec.name.clone()).collect();
        let files = [self.paths.dump.clone(), self.paths.dump_backup.clone()];
        let Some((path, entries)) = files.into_iter().find_map(usable) else {
            journal::line("no list was saved: nothing to start in its place");
            return;
        };
        journal::line(&format!(
            "starting what was saved in {} and is not listed",
            path.display()
        ));
        let is_lost = |entry: &Map<String, Value>| {
            let name = entry.get("name").and_then(Value::as_str);
            name.is_none_or(|name| !known.contains(name))
        };
        // Ids of clients count from below; nobody waits for these answers.
        let ids = (0..u64::MAX).rev().map(RequestId);
        for (entry, id) in entries.into_iter().filter(is_lost).zip(ids) {
            self.start_entry(entry, id);
        }
    }

    fn start_entry(&mut self, entry: Map<String, Value>, id: RequestId) {
        let describe = |attributes: &Map<String, Value>| {
            description::spec(attributes, &settings::defaults()).map_err(|errors| {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                texts.join("; ")
            })
        };
        let name = entry
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or("?")
            .to_owned();
        let body = json!({ "type": "call", "method": "prepare", "args": [entry] });
        match parse_call(&body, &describe) {
            Ok(Call::Request(request, _)) => self.handle(Event::Request(id, request)),
            Ok(_) => unreachable!("`prepare` is a request"),
            Err(error) => journal::error(&format!("{name} of the saved list: {error}")),
        }
    }
}

fn usable(path: PathBuf) -> Option<(PathBuf, Vec<Map<String, Value>>)> {
    match dump::read(&path) {
        Ok(entries) => Some((path, entries)),
        Err(DumpError::Missing) => None,
        Err(DumpError::Damaged(why)) => {
            let path = path.display();
            journal::error(&format!("{path} is damaged and left as it is: {why}"));
            None
        }
    }
}
