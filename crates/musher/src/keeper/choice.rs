//! Which executable is started as daemon.
//!
//! Usually the one at the path the keeper was given. An update names another,
//! which has one try: when it is not ready in time, the one before serves again.
//! A file may also have been replaced or removed meanwhile, so the keeper keeps
//! the executable that was ready last open, and starts that when what is at the
//! path fails. Never judges a daemon that was ready once: its end is a crash.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::protocol::Name;

/// How long an executable that is tried may take until it is ready.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(10);

/// Longest path of an executable, in bytes (PATH_MAX of limits.h).
const MAX_PATH: usize = 4096;

/// The executables the keeper knows.
pub(super) struct Choice {
    path: PathBuf,
    /// What was started last.
    program: PathBuf,
    /// Of the path that comes next, as far as it was told.
    pieces: String,
    update: Update,
    /// The executable that was ready last.
    proven: Option<OwnedFd>,
    /// What is at the path did not become ready.
    is_doubtful: bool,
    /// Why the last update was undone.
    why: Option<Name>,
}

/// How far an update is.
enum Update {
    /// There is none.
    None,
    /// The daemon is about to end for this one.
    Leaving(PathBuf),
    /// This one runs and is not ready.
    Trying(PathBuf),
}

/// What follows a daemon's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// Another is started at once: an update, or its undoing.
    AtOnce,
    /// It is a crash.
    AfterPause,
}

impl Choice {
    /// Begins with the executable at this path.
    pub(super) fn new(path: PathBuf) -> Choice {
        Choice {
            program: path.clone(),
            path,
            pieces: String::new(),
            update: Update::None,
            proven: None,
            is_doubtful: false,
            why: None,
        }
    }

    /// Takes in a piece of the path that comes next.
    pub(super) fn add(&mut self, piece: Name) {
        if self.pieces.len() + piece.as_str().len() <= MAX_PATH {
            self.pieces.push_str(piece.as_str());
        }
    }

    /// The daemon will end for the executable that was named; false if none was.
    pub(super) fn hand_over(&mut self) -> bool {
        let next = std::mem::take(&mut self.pieces);
        if next.is_empty() {
            return false;
        }
        self.why = None;
        self.update = Update::Leaving(PathBuf::from(next));
        true
    }

    /// Returns what to start, and how long it may take to be ready if that
    /// matters.
    pub(super) fn next(&mut self) -> (PathBuf, Option<Duration>) {
        let (program, limit) = match std::mem::replace(&mut self.update, Update::None) {
            Update::Leaving(next) => {
                self.update = Update::Trying(next.clone());
                (next, Some(READY_LIMIT))
            }
            Update::None | Update::Trying(_) => match &self.proven {
                Some(proven) if self.is_doubtful => {
                    // Of this process, not `self`: the child has its own.
                    let (own, number) = (std::process::id(), proven.as_raw_fd());
                    (PathBuf::from(format!("/proc/{own}/fd/{number}")), None)
                }
                Some(_) | None => (self.path.clone(), None),
            },
        };
        self.program.clone_from(&program);
        (program, limit)
    }

    /// Returns what was started last.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The daemon that was started last is ready.
    pub(super) fn is_ready(&mut self, pid: u32) {
        if let Update::Trying(next) = std::mem::replace(&mut self.update, Update::None) {
            self.path = next;
            self.is_doubtful = false;
        }
        // It was told by now.
        self.why = None;
        // A link of the kernel: it leads to a file that was removed, too.
        let image = format!("/proc/{pid}/exe");
        let image = rustix::fs::open(image, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        self.proven = image.ok().or(self.proven.take());
    }

    /// The daemon that was started last is gone, or could not be started.
    pub(super) fn ended(&mut self, was_ready: bool, why: &str) -> Follow {
        // One that began to name another and died is not continued by the next.
        self.pieces.clear();
        match &self.update {
            Update::Leaving(_) => return Follow::AtOnce,
            Update::Trying(next) => {
                let text = format!("{}: {why}", next.display());
                self.why = Name::first_of(&text).map(|(text, _)| text);
                self.update = Update::None;
                self.is_doubtful = !self.is_proven_at_path();
                return Follow::AtOnce;
            }
            Update::None => {}
        }
        // What was ready once deserves the next try; what was not alternates
        // with what is known to work.
        self.is_doubtful = !was_ready && !self.is_doubtful;
        Follow::AfterPause
    }

    /// Returns why the last update was undone.
    pub(super) fn why(&self) -> Option<Name> {
        self.why
    }

    fn is_proven_at_path(&self) -> bool {
        let at_path = rustix::fs::stat(&self.path);
        let proven = self.proven.as_ref().map(rustix::fs::fstat);
        match (at_path, proven) {
            (Ok(at_path), Some(Ok(proven))) => {
                (at_path.st_dev, at_path.st_ino) == (proven.st_dev, proven.st_ino)
            }
            (Ok(_), None | Some(Err(_))) => true,
            (Err(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(choice: &mut Choice, path: &str) {
        choice.add(Name::try_from(path).unwrap());
        assert!(choice.hand_over());
    }

    fn started(choice: &mut Choice) -> String {
        choice.next().0.display().to_string()
    }

    fn own() -> PathBuf {
        std::env::current_exe().unwrap()
    }

    #[test]
    fn an_update_that_is_ready_stays_after_crashes() {
        let mut choice = Choice::new(own());
        started(&mut choice);
        choice.is_ready(std::process::id());
        named(&mut choice, "/next");
        assert_eq!(choice.ended(true, ""), Follow::AtOnce);
        assert_eq!(choice.next(), (PathBuf::from("/next"), Some(READY_LIMIT)));
        choice.is_ready(std::process::id());
        for _ in 0..2 {
            assert_eq!(choice.ended(true, ""), Follow::AfterPause);
            assert_eq!(choice.next(), (PathBuf::from("/next"), None));
            choice.is_ready(std::process::id());
        }
        assert_eq!(choice.why(), None);
    }

    #[test]
    fn an_update_that_fails_is_undone_with_its_reason() {
        let mut choice = Choice::new(own());
        started(&mut choice);
        choice.is_ready(std::process::id());
        named(&mut choice, "/next");
        choice.ended(true, "");
        assert_eq!(started(&mut choice), "/next");
        assert_eq!(choice.ended(false, "it ended"), Follow::AtOnce);
        assert_eq!(started(&mut choice), own().display().to_string());
        assert_eq!(choice.why().unwrap().as_str(), "/next: it ended");
        choice.is_ready(std::process::id());
        assert_eq!(choice.why(), None, "it was told");
    }

    #[test]
    fn what_is_gone_from_its_path_is_started_from_the_open_file() {
        let mut choice = Choice::new(PathBuf::from("/removed"));
        started(&mut choice);
        choice.is_ready(std::process::id());
        choice.ended(true, "");
        assert_eq!(started(&mut choice), "/removed");
        assert_eq!(choice.ended(false, "cannot execute"), Follow::AfterPause);
        let open = started(&mut choice);
        assert!(open.starts_with("/proc/"), "{open}");
        assert_eq!(std::fs::canonicalize(open).unwrap(), own());
        choice.ended(false, "");
        assert_eq!(started(&mut choice), "/removed", "it may be back");
        named(&mut choice, "/next");
        choice.ended(true, "");
        assert_eq!(started(&mut choice), "/next");
        choice.ended(false, "");
        assert!(started(&mut choice).starts_with("/proc/"), "rolled back");
    }

    #[test]
    fn no_path_and_an_endless_path_are_bounded() {
        let mut choice = Choice::new(own());
        assert!(!choice.hand_over());
        let piece = Name::try_from("x".repeat(200).as_str()).unwrap();
        for _ in 0..100 {
            choice.add(piece);
        }
        assert!(choice.pieces.len() <= MAX_PATH);
    }
}
