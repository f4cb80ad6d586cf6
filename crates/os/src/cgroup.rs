//! A control group per run, where the kernel lets us make one (cgroups(7)).
//!
//! A process cannot leave its group by forking, by a session of its own or by
//! clearing its environment, and the group is ended in one step that no fork
//! escapes (`cgroup.kill`, Linux 5.14). It needs a version 2 tree in which the
//! caller's own group may have children: root, a unit with `Delegate=yes`, the
//! services of a user's manager. Everywhere else there is no group, and runs
//! are known by descent, session and mark alone (see [`crate::kill`]). It sets
//! no limits and never enables a controller.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the removal of the last groups is tried, and the pause between.
const LAST_TRIES: u32 = 25;
const LAST_PAUSE: Duration = Duration::from_millis(2);

/// Where the groups of the runs of one home are made.
#[derive(Debug)]
pub struct RunGroups {
    base: PathBuf,
    /// Groups that were still in use when they were to be removed.
    left: Vec<RunGroup>,
}

/// The group of one run; it may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunGroup {
    path: PathBuf,
}

impl RunGroups {
    /// Returns the place for groups of the home of this hash (16 hex digits),
    /// `None` where no group can be made or killed.
    pub fn find(home_hash: &str) -> Option<RunGroups> {
        let base = own_group()?.join(base_name(home_hash));
        let groups = RunGroups {
            base,
            left: Vec::new(),
        };
        // Whether it works is known by doing it: permissions, read-only
        // mounts and kernels without cgroup.kill all end here.
        let probe = groups.make(0).ok()?;
        let can_kill = probe.path.join("cgroup.kill").exists();
        groups.remove_empty();
        can_kill.then_some(groups)
    }

    /// Removes what earlier daemons of this home left and nobody is in.
    fn remove_empty(&self) {
        let Ok(entries) = fs::read_dir(&self.base) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.remove_now(&RunGroup { path });
            }
        }
    }

    /// Makes the group of a run; one that is there is taken.
    ///
    /// # Errors
    /// Of mkdir(2): `EACCES`, `EROFS`, `EAGAIN` at the tree's limit.
    pub fn make(&self, run: u64) -> io::Result<RunGroup> {
        let group = self.group(run);
        fs::create_dir_all(&group.path)?;
        Ok(group)
    }

    /// Returns the group of a run of an earlier daemon of this home: the one
    /// its living main process `pid` is in, or the one that would be made here.
    pub fn of_run(&self, run: u64, pid: Option<u32>) -> Option<RunGroup> {
        let expected = self.group(run);
        let relative = expected.path.strip_prefix(self.base.parent()?).ok()?;
        let current = pid.and_then(|pid| group_of(&pid.to_string()));
        let found = current.filter(|path| path.ends_with(relative));
        let path = found.unwrap_or(expected.path);
        path.is_dir().then_some(RunGroup { path })
    }

    /// Removes a group of which nothing lives. One that is still in use is
    /// tried again with the next.
    pub fn remove(&mut self, group: RunGroup) {
        let mut left = std::mem::take(&mut self.left);
        left.push(group);
        left.retain(|group| !self.remove_now(group));
        self.left = left;
    }

    fn group(&self, run: u64) -> RunGroup {
        RunGroup {
            path: self.base.join(format!("run-{run}")),
        }
    }

    fn remove_now(&self, group: &RunGroup) -> bool {
        let is_removed = match fs::remove_dir(&group.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_removed {
            // It is in use while other runs are: then it stays.
            fs::remove_dir(&self.base).ok();
        }
        is_removed
    }
}

impl Drop for RunGroups {
    /// Removes what is left. A process that has ended is in its group for a
    /// moment longer, which is waited for.
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut self.left);
        for _ in 0..LAST_TRIES {
            left.retain(|group| !self.remove_now(group));
            if left.iter().all(|group| group.is_populated() == Some(true)) {
                return;
            }
            std::thread::sleep(LAST_PAUSE);
        }
    }
}

impl RunGroup {
    /// Opens what a child writes `0` to, to move itself in.
    ///
    /// # Errors
    /// `EACCES`, or `ENOENT` if the group is gone.
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_CLOEXEC);
        Ok(options.open(self.path.join("cgroup.procs"))?.into())
    }

    /// Returns the pids in the group and not in a group below it.
    pub fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse().ok());
        // 0 is a process of another pid namespace: nothing can be sent to it.
        pids.filter(|pid| *pid != 0).collect()
    }

    /// Returns whether any process lives in the group or below it; `None` if
    /// that cannot be read, `Some(false)` for a group that is gone.
    pub fn is_populated(&self) -> Option<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => value_of(&text, "populated").map(|value| value != 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
            Err(_) => None,
        }
    }

    /// Kills everything in the group and below it with SIGKILL.
    ///
    /// # Errors
    /// `ENOENT` if the group is gone.
    pub fn kill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))?;
        file.write_all(b"1")
    }

    /// Returns how many processes of the group the kernel killed for want of
    /// memory; `None` without the memory controller, which musher does not
    /// enable itself.
    pub fn oom_kills(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join("memory.events")).ok()?;
        value_of(&text, "oom_kill")
    }
}

/// Moves the calling process out of the group of a run it was started in: a
/// manager that an app has started does not end with that app.
pub fn leave_run_group() {
    let Some(group) = own_group() else { return };
    let outside = group
        .ancestors()
        .filter(|path| is_base(path))
        .last()
        .and_then(Path::parent);
    if let Some(outside) = outside {
        let pid = std::process::id().to_string();
        // Best effort: without the right to leave it stays.
        fs::write(outside.join("cgroup.procs"), pid).ok();
    }
}

/// Returns the group of a run that a process is in, as it is called in the
/// tree; `None` if it is in none.
pub fn run_group_name(pid: u32) -> Option<String> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = path_in(&membership)?;
    let is_one = Path::new(path).ancestors().any(is_base);
    is_one.then(|| path.to_owned())
}

fn base_name(home_hash: &str) -> String {
    format!("musher.{home_hash}")
}

fn is_base(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str()?.strip_prefix("musher."))
        .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn own_group() -> Option<PathBuf> {
    group_of("self")
}

/// Returns the directory of a process's version 2 group.
fn group_of(process: &str) -> Option<PathBuf> {
    let membership = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    directory(&mounts, path_in(&membership)?)
}

/// Returns the path after `0::` (cgroups(7)).
fn path_in(membership: &str) -> Option<&str> {
    membership.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Returns where a group's path is mounted (proc_pid_mountinfo(5)): field 4 is
/// the part of the tree that is mounted, field 5 where, and the type follows
/// a lone `-`.
fn directory(mounts: &str, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(mount).join(below))
    })
}

fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
25 24 0:23 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu\n\
26 24 0:24 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_group_is_found_where_its_tree_is_mounted() {
        let at = |mounts: &str, path| directory(mounts, path);
        let hybrid = at(MOUNTS, "/user.slice/a.service");
        let expected = "/sys/fs/cgroup/unified/user.slice/a.service";
        assert_eq!(hybrid, Some(expected.into()));
        let bound = "9 1 0:2 /docker/7f /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let inside = at(bound, "/docker/7f/web");
        assert_eq!(inside, Some("/sys/fs/cgroup/web".into()));
        assert_eq!(at(bound, "/elsewhere"), None);
        assert_eq!(at("9 1 0:2 / / rw - ext4 /dev/a rw\n", "/"), None);
    }

    #[test]
    fn only_the_directory_of_a_homes_runs_is_one() {
        for (path, is_one) in [
            ("/a/musher.0123456789abcdef", true),
            ("/a/musher.0123456789abcdef/run-1", false),
            ("/a/musher.service", false),
            ("/", false),
        ] {
            assert_eq!(is_base(Path::new(path)), is_one, "{path}");
        }
    }

    #[test]
    fn values_are_read_by_their_whole_name() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 0\npopulated 1\n";
        assert_eq!(value_of(text, "oom_kill"), Some(2));
        assert_eq!(value_of(text, "populated"), Some(1));
        assert_eq!(value_of(text, "frozen"), None);
    }
}
