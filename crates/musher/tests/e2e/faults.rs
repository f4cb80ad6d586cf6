//! Starts that fail: what is said, what is tried again, and who is spared.

use crate::harness::{Musher, Ran, is_alive, wait_for};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_failed_exec_names_the_path_and_the_reason_and_is_not_tried_again() {
    let musher = Musher::new();
    let plain = musher.write("plain.bin", "\u{7f}nothing to execute");
    let lost = musher.write("lost.sh", "#!/no/such/interpreter\n");
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let alien = musher.write("alien.bin", "");
    // An ELF header of no machine: exec(2) knows the format and refuses it.
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0xff);
    std::fs::write(&alien, header).expect("a file");
    std::fs::set_permissions(&alien, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let gone = musher.cwd().join("gone");
    for (name, app, path, reason) in [
        (
            "eacces",
            json!({"script": plain, "interpreter": "none"}),
            &plain,
            "(EACCES)",
        ),
        (
            "enoent",
            json!({"script": lost, "interpreter": "none"}),
            &lost,
            "(ENOENT)",
        ),
        (
            "cwd",
            json!({"script": Musher::app("tick.js"), "cwd": gone}),
            &gone,
            "(ENOENT)",
        ),
    ] {
        let mut app = app;
        app["name"] = name.into();
        let config = musher.write("app.json", &json!({ "apps": [app] }).to_string());
        let begin = Instant::now();
        let ran = musher.run(&["start", config.to_str().expect("a path")]);
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert_eq!(ran.code, 1, "{name}: {}{}", ran.stdout, ran.stderr);
        let path = path.to_str().expect("a path");
        assert!(
            ran.stderr.contains(path) && ran.stderr.contains(reason),
            "{name}: {}",
            ran.stderr
        );
        if let Some(process) = musher.of(name).first() {
            assert_eq!(process["pm2_env"]["status"], "errored", "{name}");
            assert_eq!(process["pm2_env"]["restart_time"], 0, "{name}");
        }
    }
    // execvp(3) gives what exec does not know to the shell, which ends.
    let app =
        json!({"name": "alien", "script": alien, "interpreter": "none", "autorestart": false});
    musher.start(&format!("module.exports = {app};"));
    musher.wait_status("alien", 1, "stopped");
}

/// A strace of the daemon that makes its forks fail.
struct Injection(Child);

impl Injection {
    /// Lets the forks `when` fail with `errno`; `None` where none can be made.
    fn into(musher: &Musher, errno: &str, when: &str) -> Option<Injection> {
        let log = musher.cwd().join(format!("strace.{errno}"));
        let calls = "clone,clone3,fork,vfork";
        let child = Command::new("strace")
            .args(["-f", "-p", &musher.daemon_pid().to_string(), "-o"])
            .arg(&log)
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={errno}:when={when}")])
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut injection = Injection(child);
        let status = format!("/proc/{}/status", musher.daemon_pid());
        let tracer = format!("TracerPid:\t{}\n", injection.0.id());
        let is_attached = wait_for(Duration::from_secs(5), || {
            let ended = injection.0.try_wait().expect("a child").is_some();
            let status = std::fs::read_to_string(&status).ok()?;
            (ended || status.contains(&tracer)).then_some(!ended)
        });
        is_attached?.then_some(injection)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        crate::harness::kill(self.0.id().into(), "INT");
        let _ = self.0.wait();
    }
}

#[test]
fn a_fork_that_fails_is_told_and_tried_again_until_it_succeeds() {
    for errno in ["EAGAIN", "ENOMEM"] {
        let musher = Musher::new();
        musher.ok(&["start", &Musher::app("tick.js"), "--name", "other"]);
        let other = musher.pids("other");
        let n_fds = || {
            let fds = std::fs::read_dir(format!("/proc/{}/fd", musher.daemon_pid()));
            fds.expect("descriptors").count()
        };
        let Some(injection) = Injection::into(&musher, errno, "1..2") else {
            eprintln!("no strace can be attached here: nothing is tested");
            return;
        };
        let before = n_fds();
        let ran = musher.run(&["start", &Musher::app("tick.js"), "--name", "app"]);
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(&format!("({errno})")), "{}", ran.stderr);
        let app = &musher.of("app")[0];
        assert_eq!(app["pm2_env"]["status"], "waiting restart", "{app}");
        assert!(
            app["reason"]
                .as_str()
                .is_some_and(|text| text.contains(errno)),
            "{app}"
        );
        musher.wait("the same descriptors", || (n_fds() <= before).then_some(()));
        musher.wait_status("app", 1, "online");
        let n_tries = musher.of("app")[0]["pm2_env"]["restart_time"].as_i64();
        assert!(n_tries >= Some(2), "{n_tries:?}");
        assert_eq!(musher.pids("other"), other);
        drop(injection);
    }
}

/// Descriptors a daemon gets that is to have too few.
const LIMIT: usize = 64;

#[test]
fn without_descriptors_the_daemon_answers_and_goes_on_when_there_are_some() {
    let musher = Musher::new();
    let limited = |args: &[&str]| {
        let mut command = Command::new("prlimit");
        let inner = musher.command(args);
        command
            .arg("--nofile=64:64")
            .arg(inner.get_program())
            .args(inner.get_args());
        command
            .env_clear()
            .current_dir(musher.cwd())
            .stdin(Stdio::null());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Ran::from(command.output().expect("prlimit runs"))
    };
    let mut started = Vec::new();
    let refused = (0..30).find_map(|i| {
        let name = format!("app{i}");
        let ran = limited(&["start", "sleep", "--name", &name, "--", "1000"]);
        if ran.code == 0 {
            started.push(name);
            return None;
        }
        Some((name, ran))
    });
    let (name, ran) = refused.expect("64 descriptors are not enough for 30 apps");
    assert!(ran.stderr.contains("(EMFILE)"), "{}", ran.stderr);
    assert!(started.len() >= 2, "{started:?}");
    // Not one is left but the one kept for whoever asks why.
    let mut idle = Vec::new();
    let daemon = musher.daemon_pid();
    let n_fds = || {
        let fds = std::fs::read_dir(format!("/proc/{daemon}/fd"));
        fds.expect("descriptors").count()
    };
    while n_fds() < LIMIT {
        assert!(idle.len() < LIMIT, "{} descriptors", n_fds());
        let before = n_fds();
        idle.push(UnixStream::connect(musher.home().join("rpc.sock")).expect("a client"));
        // The failing start is tried again meanwhile and takes some for a moment.
        wait_for(Duration::from_millis(200), || {
            (n_fds() != before).then_some(())
        });
    }
    for _ in 0..10 {
        musher.ok(&["ls"]);
    }
    drop(idle);
    assert_eq!(musher.of(&name)[0]["pm2_env"]["status"], "waiting restart");
    for app in &started {
        let pid = musher.pids(app)[0];
        assert!(is_alive(pid), "{app}");
    }
    // What ends is seen to end, and its room is the next one's.
    let (first, second) = (started.remove(0), started.remove(0));
    musher.ok(&["delete", &first]);
    musher.ok(&["delete", &second]);
    musher.wait_status(&name, 1, "online");
    for app in &started {
        musher.ok(&["restart", app]);
    }
}
