//! Programs the previous daemon forked and did not live to write down.
//!
//! Their slot is started again, so each would be a second copy. Between fork and
//! the record there are some milliseconds, in which neither the store nor the
//! keeper knows of them; what they bear is their mark ([`super::marks`]),
//! and the command line of the daemon while they have not executed yet. Records
//! are written together with the highest run number, so what is not written has
//! a higher one. Never touches a run that is known, nor what a former run left.

use super::journal;
use super::marks::Marks;
use super::tree::Scope;
use crate::paths::Paths;
use musher_core::exit::Signal;
use musher_core::id::Incarnation;
use musher_os::kill::Tree;
use musher_os::proc_stat;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Looks at a process that is just being executed, and has no command line.
const MAX_LOOKS: u32 = 50;

/// Between two such looks.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// What is read of a command line: the daemon's is shorter.
const MAX_LINE: u64 = 8192;

/// What is read of an environment (MAX_ARG_STRLEN of execve(2) allows more).
const MAX_ENVIRON: u64 = 1 << 20;

/// Ends every run of this home that is newer than the last one stored.
pub(super) fn end_unbooked(paths: &Paths, marks: &Marks, last_run: Incarnation) {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return;
    };
    let pids = all
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter(|pid| *pid != std::process::id()) {
        match Looked::at(pid, paths) {
            // It has no children yet; a living daemon, if it should be one, has
            // apps that must not go with it.
            Looked::Daemon => end(pid, Scope::Main),
            Looked::Program => {
                let run = marks.run_in(&read(pid, "environ", MAX_ENVIRON));
                if run.is_some_and(|run| run > last_run) {
                    end(pid, Scope::Tree);
                }
            }
            Looked::Nothing => {}
        }
    }
}

/// Returns the runs that parked names speak of and the store does not know.
/// A run id may come back with another pid: the daemon died before it stored
/// that it was used.
pub(super) fn parked<'a>(
    names: impl Iterator<Item = &'a String>,
    known: &BTreeSet<(Incarnation, u32)>,
) -> BTreeSet<(Incarnation, u32)> {
    names
        .filter_map(|name| run_of(name))
        .filter(|run| !known.contains(run))
        .collect()
}

/// Returns run and pid of a parked name `run/<run>/<pid>/<what>`.
pub(super) fn run_of(name: &str) -> Option<(Incarnation, u32)> {
    let mut parts = name.strip_prefix("run/")?.split('/');
    let run = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    Some((Incarnation(run), pid))
}

/// What a process is.
enum Looked {
    /// A daemon of this home, which this one is: a child that did not execute.
    Daemon,
    /// Any other program: its environment is its own.
    Program,
    /// Gone, or a thread of the kernel.
    Nothing,
}

impl Looked {
    /// The command line comes first: who has another than the daemon's has
    /// executed, so that the environment read after it is the program's.
    fn at(pid: u32, paths: &Paths) -> Looked {
        for _ in 0..MAX_LOOKS {
            let line = read(pid, "cmdline", MAX_LINE);
            if !line.is_empty() {
                return match is_daemon(&line, paths.home.as_os_str()) {
                    true => Looked::Daemon,
                    false => Looked::Program,
                };
            }
            // Threads of the kernel execute nothing; neither do the dead.
            let has_program = std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
            if !has_program {
                return Looked::Nothing;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Looked::Program
    }
}

/// Returns whether a command line is the one keepers write for a daemon.
fn is_daemon(line: &[u8], home: &OsStr) -> bool {
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let wanted = [
        b"daemon".as_slice(),
        b"--home",
        home.as_bytes(),
        b"--keeper-fd",
    ];
    wanted.into_iter().all(|word| words.next() == Some(word))
}

fn read(pid: u32, file: &str, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Unreadable is another user's, and no run of ours.
    if let Ok(file) = File::open(format!("/proc/{pid}/{file}")) {
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    bytes
}

/// Kills it, unless it is a process of another container and so of another home.
fn end(pid: u32, scope: Scope) {
    let Ok(stat) = proc_stat::read(pid) else {
        return;
    };
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    if namespace(&pid.to_string()) != namespace("self") {
        return;
    }
    journal::line(&format!(
        "ending process {pid}: it was started but not yet booked"
    ));
    let Ok(mut tree) = Tree::snapshot(pid, stat.start_time) else {
        return;
    };
    if scope == Scope::Main {
        tree.members.retain(|member| member.pid == pid);
    }
    tree.signal_all(Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_of_a_daemon_of_this_home_is_one() {
        let home = OsStr::new("/h");
        for (line, expected) in [
            (
                &b"/bin/musher\0daemon\0--home\0/h\0--keeper-fd\x003\0"[..],
                true,
            ),
            (
                b"/bin/musher\0daemon\0--home\0/other\0--keeper-fd\x003\0",
                false,
            ),
            (b"/bin/musher\0daemon\0--check\0--home\0/h\0", false),
            (
                b"/bin/musher\0keeper\0--home\0/h\0--exe\0/bin/musher\0",
                false,
            ),
            (b"node\0daemon\0", false),
            (b"", false),
        ] {
            assert_eq!(is_daemon(line, home), expected, "{line:?}");
        }
    }

    #[test]
    fn a_run_whose_number_is_used_again_is_told_by_its_pid() {
        let names = [
            "run/4/100/ipc",
            "run/5/1234/ipc",
            "run/5/1234/out",
            "run/5/999/out",
            "run/6/7/err",
            "ctl/rpc",
            "listen/default/app/0/511/null:80:4:undefined",
        ]
        .map(str::to_owned);
        let known = BTreeSet::from([(Incarnation(4), 100), (Incarnation(5), 999)]);
        let expected = BTreeSet::from([(Incarnation(5), 1234), (Incarnation(6), 7)]);
        assert_eq!(parked(names.iter(), &known), expected);
    }
}
