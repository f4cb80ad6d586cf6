//! `dump.pm2`, the saved list, and the generation before it.

use crate::files::{Durability, replace};
use crate::paths::Paths;
use std::io;
use std::path::Path;

/// Saves a list and keeps the one before as backup. A reader sees the one or
/// the other, never a part.
///
/// # Errors
/// The file that could not be written; the saved list is then untouched.
pub(crate) fn write(paths: &Paths, text: &str) -> io::Result<()> {
    if let Ok(old) = std::fs::read_to_string(&paths.dump) {
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
