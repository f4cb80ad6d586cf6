//! `dump.pm2`, the saved list, and the generation before it.

use crate::files::{Durability, replace};
use crate::paths::Paths;
use serde_json::Value;
use std::io;
use std::path::Path;

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
