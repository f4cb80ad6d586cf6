//! Files others read: written aside and renamed, so that nobody sees a half.

use crate::failpoint;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a file must survive a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Gone with the machine is good enough.
    Process,
    /// Synced before and after the rename (fsync(2)).
    Disk,
}

/// Replaces the content of a file, or creates it with mode 0600.
///
/// # Errors
/// Of the failed step; the file is then as it was, and nothing is left aside.
pub(crate) fn replace(path: &Path, text: &str, durability: Durability) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let aside = path.with_file_name(name);
    let written = write(&aside, text, durability).and_then(|()| {
        failpoint::hit("replace-before");
        fs::rename(&aside, path)
    });
    failpoint::hit("replace-after");
    if written.is_err() {
        // Half a file is of no use to anybody.
        let _ = fs::remove_file(&aside);
    }
    written?;
    match (durability, path.parent()) {
        (Durability::Disk, Some(directory)) => fs::File::open(directory)?.sync_all(),
        (Durability::Disk, None) | (Durability::Process, _) => Ok(()),
    }
}

fn write(path: &Path, text: &str, durability: Durability) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    match durability {
        Durability::Disk => file.sync_all(),
        Durability::Process => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump.pm2");
        for text in ["[1]", "[2]"] {
            replace(&path, text, Durability::Disk).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full");
        // A directory in its place: the rename fails.
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, "x", Durability::Process).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
