//! What is wrong with a database: its damage told from a machine's trouble.
//!
//! A damaged file is never read around: what looks whole and is not would be a
//! list with processes missing. Nothing here repairs.

use super::SCHEMA_VERSION;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Every database begins with as many (sqlite.org/fileformat.html).
const HEADER_BYTES: u64 = 100;
/// Damaged files that are kept beside the first.
const MAX_ASIDE: u32 = 9;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite could not open, read or write it.
    #[error("state database {path} cannot be used (is the disk full, or the home not yours?)")]
    Database {
        /// Its path.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A newer musher wrote it.
    #[error(
        "state database {path} has format {found}, this musher knows {SCHEMA_VERSION}; \
         run the newer musher, or set the file aside"
    )]
    Newer {
        /// Its path.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// A part of it is missing.
    #[error("state database {path}: {state}")]
    Torn {
        /// Its path.
        path: PathBuf,
        /// SQLite's finding.
        state: String,
    },
    /// It was there, and not even its header is left.
    #[error("state database {path} holds {len} bytes, fewer than its header")]
    Cut {
        /// Its path.
        path: PathBuf,
        /// Its size.
        len: u64,
    },
}

impl StoreError {
    /// Returns whether the file itself is unusable. A machine without room,
    /// memory or permission says nothing about it.
    pub(super) fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        match self {
            StoreError::Newer { .. } => false,
            StoreError::Cut { .. } | StoreError::Torn { .. } => true,
            StoreError::Database { path, source } => match source.sqlite_error_code() {
                Some(
                    Code::DiskFull
                    | Code::OutOfMemory
                    | Code::PermissionDenied
                    | Code::ReadOnly
                    | Code::SystemIoFailure
                    | Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::FileLockingProtocolFailed,
                ) => false,
                Some(Code::CannotOpen) => path.is_dir(),
                // Tables that are missing, rows that are no text: whatever it is,
                // the next start would meet it again.
                Some(_) | None => true,
            },
        }
    }
}

/// Returns where a damaged file is kept; the last of the names is used again.
pub(super) fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| match n {
        0 => path.with_extension("db.damaged"),
        n => path.with_extension(format!("db.damaged.{n}")),
    };
    let free = (0..MAX_ASIDE).map(name).find(|aside| !aside.exists());
    free.unwrap_or_else(|| name(MAX_ASIDE))
}

/// Refuses a file that SQLite would take for a fresh one: nobody would hear of
/// the loss.
pub(super) fn has_header(path: &Path) -> Result<(), StoreError> {
    let len = std::fs::metadata(path).map_or(u64::MAX, |file| file.len());
    if len >= HEADER_BYTES {
        return Ok(());
    }
    let path = path.to_owned();
    Err(StoreError::Cut { path, len })
}

/// Refuses records of which a page is missing: it would only look like fewer of
/// them. Costs what reading them costs.
pub(super) fn has_every_record(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let path = path.to_owned();
    let check = "PRAGMA quick_check('process')";
    let found: rusqlite::Result<String> = connection.query_row(check, [], |row| row.get(0));
    match found {
        Ok(state) if state == "ok" => Ok(()),
        Ok(state) => Err(StoreError::Torn { path, state }),
        Err(source) => Err(StoreError::Database { path, source }),
    }
}
