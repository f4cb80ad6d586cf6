//! Starting real children, and every way in which it fails.

// The allowance for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::{AsFd, AsRawFd};

use common::{
    exec_outcome, exit_of, plan, read_all, read_line, start, start_with_channel, try_start,
};
use musher_core::app::RunAs;
use musher_core::app::listen::{ListenAddress, ListenSpec};
use musher_core::exit::{ExitStatus, Signal};
use musher_core::supervisor::SpawnPlan;
use musher_os::spawn::{ExecOutcome, SpawnError, Step, spawn_listening};
use musher_os::{fd, kill, reap, resolve_program};

/// Starts `plan`, expects it to fail before or in exec, and returns the text
/// people see. Afterwards there is nothing left to reap.
fn failure(plan: &SpawnPlan) -> SpawnError {
    let child = match try_start(plan, &[]) {
        Err(error) => return error,
        Ok(child) => child,
    };
    let outcome = exec_outcome(&child.spawned);
    let ExecOutcome::Failed { step, errno } = outcome else {
        panic!("{plan:?} executed")
    };
    exit_of(child.spawned.pid);
    assert_eq!(
        reap::try_wait(child.spawned.pid)
            .unwrap_err()
            .raw_os_error(),
        Some(libc::ECHILD)
    );
    SpawnError::of_child(step, errno, plan)
}

#[test]
fn a_child_runs_and_its_exit_code_is_told() {
    let child = start(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(read_all(child.stdout), "out\n");
    assert_eq!(read_all(child.stderr), "err\n");
    assert_eq!(exit_of(child.spawned.pid), ExitStatus::Code(7));
}

#[test]
fn a_death_by_signal_is_told_as_such() {
    let child = start(&["sleep", "1000"]);
    assert_eq!(reap::try_wait(child.spawned.pid).unwrap(), None);
    kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap();
    assert_eq!(exit_of(child.spawned.pid), ExitStatus::Signal(Signal::KILL));
    let late = kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap_err();
    assert_eq!(late.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn the_environment_is_the_plans_and_extras_win() {
    let mut plan = plan(&["env"]);
    plan.env.push(("A".to_owned(), "plan".to_owned()));
    plan.env.push(("B".to_owned(), "kept".to_owned()));
    let child = try_start(&plan, &[("A", "extra"), ("NODE_CHANNEL_FD", "3")]).unwrap();
    let mut lines: Vec<String> = read_all(child.stdout).lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("PATH="));
    lines.sort();
    assert_eq!(lines, ["A=extra", "B=kept", "NODE_CHANNEL_FD=3"]);
    exit_of(child.spawned.pid);
}

#[test]
fn a_child_has_its_own_session_default_signals_and_no_foreign_descriptor() {
    let _held = (fd::pipe().unwrap(), fd::pipe().unwrap());
    musher_os::signals::ignore_sigpipe();
    let script = "import os,re\n\
                  s=open('/proc/self/status').read()\n\
                  g=lambda n: int(re.search(n+r':\\s*(\\S+)',s).group(1),16)\n\
                  fds=[int(f) for f in os.listdir('/proc/self/fd')]\n\
                  held=sorted(f for f in fds if os.path.exists('/proc/self/fd/%d'%f))\n\
                  print(os.getsid(0)==os.getpid(), g('SigBlk'), held)\n";
    let child = start(&["python3", "-c", script]);
    assert_eq!(read_all(child.stdout), "True 0 [0, 1, 2]\n");
    assert_eq!(exit_of(child.spawned.pid), ExitStatus::Code(0));
    // Python ignores SIGPIPE itself, so a program that does not must tell.
    let child = start(&["grep", "SigIgn", "/proc/self/status"]);
    assert_eq!(read_all(child.stdout), "SigIgn:\t0000000000000000\n");
    exit_of(child.spawned.pid);
}

#[test]
fn the_channel_is_descriptor_3_whatever_its_number_was() {
    let (ours, theirs) = fd::socketpair(fd::Blocking::Waits).unwrap();
    assert_ne!(theirs.as_raw_fd(), 3);
    let script = "import os; os.write(3, os.read(3, 100).upper())";
    let child = start_with_channel(&plan(&["python3", "-c", script]), &[], Some(theirs)).unwrap();
    fd::send_with_fd(ours.as_fd(), b"hello", None).unwrap();
    let mut answer = [0_u8; 16];
    let mut fds = std::collections::VecDeque::new();
    let len = fd::receive_waiting(ours.as_fd(), &mut answer, &mut fds)
        .unwrap()
        .len;
    assert_eq!(&answer[..len], b"HELLO");
    assert_eq!(exit_of(child.spawned.pid), ExitStatus::Code(0));
}

#[test]
fn sockets_are_descriptors_from_3_on_and_the_child_knows_that_they_are_its_own() {
    let [first, second] = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    let script = "import os,socket\n\
                  held=[socket.socket(fileno=n) for n in (3,4)]\n\
                  ports=[s.getsockname()[1] for s in held]\n\
                  mine=os.environ['LISTEN_PID']==str(os.getpid())\n\
                  print(ports, mine, os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES'])\n\
                  os.write(5, b'ipc')\n\
                  print(sorted(int(f) for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/'+f)))\n";
    let mut plan = plan(&["python3", "-c", script]);
    plan.env.push(("LISTEN_PID".to_owned(), "1".to_owned()));
    for (name, listener) in [("web", &first), ("admin", &second)] {
        plan.listen.push(ListenSpec {
            name: name.to_owned(),
            at: ListenAddress::Tcp {
                address: None,
                port: port(listener),
            },
        });
    }
    let (ours, theirs) = fd::socketpair(fd::Blocking::Waits).unwrap();
    let (stdout, child_out) = fd::pipe().unwrap();
    let stdio = |channel| musher_os::spawn::Stdio {
        stdin: fd::dev_null().unwrap(),
        stdout: fd::dup(&child_out).unwrap(),
        stderr: fd::dup(&child_out).unwrap(),
        channel,
    };
    let too_few = spawn_listening(&plan, &[], None, &[first.as_fd()], stdio(None)).unwrap_err();
    assert_eq!((too_few.step, too_few.errno), (Step::Dup, libc::EINVAL));
    let sockets = [first.as_fd(), second.as_fd()];
    let child = spawn_listening(&plan, &[], None, &sockets, stdio(Some(theirs))).unwrap();
    drop(child_out);
    let ports = format!("[{}, {}]", port(&first), port(&second));
    assert_eq!(
        read_all(stdout),
        format!("{ports} True 2 web:admin\n[0, 1, 2, 3, 4, 5]\n")
    );
    let mut said = [0_u8; 8];
    let mut fds = std::collections::VecDeque::new();
    let len = fd::receive_waiting(ours.as_fd(), &mut said, &mut fds)
        .unwrap()
        .len;
    assert_eq!(&said[..len], b"ipc");
    assert_eq!(exit_of(child.pid), ExitStatus::Code(0));
}

#[test]
fn the_identity_is_the_kernels() {
    let child = start(&["sleep", "1000"]);
    assert_ne!(child.spawned.start_time, 0);
    assert_eq!(
        reap::start_time(child.spawned.pid),
        Some(child.spawned.start_time)
    );
    kill::signal(&child.spawned.pidfd, Signal::KILL).unwrap();
    exit_of(child.spawned.pid);
    assert_eq!(reap::start_time(child.spawned.pid), None);
    assert_eq!(reap::boot_id().len(), 36);
}

#[test]
fn a_missing_program_is_enoent_with_its_name() {
    let error = failure(&plan(&["no-such-program-anywhere"]));
    assert_eq!((error.step, error.errno), (Step::Resolve, libc::ENOENT));
    let text = "cannot find no-such-program-anywhere: no such file or directory (ENOENT)";
    assert_eq!(error.to_string(), text);
    let error = failure(&plan(&["/no/such/program"]));
    assert_eq!((error.step, error.errno), (Step::Exec, libc::ENOENT));
    let text = "cannot execute /no/such/program: no such file or directory (ENOENT)";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_file_without_the_x_bit_is_eacces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    let path = path.to_str().unwrap();
    let error = failure(&plan(&[path]));
    assert_eq!((error.step, error.errno), (Step::Exec, libc::EACCES));
    assert_eq!(
        error.to_string(),
        format!("cannot execute {path}: permission denied (EACCES)")
    );
}

#[test]
fn a_missing_working_directory_is_named() {
    let mut plan = plan(&["true"]);
    plan.cwd = "/no/such/directory".to_owned();
    let error = failure(&plan);
    assert_eq!((error.step, error.errno), (Step::Chdir, libc::ENOENT));
    let text = error.to_string();
    assert!(
        text.starts_with("cannot enter the working directory /no/such/directory: "),
        "{text}"
    );
}

#[test]
fn a_nul_byte_is_refused_before_the_fork() {
    let error = failure(&plan(&["true", "a\0b"]));
    assert_eq!((error.step, error.errno), (Step::Resolve, libc::EINVAL));
}

#[test]
fn a_script_without_a_first_line_runs_in_the_shell_as_with_execvp() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, "echo got $1\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let child = start(&[path.to_str().unwrap(), "this"]);
    assert_eq!(read_all(child.stdout), "got this\n");
    exit_of(child.spawned.pid);
}

#[test]
fn names_are_looked_up_in_the_given_path_relative_to_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("bin/isdir")).unwrap();
    let tool = dir.path().join("bin/tool");
    std::fs::write(&tool, "").unwrap();
    let find = |program, path| resolve_program(program, path, dir.path());
    assert_eq!(
        find("tool", Some("bin")).unwrap_err(),
        rustix::io::Errno::ACCESS
    );
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(find("tool", Some("/nowhere:bin")).unwrap(), tool);
    assert_eq!(
        find("./bin/tool", None).unwrap(),
        dir.path().join("./bin/tool")
    );
    assert_eq!(
        find("isdir", Some("bin")).unwrap_err(),
        rustix::io::Errno::ACCESS
    );
    assert_eq!(
        find("tool", Some("/nowhere")).unwrap_err(),
        rustix::io::Errno::NOENT
    );
    assert_eq!(find("", Some("bin")).unwrap_err(), rustix::io::Errno::NOENT);
}

#[test]
fn user_and_group_change_or_the_refusal_is_told() {
    let mut plan = plan(&["id"]);
    plan.run_as = Some(RunAs {
        uid: 65_534,
        gid: 65_534,
    });
    if musher_os::user::effective_uid() == 0 {
        let child = try_start(&plan, &[]).unwrap();
        let text = read_all(child.stdout);
        assert!(text.starts_with("uid=65534"), "{text}");
        assert!(
            text.contains("gid=65534") && !text.contains("(root)"),
            "{text}"
        );
        exit_of(child.spawned.pid);
    } else {
        let error = failure(&plan);
        assert_eq!((error.step, error.errno), (Step::Setgroups, libc::EPERM));
    }
}

/// Runs in its own process, because the limit is the process's: the test
/// starts itself again with only this test and a variable set.
#[test]
fn without_descriptors_the_pipe_step_fails_with_emfile() {
    const INSIDE: &str = "MUSHER_TEST_INSIDE_EMFILE";
    if std::env::var_os(INSIDE).is_none() {
        let exe = std::env::current_exe().unwrap();
        let name = "without_descriptors_the_pipe_step_fails_with_emfile";
        let status = std::process::Command::new(exe)
            .args(["--exact", name])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let null = || fd::dev_null().unwrap();
    let stdio = musher_os::spawn::Stdio {
        stdin: null(),
        stdout: null(),
        stderr: null(),
        channel: None,
    };
    let limit = rustix::process::Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut held = Vec::new();
    while let Ok(fd) = fd::dev_null() {
        held.push(fd);
    }
    let error = musher_os::spawn::spawn(&plan(&["true"]), &[], None, stdio).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Pipe, libc::EMFILE));
    assert_eq!(
        error.to_string(),
        "cannot make the exec pipe: too many open files (EMFILE)"
    );
}

/// In its own process too: it takes the standard descriptors away.
#[test]
fn sources_among_the_first_four_numbers_do_not_collide() {
    const INSIDE: &str = "MUSHER_TEST_INSIDE_COLLIDE";
    if std::env::var_os(INSIDE).is_none() {
        let exe = std::env::current_exe().unwrap();
        let name = "sources_among_the_first_four_numbers_do_not_collide";
        let output = std::process::Command::new(exe)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(output.status.success());
        return;
    }
    let (out_read, out_write) = fd::pipe().unwrap();
    let (err_read, err_write) = fd::pipe().unwrap();
    let (channel_read, channel_write) = fd::pipe().unwrap();
    // SAFETY: the numbers 0 to 3 are given to the owners made here; whatever
    // held them before is not used any more in this process.
    let owned = |from: &std::os::fd::OwnedFd, to: i32| unsafe {
        assert_eq!(libc::dup2(from.as_raw_fd(), to), to);
        <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(to)
    };
    // A rotation: each wanted descriptor sits where another one must go.
    let spare = fd::dup(&out_write).unwrap();
    let stdio = musher_os::spawn::Stdio {
        stdout: owned(&spare, 0),
        stderr: owned(&err_write, 1),
        channel: Some(owned(&channel_write, 2)),
        stdin: fd::dev_null().unwrap(),
    };
    let script = "echo one; echo two >&2; echo three >&3";
    let spawned = musher_os::spawn::spawn(&plan(&["sh", "-c", script]), &[], None, stdio).unwrap();
    assert_eq!(read_line(&out_read), "one");
    assert_eq!(read_line(&err_read), "two");
    assert_eq!(read_line(&channel_read), "three");
    assert_eq!(exit_of(spawned.pid), ExitStatus::Code(0));
}
