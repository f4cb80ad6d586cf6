//! One scan of `/proc`, from which any number of runs are told apart.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};

use super::{Lineage, MARK, Member, living};
use crate::proc_stat::{self, ProcStat};

/// Longest environment that is read: execve(2) takes less (a quarter of the
/// stack's limit, 2 MiB as a rule, and 6 MiB at most).
const MAX_ENVIRONMENT: u64 = 6 << 20;

/// All processes at about one moment.
#[derive(Debug, Default)]
pub struct Census {
    processes: HashMap<u32, ProcStat>,
    by_parent: HashMap<u32, Vec<u32>>,
    by_session: HashMap<u32, Vec<u32>>,
    /// Marks, as far as somebody asked.
    marks: RefCell<HashMap<u32, Option<String>>>,
}

impl Census {
    /// Reads the stat line of every process.
    ///
    /// # Errors
    /// Of reading the directory `/proc`: `EMFILE`, or it is not mounted.
    pub fn take() -> io::Result<Census> {
        let mut stats = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match proc_stat::read(pid) {
                Ok(stat) => stats.push(stat),
                // Whoever vanishes during the scan is not part of the picture;
                // for want of descriptors nobody would be.
                Err(error) if is_lack(&error) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(Census::of_stats(stats))
    }

    fn of_stats(stats: Vec<ProcStat>) -> Census {
        let mut census = Census::default();
        for stat in stats {
            census
                .by_parent
                .entry(stat.ppid)
                .or_default()
                .push(stat.pid);
            let session = census.by_session.entry(stat.session).or_default();
            session.push(stat.pid);
            census.processes.insert(stat.pid, stat);
        }
        census
    }

    /// Returns what lives of a run, deepest first and the main process last.
    /// `known` are processes that were seen to belong to it: their children do,
    /// whatever else they have lost.
    pub fn of(&self, lineage: &Lineage, known: &HashSet<Member>) -> Vec<Member> {
        let mut depth: HashMap<u32, u32> = HashMap::new();
        if self.can_be(lineage.root) {
            self.follow(lineage.root.pid, 0, &mut depth);
        }
        for member in known {
            if self.can_be(*member) {
                self.follow(member.pid, 1, &mut depth);
            }
        }
        if let Some(group) = &lineage.group {
            for pid in group.pids() {
                self.follow(pid, 1, &mut depth);
            }
        }
        if let Some(mark) = &lineage.mark {
            // None of a run is older than its main process.
            let young = self.processes.values().filter(|stat| {
                stat.start_time >= lineage.root.start_time && !depth.contains_key(&stat.pid)
            });
            let marked: Vec<u32> = young
                .map(|stat| stat.pid)
                .filter(|pid| self.has_mark(*pid, mark))
                .collect();
            for pid in marked {
                self.follow(pid, 1, &mut depth);
            }
        }
        self.deepest_first(depth, lineage)
    }

    fn deepest_first(&self, depth: HashMap<u32, u32>, lineage: &Lineage) -> Vec<Member> {
        let own = std::process::id();
        let (seen, unseen): (Vec<u32>, Vec<u32>) = depth
            .keys()
            .copied()
            .filter(|pid| *pid != own)
            .partition(|pid| self.processes.contains_key(pid));
        // Those of the group that began after the scan passed their number.
        let mut found = match &lineage.group {
            Some(_) => living(&unseen),
            None => HashMap::new(),
        };
        found.extend(seen.into_iter().filter_map(|pid| {
            let stat = self.processes[&pid];
            let start_time = stat.start_time;
            (!stat.is_dead()).then_some((pid, Member { pid, start_time }))
        }));
        let mut order: Vec<(u32, Member)> = found
            .into_iter()
            .map(|(pid, member)| (u32::MAX - depth[&pid], member))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, member)| member).collect()
    }

    /// Whether a pid is still that process's, or nobody's: then its session
    /// may live on, since the kernel gives no number away that names one.
    fn can_be(&self, member: Member) -> bool {
        let stat = self.processes.get(&member.pid);
        stat.is_none_or(|stat| stat.start_time == member.start_time)
    }

    /// Books a process and all that descends from it or has a session of its
    /// or of theirs.
    fn follow(&self, pid: u32, level: u32, depth: &mut HashMap<u32, u32>) {
        let mut todo = vec![(pid, level)];
        while let Some((pid, level)) = todo.pop() {
            if depth.contains_key(&pid) {
                continue;
            }
            depth.insert(pid, level);
            for related in [&self.by_parent, &self.by_session] {
                let next = related.get(&pid).into_iter().flatten();
                todo.extend(next.map(|pid| (*pid, level + 1)));
            }
        }
    }

    fn has_mark(&self, pid: u32, mark: &str) -> bool {
        let mut marks = self.marks.borrow_mut();
        let found = marks.entry(pid).or_insert_with(|| mark_of(pid));
        found.as_deref() == Some(mark)
    }
}

/// Returns the mark in the environment a process began with; `None` where that
/// may not be read (another user's).
fn mark_of(pid: u32) -> Option<String> {
    let mut environment = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(MAX_ENVIRONMENT)
        .read_to_end(&mut environment)
        .ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

fn is_lack(error: &io::Error) -> bool {
    let lacks = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|errno| lacks.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, ppid: u32, session: u32, state: u8) -> ProcStat {
        ProcStat {
            pid,
            state,
            ppid,
            session,
            utime: 0,
            stime: 0,
            n_threads: 1,
            start_time: 0,
            rss_pages: 0,
        }
    }

    fn select(root: u32, known: &[u32], processes: Vec<ProcStat>) -> Vec<u32> {
        let of = |pid: &u32| Member {
            pid: *pid,
            start_time: 0,
        };
        let known = known.iter().map(of).collect();
        let members = Census::of_stats(processes).of(&Lineage::of(root, 0), &known);
        members.into_iter().map(|member| member.pid).collect()
    }

    #[test]
    fn a_tree_is_descent_and_sessions_deepest_first_and_root_last() {
        let order = select(
            10,
            &[],
            vec![
                process(1, 0, 1, b'S'),
                process(10, 1, 10, b'S'),
                process(11, 10, 10, b'S'),
                process(12, 11, 12, b'S'), // its own session, still a descendant
                process(13, 1, 10, b'S'),  // forked twice: parent lost, session kept
                process(14, 1, 12, b'S'),  // the same in the descendant's session
                process(15, 11, 10, b'Z'), // dead
                process(20, 1, 20, b'S'),  // a stranger
            ],
        );
        assert_eq!(order.last(), Some(&10));
        let mut members = order.clone();
        members.sort_unstable();
        assert_eq!(members, [10, 11, 12, 13, 14]);
        let position = |pid| order.iter().position(|member| *member == pid);
        assert!(position(12) < position(11));
    }

    #[test]
    fn a_root_in_a_foreign_session_does_not_take_that_session_along() {
        let processes = vec![
            process(5, 1, 5, b'S'),
            process(10, 5, 5, b'S'),
            process(11, 10, 5, b'S'),
            process(12, 5, 5, b'S'),
        ];
        assert_eq!(select(10, &[], processes), [11, 10]);
    }

    #[test]
    fn a_dead_root_leaves_its_session() {
        let processes = vec![process(1, 0, 1, b'S'), process(11, 1, 10, b'S')];
        assert_eq!(select(10, &[], processes), [11]);
    }

    #[test]
    fn who_was_seen_is_remembered_and_so_are_its_children() {
        let processes = vec![
            process(1, 0, 1, b'S'),
            process(30, 1, 30, b'S'), // lost everything, but was seen
            process(31, 30, 30, b'S'),
            process(41, 1, 40, b'S'), // of the session of one that was seen
            process(50, 1, 50, b'S'), // a stranger
        ];
        let mut members = select(10, &[30, 40], processes);
        members.sort_unstable();
        assert_eq!(members, [30, 31, 41]);
    }
}
