//! `dump.pm2`, the saved list, and the generation before it.

use crate::files::{Durability, replace};
use crate::paths::Paths;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::io;
use std::path::Path;

/// Why a dump gave nothing.
#[derive(Debug)]
pub(crate) enum DumpError {
    /// It is not there.
    Missing,
    /// It is, and cannot be used.
    Damaged(String),
}

/// Returns the entries of a dump.
///
/// # Errors
/// [`DumpError`], with the reason for people.
pub(crate) fn read(path: &Path) -> Result<Vec<Map<String, Value>>, DumpError> {
    let damaged = |why: &dyn Display| DumpError::Damaged(why.to_string());
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DumpError::Missing),
        text => text.map_err(|error| damaged(&error))?,
    };
    let value: Value = json5::from_str(&text).map_err(|error| damaged(&error))?;
    let entries = value.as_array().ok_or_else(|| damaged(&"it is no list"))?;
    Ok(entries
        .iter()
        .filter_map(Value::as_object)
        .cloned()
        .collect())
}

/// Saves a list and keeps the one before as backup. A reader sees the one or
/// the other, never a part.
///
/// # Errors
/// The file that could not be written; the saved list is then untouched.
pub(crate) fn write(paths: &Paths, text: &str) -> io::Result<()> {
    let old = std::fs::read_to_string(&paths.dump);
    // A damaged dump must not take the place of a good backup.
    if let Some(old) = old.ok().filter(|old| json5::from_str::<Value>(old).is_ok()) {
        store(&paths.dump_backup, &old)?;
    }
    store(&paths.dump, text)
}

fn store(path: &Path, text: &str) -> io::Result<()> {
    replace(path, text, Durability::Disk).map_err(|error| {
        let text = format!("could not write {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}
