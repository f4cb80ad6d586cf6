//! `musher daemon --check`: whether this executable could take over a home.
//!
//! Run by `musher update` before anything happens. Reads the state as the next
//! daemon would, without changing it, and says in one line of JSON what it is.

use super::store;
use crate::keeper::protocol;
use crate::paths::Paths;
use musher_core::wire::state::{FORMAT, SavedProcess};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// The field of the answer that holds the version.
pub(crate) const CHECKED: &str = "musher";

/// Prints version and formats; exit status 1, with a sentence on stderr, if the
/// state cannot be read.
pub(crate) fn check(paths: &Paths) -> ExitCode {
    match n_readable(paths) {
        Ok(n_records) => {
            let answer = json!({
                CHECKED: crate::version::own(),
                "schema": store::SCHEMA_VERSION,
                "format": FORMAT,
                "protocol": protocol::VERSION,
                "records": n_records,
            });
            match writeln!(std::io::stdout(), "{answer}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many records there are, or why one cannot be read.
fn n_readable(paths: &Paths) -> Result<usize, String> {
    let records = store::peek(&paths.state_db).map_err(|error| {
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    })?;
    for (pm_id, record) in &records {
        SavedProcess::decode(record)
            .map_err(|error| format!("the record of process {pm_id} cannot be used: {error}"))?;
    }
    Ok(records.len())
}
