//! `dump.pm2`: written aside, synced, renamed; the generation before is kept.

use crate::paths::Paths;
use anyhow::Context;
use musher_core::view::ProcessView;
use musher_core::wire::dump;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The dump holds environments of apps.
const DUMP_MODE: u32 = 0o600;

/// Saves a list.
///
/// # Errors
/// The file that could not be written; the older dump is then untouched.
pub(crate) fn write(paths: &Paths, views: &[ProcessView]) -> anyhow::Result<()> {
    write_text(&paths.dump, &paths.dump_backup, &dump::encode(views))
}

/// Replaces `path` by `text` and keeps what it held as `backup`. A reader sees
/// the one or the other, never a part.
///
/// # Errors
/// The file that could not be written; `path` is then untouched.
pub(crate) fn write_text(path: &Path, backup: &Path, text: &str) -> anyhow::Result<()> {
    let aside = path.with_extension("pm2.writing");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(DUMP_MODE)
        .open(&aside)
        .with_context(|| format!("could not create {}", aside.display()))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a dump is of no use to anybody.
        let _ = fs::remove_file(&aside);
        return Err(error).with_context(|| format!("could not write {}", aside.display()));
    }
    if path.exists() {
        fs::rename(path, backup)
            .with_context(|| format!("could not keep {} as backup", path.display()))?;
    }
    fs::rename(&aside, path).with_context(|| format!("could not replace {}", path.display()))?;
    if let Some(dir) = path.parent() {
        // The rename is durable once the directory is (fsync(2)).
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .context("could not sync the home")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_before_is_kept_and_nothing_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (path, backup) = (dir.path().join("dump.pm2"), dir.path().join("dump.pm2.bak"));
        write_text(&path, &backup, "[1]").unwrap();
        write_text(&path, &backup, "[2]").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[2]");
        assert_eq!(fs::read_to_string(&backup).unwrap(), "[1]");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_cannot_be_written_leaves_the_dump_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("dump.pm2");
        assert!(write_text(&path, &dir.path().join("b"), "[]").is_err());
    }
}
