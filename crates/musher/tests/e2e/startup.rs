//! `startup`, `unstartup`, and the service they install.

use crate::harness::{Musher, Ran, is_alive, kill, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The user a test of root becomes to be nobody in particular.
const NOBODY: u32 = 65_534;

/// Returns a musher whose list holds a cluster and a fork app, and no daemon.
pub fn saved() -> Musher {
    let musher = Musher::new();
    musher.write(
        "app.js",
        "console.log(JSON.stringify({event: 'env', names: Object.keys(process.env)}));
         setInterval(() => {}, 1000);",
    );
    musher.start(
        "module.exports = [
           {name: 'web', script: './app.js', instances: 2, exec_mode: 'cluster'},
           {name: 'job', script: './app.js', exec_mode: 'fork'},
         ]",
    );
    musher.wait_status("web", 2, "online");
    musher.ok(&["save"]);
    musher.ok(&["kill"]);
    musher
}

fn boot(musher: &Musher, socket: &Path) -> Child {
    let home = musher.home();
    let mut command = musher.command(&["boot", "--home", home.to_str().expect("a path")]);
    command.env("NOTIFY_SOCKET", socket);
    command
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

fn next_word(musher: &Musher, socket: &UnixDatagram) -> String {
    let mut text = [0; 256];
    let limit = crate::harness::PATIENCE;
    socket.set_read_timeout(Some(limit)).expect("a timeout");
    match socket.recv(&mut text) {
        Ok(len) => String::from_utf8_lossy(&text[..len]).into_owned(),
        Err(error) => panic!("no word: {error}\n{}", musher.evidence()),
    }
}

fn code(child: &mut Child) -> Option<i32> {
    let patience = crate::harness::PATIENCE;
    wait_for(patience, || child.try_wait().expect("a child"))?.code()
}

#[test]
fn a_boot_starts_the_saved_list_says_ready_and_sigterm_ends_everything() {
    let musher = saved();
    let path = musher.cwd().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    // A machine boots more than once.
    for _ in 0..2 {
        let mut keeper = boot(&musher, &path);
        let word = next_word(&musher, &socket);
        assert!(word.starts_with("READY=1\n"), "{word}");
        assert_eq!(next_word(&musher, &socket), "BARRIER=1");
        musher.wait_status("web", 2, "online");
        musher.wait_status("job", 1, "online");
        let facts = musher.wait_facts("web", "env", 1);
        let names = facts.last().expect("a fact")["names"].to_string();
        assert!(names.contains("PATH"), "{names}");
        assert!(!names.contains("NOTIFY_SOCKET"), "{names}");
        let mut pids = musher.pids("web");
        pids.extend(musher.pids("job"));
        pids.push(i64::from(musher.daemon_pid()));
        assert_eq!(pids.len(), 4);
        kill(i64::from(keeper.id()), "TERM");
        assert_eq!(code(&mut keeper), Some(0), "{}", musher.evidence());
        for pid in pids {
            assert!(!is_alive(pid), "{pid}\n{}", musher.evidence());
        }
    }
}

#[test]
fn a_home_that_is_served_is_left_alone() {
    let musher = Musher::new();
    musher.write("app.js", "setInterval(() => {}, 1000);");
    musher.ok(&["start", "app.js"]);
    let pids = musher.pids("app");
    let mut second = boot(&musher, &musher.cwd().join("nobody"));
    assert_eq!(code(&mut second), Some(75));
    assert_eq!(musher.pids("app"), pids);
}

#[test]
fn a_boot_works_as_the_first_process_of_a_namespace() {
    let unshare = |rest: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--pid", "--fork"])
            .args(["--mount-proc", "--kill-child"])
            .args(rest);
        command
    };
    let probe = unshare(&["true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("no namespaces on this machine: nothing is tested");
        return;
    }
    let musher = saved();
    let path = musher.cwd().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let (home, program) = (musher.home(), musher.program());
    let words = [&program, Path::new("boot"), Path::new("--home"), &home];
    let words: Vec<&str> = words.iter().map(|p| p.to_str().expect("a path")).collect();
    let mut outer = unshare(&words)
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .spawn()
        .expect("unshare runs");
    let word = next_word(&musher, &socket);
    assert!(word.starts_with("READY=1\n"), "{word}");
    musher.wait_status("web", 2, "online");
    let id = outer.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.expect("children of unshare");
    let first: i64 = children.trim().parse().expect("one child");
    kill(first, "TERM");
    assert_eq!(code(&mut outer), Some(0), "{}", musher.evidence());
    assert!(musher.home().join("dump.pm2").exists());
}

#[test]
fn a_dry_run_prints_a_unit_that_systemd_accepts_and_changes_nothing() {
    let musher = Musher::new();
    let strange = musher.cwd().join("50% $HOME;");
    fs::create_dir(&strange).expect("a directory");
    let program = strange.join("musher");
    std::os::unix::fs::symlink(musher.program(), &program).expect("a link");
    let home = strange.join("o'b \"home\" \\n");
    let dry = |verb: &str| {
        let mut command = Command::new(&program);
        command
            .args([verb, "systemd", "--dry-run", "--wait-ip"])
            .args(["--service-name", "musher-e2e-dry-run"])
            .env("MUSHER_HOME", &home);
        let ran = Ran::from(command.output().expect("the binary runs"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    let unit = dry("startup");
    let target = Path::new("/etc/systemd/system/musher-e2e-dry-run.service");
    assert!(
        unit.contains(&format!("# {}\n", target.display())),
        "{unit}"
    );
    assert!(unit.contains("\nType=notify\n"), "{unit}");
    assert!(
        unit.contains("# systemctl enable musher-e2e-dry-run\n"),
        "{unit}"
    );
    let undone = dry("unstartup");
    assert!(
        undone.contains(&format!("\nrm {}\n", target.display())),
        "{undone}"
    );
    assert!(!target.exists() && !home.exists());
    assert_verified(&musher, &unit, &["verify"]);
}

#[test]
fn a_unit_of_a_user_is_one_that_systemd_accepts() {
    let musher = Musher::new();
    let home = musher.cwd().join("50% o'b \"home\" \\n $HOME;");
    let mut command = musher.command(&["startup", "systemd-user", "--dry-run"]);
    command.args(["--service-name", "musher-e2e-dry-run"]);
    let ran = Ran::from(command.env("MUSHER_HOME", &home).output().expect("a run"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("\nWantedBy=default.target\n"));
    assert_verified(&musher, &ran.stdout, &["verify", "--user"]);
}

/// Asks systemd what it thinks of a unit, where there is systemd.
fn assert_verified(musher: &Musher, unit: &str, verify: &[&str]) {
    let file = musher.write("musher-e2e-dry-run.service", unit);
    let mut command = Command::new("systemd-analyze");
    command.env("XDG_RUNTIME_DIR", musher.cwd());
    match command.args(verify).arg(&file).output() {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr);
            assert!(verified.status.success(), "{said}\n{unit}");
            assert!(!said.contains("musher-e2e-dry-run"), "{said}\n{unit}");
        }
        Err(_) => eprintln!("no systemd-analyze on this machine: the unit is not verified"),
    }
}

#[test]
fn a_unit_of_a_user_is_written_once_and_removed_once() {
    let musher = Musher::new();
    let tool = musher.write(
        "bin/systemctl",
        "#!/bin/sh\necho \"$@\" >> \"$HOME/systemctl\"\n",
    );
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("a mode");
    let config = musher.cwd().join("config");
    let path = format!(
        "{}:/usr/bin:/bin",
        tool.parent().expect("a parent").display()
    );
    let run = |verb: &str| {
        let mut command = musher.command(&[verb, "systemd-user", "--service-name", "apps"]);
        command.env("PATH", &path).env("XDG_CONFIG_HOME", &config);
        let ran = Ran::from(command.output().expect("the binary runs"));
        assert_eq!(ran.code, 0, "{verb}: {}", ran.stderr);
        ran.stdout
    };
    let unit = config.join("systemd/user/apps.service");
    let first = run("startup");
    assert!(first.contains("[-] Executing: systemctl --user enable apps..."));
    let text = fs::read_to_string(&unit).expect("the unit");
    run("startup");
    assert_eq!(fs::read_to_string(&unit).expect("the unit"), text);
    let mode = fs::metadata(&unit).expect("the unit").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(run("unstartup").contains("Init file disabled."));
    assert!(!unit.exists());
    assert!(run("unstartup").contains("nothing is removed"));
    let called = fs::read_to_string(musher.cwd().join("../systemctl")).expect("calls");
    let called: Vec<&str> = called
        .lines()
        .filter(|line| line.contains("able"))
        .collect();
    let expected = [
        "--user enable apps",
        "--user enable apps",
        "--user disable apps",
    ];
    assert_eq!(called, expected);
}

#[test]
fn without_root_the_command_to_copy_is_printed() {
    // Somebody who may not read this test's directories must reach the binary.
    let musher = Musher::called("pm2");
    let open = tempfile::tempdir().expect("a directory");
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let program = open.path().join("pm2");
    fs::copy(env!("CARGO_BIN_EXE_musher"), &program).expect("a copy");
    let mut command = Command::new(&program);
    command
        .args(["startup", "-u", "root", "--hp", "/srv/my apps", "--wait-ip"])
        .env_clear()
        .env("PATH", musher.cwd().join("bin"))
        .current_dir("/");
    let tool = musher.write("bin/systemctl", "#!/bin/sh\nexit 1\n");
    for path in [&tool, &musher.cwd().join("bin"), &musher.cwd()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let scratch = musher.cwd().join("..");
    fs::set_permissions(scratch, fs::Permissions::from_mode(0o755)).expect("a mode");
    // Only root can become somebody else, and only root has to.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let ran = Ran::from(command.output().expect("the binary runs"));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let expected = format!(
        "[PM2] Init System found: systemd\n\
         [PM2] To setup the Startup Script, copy/paste the following command:\n\
         sudo env PATH=$PATH:{} {} startup systemd -u root --hp '/srv/my apps' --wait-ip\n",
        open.path().display(),
        program.display()
    );
    assert_eq!(ran.stdout, expected);
}

/// Runs `musher boot` on a machine of its own: the first process of a pid
/// namespace, whose boot id is `boot_id`.
struct Machine(Child);

impl Machine {
    const SCRIPT: &str = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id || exit 1; \
                          exec \"$2\" boot --home \"$3\"";

    fn boot(musher: &Musher, boot_id: &str, socket: &Path) -> Machine {
        let id = musher.write("boot_id", &format!("{boot_id}\n"));
        let child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--pid", "--fork"])
            .args(["--mount-proc", "--kill-child"])
            .args(["sh", "-c", Machine::SCRIPT, "machine"])
            .args([&id, &musher.program(), &musher.home()])
            .env("NOTIFY_SOCKET", socket)
            .stdout(Stdio::null())
            .spawn();
        Machine(child.expect("unshare runs"))
    }

    /// Cuts the power: everything on it dies at once, and nothing is saved.
    fn cut_power(mut self) {
        let id = self.0.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.expect("children of unshare");
        kill(children.trim().parse().expect("one child"), "KILL");
        self.0.wait().expect("an end");
    }
}

#[test]
fn a_machine_that_loses_power_has_its_apps_back_with_their_ids() {
    let probe = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
        ])
        .args([
            "mount",
            "--bind",
            "/dev/null",
            "/proc/sys/kernel/random/boot_id",
        ])
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("no namespaces on this machine: nothing is tested");
        return;
    }
    let musher = saved();
    let path = musher.cwd().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let mut machine = Machine::boot(&musher, "first", &path);
    assert!(next_word(&musher, &socket).starts_with("READY=1\n"));
    assert_eq!(next_word(&musher, &socket), "BARRIER=1");
    musher.wait_status("web", 2, "online");
    // Started and never saved: the daemon's database knows it.
    musher.ok(&["start", "app.js", "--name", "unsaved"]);
    musher.ok(&["stop", "job"]);
    let identity = |musher: &Musher| -> Vec<(i64, String, String)> {
        let list = musher.list();
        let each = list.iter().map(|p| {
            let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let status = word(&p["pm2_env"]["status"]);
            (p["pm_id"].as_i64().unwrap_or(-1), word(&p["name"]), status)
        });
        each.collect()
    };
    let before = identity(&musher);
    assert_eq!(before.len(), 4);
    for boot_id in ["second", "third"] {
        machine.cut_power();
        machine = Machine::boot(&musher, boot_id, &path);
        let begin = std::time::Instant::now();
        assert!(next_word(&musher, &socket).starts_with("READY=1\n"));
        assert_eq!(next_word(&musher, &socket), "BARRIER=1");
        musher.wait("the same list", || {
            (identity(&musher) == before).then_some(())
        });
        println!("apps online {:?} after power came back", begin.elapsed());
    }
    machine.cut_power();
}
