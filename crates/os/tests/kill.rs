//! Trees of real processes.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::OwnedFd;

use common::{Child, exec_outcome, exit_of, plan, read_line, start, try_start, until};
use musher_core::exit::Signal;
use musher_os::cgroup::RunGroups;
use musher_os::kill::{Lineage, MARK, Member, Tree, signal_group};
use musher_os::spawn::spawn;
use musher_os::{fd, reap, stats};

/// Prints the pids of a child, a grandchild that outlives its parent in the
/// same session, and a child in its own session; then all sleep.
const FAMILY: &str = "import os,sys,time\n\
    r,w=os.pipe()\n\
    def sleeper(name):\n\
    \x20 os.write(w,('%s %d\\n'%(name,os.getpid())).encode()); time.sleep(1000)\n\
    if os.fork()==0: sleeper('child')\n\
    if os.fork()==0:\n\
    \x20 if os.fork()==0: sleeper('orphan')\n\
    \x20 os._exit(0)\n\
    os.wait()\n\
    if os.fork()==0:\n\
    \x20 os.setsid()\n\
    \x20 if os.fork()==0: sleeper('far')\n\
    \x20 sleeper('own')\n\
    got=b''\n\
    while got.count(b'\\n')<4: got+=os.read(r,100)\n\
    print(' '.join(got.decode().split()[1::2]), flush=True)\n\
    time.sleep(1000)\n";

fn family() -> (Child, Vec<u32>) {
    let child = start(&["python3", "-c", FAMILY]);
    let pids = read_line(&child.stdout)
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    (child, pids)
}

fn tree(child: &Child) -> Tree {
    Tree::snapshot(child.spawned.pid, child.spawned.start_time).unwrap()
}

#[test]
fn a_tree_has_orphans_and_foreign_sessions_and_dies_as_one() {
    let (child, mut expected) = family();
    let root = child.spawned.pid;
    let seen = tree(&child);
    assert_eq!(seen.members.last().unwrap().pid, root);
    let mut pids: Vec<u32> = seen.members.iter().map(|member| member.pid).collect();
    pids.sort_unstable();
    expected.push(root);
    expected.sort_unstable();
    assert_eq!(pids, expected);
    assert_eq!(seen.signal_all(Signal::KILL), 5);
    exit_of(root);
    until("empty tree", || tree(&child).is_empty().then_some(()));
}

#[test]
fn a_dead_root_still_names_its_session() {
    let (child, pids) = family();
    musher_os::kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap();
    exit_of(child.spawned.pid);
    let left = tree(&child);
    let left_pids: Vec<u32> = left.members.iter().map(|member| member.pid).collect();
    // The child in its own session has lost its parent: without mark or
    // group it is out of reach.
    assert!(
        left_pids.contains(&pids[0]) && left_pids.len() == 2,
        "{left_pids:?} of {pids:?}"
    );
    left.signal_all(Signal::KILL);
    until("empty tree", || tree(&child).is_empty().then_some(()));
    for pid in pids {
        // The two out of reach are this test's to end.
        let Ok(pidfd) = reap::pidfd_open(pid) else {
            continue;
        };
        musher_os::kill::signal(pidfd, Signal::KILL).ok();
    }
}

/// Returns what is known of a run with this mark.
fn marked(child: &Child, mark: &str) -> Lineage {
    Lineage {
        mark: Some(mark.to_owned()),
        ..Lineage::of(child.spawned.pid, child.spawned.start_time)
    }
}

#[test]
fn a_mark_finds_what_left_both_its_parent_and_its_session() {
    let mark = format!("{:016x}:7", std::process::id());
    let child = try_start(&plan(&["python3", "-c", FAMILY]), &[(MARK, &mark)]).unwrap();
    exec_outcome(&child.spawned);
    let mut expected: Vec<u32> = read_line(&child.stdout)
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    expected.sort_unstable();
    // A longer number begins with the same digits and is another run.
    let other = try_start(&plan(&["sleep", "1000"]), &[(MARK, &format!("{mark}1"))]).unwrap();
    exec_outcome(&other.spawned);
    musher_os::kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap();
    exit_of(child.spawned.pid);
    let left = Tree::of(&marked(&child, &mark)).unwrap();
    let mut pids: Vec<u32> = left.members.iter().map(|member| member.pid).collect();
    pids.sort_unstable();
    assert_eq!(pids, expected);
    left.signal_all(Signal::KILL);
    until("empty tree", || {
        Tree::of(&marked(&child, &mark))
            .unwrap()
            .is_empty()
            .then_some(())
    });
    assert_eq!(tree(&other).signal_all(Signal::KILL), 1);
    exit_of(other.spawned.pid);
}

#[test]
fn a_process_group_dies_in_one_step_also_without_its_leader() {
    let child = start(&["sh", "-c", "sleep 1000 & sleep 1000 & echo; wait"]);
    read_line(&child.stdout);
    musher_os::kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap();
    exit_of(child.spawned.pid);
    assert_eq!(tree(&child).members.len(), 2);
    if let Err(error) = signal_group(&child.spawned.pidfd, Signal::KILL) {
        // Before Linux 6.9.
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        tree(&child).signal_all(Signal::KILL);
    }
    until("empty tree", || tree(&child).is_empty().then_some(()));
}

#[test]
fn a_stopped_process_that_is_signalled_goes_on_to_obey() {
    let child = start(&["sleep", "1000"]);
    let (pid, start_time) = (child.spawned.pid, child.spawned.start_time);
    let member = Member { pid, start_time };
    assert!(member.stop().unwrap());
    let state = || musher_os::proc_stat::read(pid).unwrap().state;
    until("stop", || (state() == b'T').then_some(()));
    assert!(member.signal(Signal::TERM).unwrap());
    assert_eq!(
        exit_of(pid),
        musher_core::exit::ExitStatus::Signal(Signal::TERM)
    );
    assert!(!member.signal(Signal::TERM).unwrap(), "it is gone");
}

#[test]
fn a_control_group_holds_and_ends_what_left_everything_else() {
    let hash = format!("{:016x}", std::process::id());
    let Some(mut groups) = RunGroups::find(&hash) else {
        eprintln!("no control group can be made here: nothing is tested");
        return;
    };
    let group = groups.make(3).unwrap();
    let (stdout, child_out) = fd::pipe().unwrap();
    let stdio = musher_os::spawn::Stdio {
        stdin: fd::dev_null().unwrap(),
        stdout: child_out,
        stderr: fd::dev_null().unwrap(),
        channel: None,
    };
    let script = "env -i setsid sh -c 'sleep 1000 & echo $!; exit' & wait";
    let spawned = spawn(&plan(&["sh", "-c", script]), &[], Some(&group), stdio).unwrap();
    let far: u32 = read_line(&stdout).parse().unwrap();
    exit_of(spawned.pid);
    assert_eq!(group.is_populated(), Some(true));
    assert_eq!(group.pids(), [far]);
    assert_eq!(groups.of_run(3, Some(far)), Some(group.clone()));
    assert_eq!(groups.of_run(4, None), None);
    let lineage = Lineage {
        group: Some(group.clone()),
        ..Lineage::of(spawned.pid, spawned.start_time)
    };
    let found = Tree::of(&lineage).unwrap();
    assert_eq!(found.members.first().map(|member| member.pid), Some(far));
    group.kill().unwrap();
    until("empty group", || {
        (group.is_populated() == Some(false)).then_some(())
    });
    until("removal", || {
        groups.remove(group.clone());
        groups.of_run(3, None).is_none().then_some(())
    });
}

#[test]
fn a_pid_of_another_process_has_no_tree() {
    let child = start(&["sleep", "1000"]);
    let other = Tree::snapshot(child.spawned.pid, child.spawned.start_time + 1).unwrap();
    assert!(other.is_empty());
    tree(&child).signal_all(Signal::KILL);
    exit_of(child.spawned.pid);
}

#[test]
fn a_scan_survives_processes_that_come_and_go() {
    let storm = start(&["sh", "-c", "while :; do true & /bin/true; done"]);
    for _ in 0..50 {
        assert!(!tree(&storm).is_empty());
    }
    until("end of the storm", || {
        tree(&storm).signal_all(Signal::KILL);
        tree(&storm).is_empty().then_some(())
    });
    exit_of(storm.spawned.pid);
}

#[test]
fn memory_and_cpu_are_those_of_the_process_and_end_with_it() {
    let script = "x=bytearray(50<<20)\nt=__import__('time')\nwhile t.process_time()<0.1: pass\n\
                  print('ready',flush=True); t.sleep(1000)";
    let child = start(&["python3", "-c", script]);
    read_line(&child.stdout);
    let sampler = stats::Sampler::open(child.spawned.pid).unwrap();
    let usage = sampler.sample().unwrap();
    assert!(
        usage.rss_bytes > 50 << 20 && usage.rss_bytes < 200 << 20,
        "{usage:?}"
    );
    assert!(
        usage.cpu.get() >= 90 && usage.cpu.get() < 10_000,
        "{usage:?}"
    );
    assert_eq!(usage.start_time, child.spawned.start_time);
    assert_eq!(
        stats::usage(child.spawned.pid).unwrap().start_time,
        usage.start_time
    );
    musher_os::kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap();
    exit_of(child.spawned.pid);
    assert_eq!(
        sampler.sample().unwrap_err().raw_os_error(),
        Some(libc::ESRCH)
    );
    let _: OwnedFd = child.stdout;
}
