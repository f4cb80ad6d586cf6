//! How the processes of each run are told from all others: the mark in their
//! environment, and their control group where one can be made.

use super::settings;
use musher_core::id::Incarnation;
use musher_os::cgroup::{RunGroup, RunGroups};
use musher_os::kill::{Lineage, MARK, Member};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The marks of one home.
pub(crate) struct Marks {
    hash: String,
    groups: Option<RunGroups>,
}

impl Marks {
    /// Returns the marks of a home, and tries whether groups can be made.
    pub(crate) fn of_home(home: &Path) -> Marks {
        let hash = home_hash(home);
        let groups = settings::control_groups()
            .then(|| RunGroups::find(&hash))
            .flatten();
        Marks { hash, groups }
    }

    /// Returns the value of the variable every process of a run begins with.
    pub(crate) fn of(&self, run: Incarnation) -> String {
        format!("{}:{run}", self.hash)
    }

    /// Returns the run of this home that an environment names, as
    /// `/proc/<pid>/environ` has it.
    pub(crate) fn run_in(&self, environ: &[u8]) -> Option<Incarnation> {
        let mut variables = environ.split(|byte| *byte == 0);
        let value = variables.find_map(|entry| {
            let text = std::str::from_utf8(entry).ok()?;
            text.strip_prefix(MARK)?.strip_prefix('=')
        })?;
        let run = value.strip_prefix(self.hash.as_str())?.strip_prefix(':')?;
        run.parse().ok().map(Incarnation)
    }

    /// Returns the group of a run that is about to be spawned. Without one the
    /// run is known by the rest.
    pub(crate) fn make_group(&self, run: Incarnation) -> Option<RunGroup> {
        self.groups.as_ref()?.make(run.0).ok()
    }

    /// Removes the group of a run that is over.
    pub(crate) fn remove_group(&mut self, group: Option<RunGroup>) {
        if let (Some(groups), Some(group)) = (&mut self.groups, group) {
            groups.remove(group);
        }
    }

    /// Returns how the processes of a run of an earlier daemon are known;
    /// `alive` is its main process, if that lives.
    pub(crate) fn lineage(&self, run: Incarnation, root: Member, alive: Option<u32>) -> Lineage {
        let groups = self.groups.as_ref();
        Lineage {
            root,
            mark: Some(self.of(run)),
            group: groups.and_then(|groups| groups.of_run(run.0, alive)),
        }
    }
}

/// Returns 16 hex digits for a home: FNV-1a, 64 bits, of its path. The next
/// version of musher must find what this one marked, so it is none that may
/// change with a compiler.
fn home_hash(home: &Path) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = home.as_os_str().as_bytes();
    let hash = bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_home_and_run_and_no_other_home_reads_it() {
        let marks = |home: &str| Marks {
            hash: home_hash(Path::new(home)),
            groups: None,
        };
        let (one, two) = (marks("/a/.musher"), marks("/b"));
        let environ = format!("HOME=/a\0{MARK}={}\0X_{MARK}=0\0", one.of(Incarnation(17)));
        assert_eq!(one.run_in(environ.as_bytes()), Some(Incarnation(17)));
        assert_eq!(two.run_in(environ.as_bytes()), None);
        for other in [
            "",
            "MUSHER_RUN=",
            "MUSHER_RUN=:1",
            "MUSHER_RUNS=1:1",
            "\u{fffd}\0",
        ] {
            assert_eq!(one.run_in(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn the_hash_of_a_home_is_that_of_every_version() {
        // Published vectors of FNV-1a.
        for (text, hash) in [("", "cbf29ce484222325"), ("foobar", "85944171f73967e8")] {
            assert_eq!(home_hash(Path::new(text)), hash);
        }
    }
}
